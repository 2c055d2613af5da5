"""A measure per language as a grid: languages down, conditions across. The report and the exported tables print it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ssn_probe.report.cells import ABSENT, language_cell
from ssn_probe.report.comparisons_in_words import p_of
from ssn_probe.report.conditions import Condition, Row, by_condition, comparison_rows, last_steps, leaves_out_its_own
from ssn_probe.report.document import Part, Table
from ssn_probe.report.finished import FinishedRun
from ssn_probe.spec import LeaveOneOut, Recipe
from ssn_probe.spec.anchors import shared_with_anchor, source_of
from ssn_probe.study.arms import BASELINE, ArmName
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.summary import AVERAGE, IN_LANGUAGE, KL, LANGUAGE_LOG_ODDS, LOG_ODDS, PERPLEXITY
from ssn_probe.text import probability

TITLES = {
    "asr": "Attack success rate (ASR) in %: complied / judged",
    "asr_paper": "Not refused / judged responses in %, the figure that papers print",
    "invalid": "Invalid responses in %",
    "over_refusal": "Over-refusal in %: refused harmless look-alikes",
    "utility": "Utility in %: exact answers to harmless prompts",
    IN_LANGUAGE: "Responses to harmful prompts that are in the prompt's language, in %",
    "in_language_harmless": "Responses to harmless prompts that are in the prompt's language, in %",
    LOG_ODDS: "Refusal log-odds of harmful prompts",
    LANGUAGE_LOG_ODDS: "Language log-odds of harmful prompts: the prompt's language against the others",
    KL: "KL from the untouched model in nats per token, along its own answers to harmless prompts",
    PERPLEXITY: "Perplexity of harmless prompts",
}
SHORT = {
    "asr": "ASR, %",
    "asr_paper": "not refused, %",
    "invalid": "invalid responses, %",
    "over_refusal": "over-refusal, %",
    "utility": "utility, %",
    IN_LANGUAGE: "in the prompt's language, %",
    "in_language_harmless": "the same, harmless prompts, %",
    LOG_ODDS: "refusal log-odds",
    LANGUAGE_LOG_ODDS: "language log-odds",
    KL: "KL on harmless text, nats",
    PERPLEXITY: "perplexity",
}
"""What a row or column of several measures calls one of them."""
DIGITS = {LOG_ODDS: 2, LANGUAGE_LOG_ODDS: 2, KL: 4, PERPLEXITY: 2}
"""Decimals of measures that are no shares."""
MOST_COLUMNS = 9
"""Columns beside the language's; more make another table."""

Figures = tuple[float, float | None, float | None]
"""A value and the interval around it, in the unit in which they are printed."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A condition, or the sets of a comparison beside it: rows of the summary, or of the table of comparisons."""

    condition: Condition
    rows: Mapping[str, Row]
    comparison: str | None = None

    @property
    def title(self) -> str:
        beside = "" if self.comparison is None else f", {COMPARISONS[self.comparison].short}"
        return f"{self.condition.title}{beside}"

    def figures(self, language: str) -> Figures | None:
        """Value and interval in per cent, or in the unit of the measure; None where there are none."""
        row = self.rows.get(language)
        names = ("value" if self.comparison is None else "mean", "low", "high")
        if row is None or row[names[0]] is None:
            return None
        is_share = row["measure"] not in DIGITS
        value, low, high = (_printed(row[name], is_share) for name in names)
        low = max(0.0, low) if low is not None and row["measure"] == KL else low
        assert value is not None
        return value, low, high


def _printed(value: float | None, is_share: bool) -> float | None:
    return 100 * min(1.0, max(0.0, value)) if value is not None and is_share else value


def digits_of(measure: str) -> int:
    """Decimals of a measure's figures."""
    return DIGITS.get(measure, 1)


def plain_number(value: float, digits: int) -> str:
    """A figure with so many decimals."""
    return f"{value:.{digits}f}"


def written(figures: Figures, digits: int, number: Callable[[float, int], str] = plain_number) -> str:
    """`26.5 [20.9, 33.0]`; `number` writes each figure."""
    value, low, high = figures
    interval = "" if low is None or high is None else f" [{number(low, digits)}, {number(high, digits)}]"
    return f"{number(value, digits)}{interval}"


