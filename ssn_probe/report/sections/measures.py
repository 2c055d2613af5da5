"""What was measured: ASR per language, led by the primary arm, then every other measure and arm."""

from collections.abc import Iterator, Sequence

from ssn_probe.report.cells import ABSENT, change_cell
from ssn_probe.report.conditions import Row
from ssn_probe.report.document import Bullets, Folded, Section, Table, section
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.measure_tables import (
    DIGITS,
    SHORT,
    TITLES,
    Column,
    Grid,
    constant,
    digits_of,
    grid_of,
    measure_tables,
    reading,
    text_note,
)
from ssn_probe.report.sections.primary_tests import primary_tests
from ssn_probe.spec import ASR, InLanguage, LMEval, OverRefusal, Perplexity, Recipe, Utility
from ssn_probe.study.arms import BASELINE, TESTED
from ssn_probe.study.summary import AVERAGE, IN_LANGUAGE, KL, LANGUAGE_LOG_ODDS, PERPLEXITY
from ssn_probe.text import signed

TABLES_OF = {
    ASR: ("asr", "asr_paper", "invalid"),
    OverRefusal: ("over_refusal",),
    Utility: ("utility",),
    InLanguage: (IN_LANGUAGE, LANGUAGE_LOG_ODDS),
    Perplexity: (KL, PERPLEXITY),
    LMEval: (),
}
"""What the report shows of each measure that a recipe asks for."""
MOST_LEADING = 5
"""Columns of figures that a table shows before the reader asks for more."""


def leading(grid: Grid, recipe: Recipe) -> list[Column]:
    """The untouched model, the primary arm and its first comparison; without one, all whole arms where they are few."""
    columns = [column for column in grid.columns if column.condition.role in (BASELINE, TESTED)]
    if recipe.primary is not None:
        columns = [
            column
            for column in columns
            if column.condition.role == BASELINE
            or (column.condition.name.arm, column.condition.role) == (recipe.primary, TESTED)
        ]
    arms = [column for column in columns if column.comparison is None]
    return next((few for few in (columns, arms) if len(few) <= MOST_LEADING), columns[:1])


def asr_section(run: FinishedRun) -> Section | None:
    """ASR per language: the untouched model, the primary arm, what it is compared with, and its change."""
    grid = grid_of(run, "asr")
    if grid is None:
        return None
    columns = leading(grid, run.recipe)
    table = grid.table(columns)
    arms = [column for column in columns if column.comparison is None and column.condition.role != BASELINE]
    if run.recipe.primary is not None and len(arms) == 1:
        changes = [change_cell(arms[0].rows.get(one)) for one in (*run.findings.evaluated, AVERAGE)]
        rows = tuple((*row, change) for row, change in zip(table.rows, changes, strict=True))
        table = Table((*table.head, f"change by {run.recipe.primary}, points"), rows)
    return section(TITLES["asr"], table, _how_to_read(run, grid), primary_tests(run))


def measures_section(run: FinishedRun) -> Section | None:
    """What else was measured, and of which arms else: on the average, in a sentence where all is the same, folded."""
    grids = {name: grid for name in TITLES if (grid := grid_of(run, name))}
    told = {name: _told(run, grid, grids.get("asr")) for name, grid in grids.items()}
    lines = (*_absent(run.recipe, grids), *(one for one in told.values() if isinstance(one, str)))
    folded = [one for one in told.values() if isinstance(one, Folded)]
    if run.findings.summary is None or not (lines or folded):
        return None
    differ = [grid for name, grid in grids.items() if name != "asr" and isinstance(told[name], Folded)]
    how = None if "asr" in grids else _how_to_read(run, next(iter(grids.values())))
    bullets = Bullets(lines) if lines else None
    return section("Other measures and arms", _on_average(run, differ), bullets, *folded, how)


def _how_to_read(run: FinishedRun, grid: Grid) -> Folded:
    text = reading(run.recipe, run.findings.comparisons, grid.columns, run.findings.anchor)
    return Folded("How to read the figures", (text,))


def _absent(recipe: Recipe, grids: dict[str, Grid]) -> Iterator[str]:
    asked = {name for measure in recipe.measures for name in TABLES_OF[type(measure)]}
    for name, title in TITLES.items():
        if name in asked and name not in grids:
            yield f"{title}: not measured, for there is no data."


def _repeats(grid: Grid, asr: Grid | None) -> str | None:
    """Says so where the figures that papers print are those of ASR."""
    if asr is None or grid.measure != "asr_paper":
        return None
    same = all(
        column.figures(language) == other.figures(language)
        for column, other in zip(grid.columns, asr.columns, strict=False)
        for language in {**column.rows, **other.rows}
    )
    same = same and len(grid.columns) == len(asr.columns)
    return f"{TITLES[grid.measure]}: every figure is that of the ASR." if same else None


def _told(run: FinishedRun, grid: Grid, asr: Grid | None) -> str | Folded | None:
    """A measure in a sentence where it can be, else its tables, folded; of ASR what did not lead."""
    if grid is not asr and (line := constant(grid) or _repeats(grid, asr)):
        return line
    lead = {column.title for column in leading(grid, run.recipe)} - {BASELINE} if grid is asr else set()
    if grid is asr and len(grid.columns) <= len(lead) + 1:
        return None
    title = TITLES[grid.measure] if grid is not asr else f"The {'other ' if lead else ''}arms: {TITLES['asr']}"
    parts = measure_tables(grid, run.recipe.primary, lead)
    if not any(isinstance(part, Table) for part in parts):
        return f"{title}. {' '.join(map(str, parts))}"
    assert run.findings.summary is not None
    return Folded(title, (*parts, *([text_note(run.findings.summary)] if grid.measure == KL else [])))


def _on_average(run: FinishedRun, grids: Sequence[Grid]) -> Table | None:
    """Measures of the primary arm beside the untouched model, on the average over languages."""
    if run.recipe.primary is None:
        return None
    rows = []
    for grid in grids:
        columns = leading(grid, run.recipe)
        arms = [one for one in columns if one.condition.role != BASELINE]
        if len([one for one in arms if one.comparison is None]) != 1:
            continue
        by_kind = {(one.condition.role == BASELINE, one.comparison is not None): one for one in columns}
        cells = (
            grid.cells[by_kind[kind].title][-1] if kind in by_kind else ABSENT
            for kind in ((True, False), (False, False), (False, True))
        )
        rows.append((SHORT[grid.measure], *cells, _change(arms[0].rows.get(AVERAGE), grid.measure)))
    compared = [one.title for grid in grids for one in leading(grid, run.recipe) if one.comparison is not None]
    head = ("on the average", "baseline", run.recipe.primary, next(iter(compared), "compared sets"), "change")
    return Table(head, tuple(rows)) if rows else None


def _change(row: Row | None, measure: str) -> str:
    """The paired difference from the baseline: of shares in points, of perplexity in per cent."""
    if row is None or row["delta"] is None or measure == KL:
        return ABSENT
    if measure == PERPLEXITY:
        return f"{change_cell(row)} %"
    if measure not in DIGITS:
        return change_cell(row)
    digits = digits_of(measure)
    low, high = (signed(row[name], digits) for name in ("delta_low", "delta_high"))
    return f"{signed(row['delta'], digits)} [{low}, {high}]"