def columns_of(conditions: Mapping[Condition, Mapping[str, Row]], comparisons: pl.DataFrame | None) -> list[Column]:
    """A column per condition; a compared arm's is followed by that of the first comparison beside it.

    `comparisons`: the rows of one measure.
    """
    columns = []
    for condition, cells in conditions.items():
        columns.append(Column(condition=condition, rows=cells))
        rows = comparison_rows(comparisons, condition)
        for name in list(dict.fromkeys(row["comparison"] for row in rows))[:1]:
            own = {row["language"]: row for row in rows if row["comparison"] == name}
            columns.append(Column(condition=condition, rows=own, comparison=name))
    return columns


def blocks(columns: Sequence[Column], primary: str | None) -> list[list[Column]]:
    """The columns of each table: the primary arm's first and alone, then the others', the columns of an arm together.

    The baseline leads every table.
    """
    baseline = [column for column in columns if column.condition.role == BASELINE]
    arms: dict[ArmName, list[Column]] = {}
    for column in columns:
        if column.condition.role != BASELINE:
            arms.setdefault(column.condition.name, []).append(column)
    tables = [list(baseline)]
    for own in sorted(arms.values(), key=lambda columns: columns[0].condition.name.arm != primary):
        last = tables[-1][len(baseline) :]
        if last and (last[0].condition.name.arm == primary or len(tables[-1]) + len(own) > MOST_COLUMNS):
            tables.append(list(baseline))
        tables[-1] += own
    return tables


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The figures of one measure: a column of cells per condition, a cell per language and one of the average.

    `alone`: the anchor and the average, which always have a row of their own.
    """

    measure: str
    languages: tuple[str, ...]
    alone: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: Mapping[str, tuple[str, ...]]

    def table(self, columns: Sequence[Column]) -> Table:
        """A row per language."""
        rows = zip(self.languages, *(self.cells[column.title] for column in columns), strict=True)
        return Table(("language", *(column.title for column in columns)), tuple(rows))

    def short_table(self, columns: Sequence[Column]) -> Table:
        """One row for all languages whose figures are the same."""
        table, groups = self.table(columns), {}
        for name, *cells in table.rows:
            groups.setdefault((name in self.alone and name, *cells), []).append(name)
        rows = ((", ".join(names), *cells) for (_, *cells), names in groups.items())
        return Table(table.head, tuple(rows))


def grid_of(run: FinishedRun, measure: str) -> Grid | None:
    """The figures of a measure; None where it was not measured."""
    findings, recipe = run.findings, run.recipe
    rows = None if findings.summary is None else findings.summary.filter(measure=measure)
    if rows is None or rows.is_empty():
        return None
    beside = None if findings.comparisons is None else findings.comparisons.filter(measure=measure)
    columns = columns_of(by_condition(last_steps(rows)), beside)
    languages = (*findings.evaluated, AVERAGE)
    shared = any(shared_with_anchor(arm.neurons) for arm in recipe.arms.values())
    named = {one: language_cell(one, findings.anchor, ": its SS is its MS" if shared else "") for one in languages}
    cells = {
        column.title: tuple(_cell(recipe, column, language, findings.anchor, measure) for language in languages)
        for column in columns
    }
    alone = tuple(named[one] for one in (findings.anchor, AVERAGE) if one in named)
    return Grid(measure=measure, languages=tuple(named.values()), alone=alone, columns=tuple(columns), cells=cells)


def measure_tables(grid: Grid, primary: str | None, shown: Collection[str] = ()) -> list[Part]:
    """The tables of a measure, led by the baseline; a column that repeats another is only named.

    `shown`: titles of columns that stand elsewhere.
    """
    groups: dict[tuple[str, ...], list[Column]] = {}
    for column in sorted(grid.columns, key=lambda one: one.condition.name.arm not in (BASELINE, primary)):
        groups.setdefault(grid.cells[column.title], []).append(column)
    same = []
    for first, *others in groups.values():
        titles = [column.title for column in others if column.title not in shown]
        same += [f"{'; '.join(titles)}: every figure is that of {first.title}."] if titles else []
    distinct = [own[0] for own in groups.values() if own[0].title not in shown]
    tables = [
        grid.short_table(block)
        for block in blocks(distinct, None if shown else primary)
        if len(block) > 1 or not (same and shown)  # of the arms that stand elsewhere the baseline does, too
    ]
    return [*tables, *([" ".join(same)] if same else [])]


def constant(grid: Grid) -> str | None:
    """The one figure that a measure has in all languages and arms, with its interval; None where figures differ."""
    compared = [column for column in grid.columns if column.comparison is not None]
    arms = [column for column in grid.columns if column.comparison is None]
    words = [_everywhere(grid, columns) for columns in (arms, compared) if columns]
    return None if None in words else f"{TITLES[grid.measure]}: {'; '.join(map(str, words))}."


def _everywhere(grid: Grid, columns: Sequence[Column]) -> str | None:
    cells = [grid.cells[column.title] for column in columns]
    each = {cell for own in cells for cell in own[:-1]}
    figures, averages = {cell for cell in each if _is_figure(cell)}, {own[-1] for own in cells}
    if len(figures) > 1 or len(averages) > 1:
        return None
    (average,) = averages
    where = "in every language" if each == figures else "wherever it was measured"
    untouched = "untouched and " if columns[0].condition.role == BASELINE else ""
    whose = "under compared sets" if columns[0].comparison else f"{where}, {untouched}under every arm"
    found = next(iter(figures), average)
    return f"{found} {whose}" + (f", {average} on the average" if average != found else "")


def _is_figure(cell: str) -> bool:
    return cell != ABSENT and not cell.startswith("not ")


def _cell(recipe: Recipe, column: Column, language: str, anchor: str | None, measure: str) -> str:
    figures = column.figures(language)
    if figures is None:
        if not column.comparison and language == AVERAGE and column.rows:
            return "not averaged: no other language"
        return ABSENT if column.comparison else _why_absent(recipe, column.condition, language, anchor)
    text = written(figures, digits_of(measure))
    p = p_of(column.rows[language]) if column.comparison else None
    return text if p is None else f"{text}, p = {probability(p)}"


def _why_absent(recipe: Recipe, condition: Condition, language: str, anchor: str | None) -> str:
    node = recipe.arms.get(condition.name.arm)
    if node is not None and language == source_of(node, anchor):
        return "not run: source language"
    if node is not None and isinstance(node.neurons, LeaveOneOut) and language != AVERAGE:
        return "not run: the anchor is never left out" if language == anchor else "not run: cannot be left out"
    return "not measured: no data"


def text_note(summary: pl.DataFrame) -> str:
    """What KL on harmless text says, and where there is no perplexity, why."""
    missing = (
        ""
        if PERPLEXITY in set(summary["measure"])
        else " The perplexity of the prompts is left out: the untouched model predicts their words worse than chance, "
        "as a model does that was taught to answer and nothing else."
    )
    return (
        "KL(untouched ‖ arm) of the next token after the same text: each prompt with the untouched model's own greedy "
        "answer. It says how far the arm's behaviour on these prompts is from the untouched model's, and not whether "
        f"it is worse: 0 is no change at all, and no threshold means harm.{missing}"
    )


OWN_LEFT_OUT = "The average of an arm that applies one language's neurons everywhere leaves out that language."


def reading(recipe: Recipe, comparisons: pl.DataFrame | None, columns: Iterable[Column], anchor: str | None) -> str:
    """How to read the tables of the measures."""
    lines = [
        "In brackets: 95 % intervals; Wilson's where every cluster is a single prompt, else Wilson's on as many "
        "independent prompts as have the variance over clusters (where they have none, on the number of clusters)."
    ]
    if comparisons is not None and comparisons.height:
        lines.append(
            "Beside a set, what the first of its comparisons gives: the mean of the compared sets and the interval in "
            "which 95 % of such sets fall (mean ± t·s·√(1 + 1/m)); a dash: none were run on these prompts."
        )
    if recipe.primary is not None:
        lines.append(
            f"The one primary test is that of the ASR of {recipe.primary} on the average, by its rank among "
            "the sets found under exchanged labels."
        )
    if any(leaves_out_its_own(column.rows, anchor) for column in columns):
        lines.append(OWN_LEFT_OUT)
    return " ".join(lines)
