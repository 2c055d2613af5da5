"""Two runs beside each other, in sentences and tables that the terminal, a notebook and a page share."""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from ssn_probe.report.cells import ABSENT, p_value
from ssn_probe.report.document import Bullets, Folded, Part, Section, Table, section
from ssn_probe.report.measure_tables import DIGITS, TITLES, digits_of
from ssn_probe.study.run_comparison import ARM, CHANGE, UNTOUCHED, RunComparison
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import capitalised, counted, p_equals, plain, signed

CHART = "run_differences"
NAMES = {
    "asr": "ASR",
    "over_refusal": "over-refusal",
    "utility": "utility",
    "in_language": "responses in the prompt's language",
    "refusal_log_odds": "refusal log-odds",
    "language_log_odds": "language log-odds",
}
READING = (
    "Every difference is second − first on the prompts that both runs have, paired prompt by prompt, with its 95 % "
    "interval over clusters of prompts (in brackets; for shares in percentage points). A change is how much an arm "
    "differs from its untouched model, so the difference of two changes leaves out how the untouched models differ. "
    "p: of the average as it is, of languages after Holm over those of the average. Several measures and arms are not "
    "adjusted for each other: none of these is the one primary test of either run. A dash instead of an interval: the "
    "prompts do not vary, so that its width is unknown."
)
Row = dict[str, Any]


def headlines(found: RunComparison) -> list[str]:
    """What came out, one sentence per thing that is compared, on the average over languages; untouched models last."""
    measure = next((name for name in NAMES if name in set(found.table["measure"])), None)
    if measure is None:
        return ["No measure has outcomes in both runs."]
    rows = found.table.filter(measure=measure, language=AVERAGE).rows(named=True)
    rows.sort(key=lambda row: row["compared"] == UNTOUCHED)
    alike = is_alike(found, measure)
    return [_alike(found, measure) if alike and row["compared"] == UNTOUCHED else _sentence(found, row) for row in rows]


def finding(found: RunComparison, measure: str) -> str:
    """The difference on the average in a few words, for a title: that of the first arm, or of the untouched models."""
    rows = found.table.filter(measure=measure, language=AVERAGE)
    arms = rows.filter(compared=ARM)
    row = (arms if arms.height else rows).row(0, named=True)
    size = f"{abs(_scale(measure) * row['difference']):.{digits_of(measure)}f}{_unit(measure)}"
    more = f"{size} {'higher' if row['difference'] > 0 else 'lower'}" if row["difference"] else "the same"
    return f"{capitalised(NAMES[measure])}{_outside(found)} is {more} in the second run ({compared_title(row)})"


def drawn(found: RunComparison, measure: str) -> list[pl.DataFrame]:
    """What is worth a panel of its own: everything that is compared, but untouched models that do not differ."""
    groups = _groups(found.table.filter(measure=measure))
    alike = is_alike(found, measure)
    return [own for own in groups if not alike or own["compared"][0] == ARM] or list(groups)


def is_alike(found: RunComparison, measure: str) -> bool:
    """Are the untouched models alike in every language?"""
    return (found.table.filter(measure=measure, compared=UNTOUCHED)["difference"] == 0).all()


def _alike(found: RunComparison, measure: str) -> str:
    rows = found.table.filter(measure=measure, compared=UNTOUCHED, language=AVERAGE)
    same = _figure(measure, rows["first"][0])
    return f"The untouched models do not differ in {NAMES[measure]}{_outside(found)}: {same} in both runs."


def _sentence(found: RunComparison, row: Row) -> str:
    measure, unit, arms = row["measure"], _unit(row["measure"]), (row["first_arm"], row["second_arm"])
    first, second = _values(row)
    ends = (
        ""
        if row["low"] is None
        else f", 95 % interval {_signed(measure, row['low'])} to {_signed(measure, row['high'])}"
    )
    p = "" if row["p"] is None else f", {p_equals(row['p'])}"
    beside = f"({_signed(measure, row['difference'])}{unit}{ends}{p}; n = {counted(row['n'], 'pair')})"
    what = f"{NAMES[measure]}{_outside(found)}"
    if row["compared"] == CHANGE:
        other = "by" if arms[0] == arms[1] else f"{arms[1]} by"
        return f"{arms[0]} changes {what} by {first}{unit} in the first run, {other} {second} in the second {beside}."
    under = [" of the untouched model", ""] if row["compared"] == UNTOUCHED else [f" under {arm}" for arm in arms]
    under[1] = "" if arms[0] == arms[1] else under[1]
    return f"{capitalised(what)}{under[0]} is {first} in the first run,{under[1]} {second} in the second {beside}."


def both_arms(row: Row) -> str:
    """The arm, or both where they have two names: `ss`, `ss / ss x2`."""
    first, second = row["first_arm"], row["second_arm"]
    return first if first == second else f"{first} / {second}"


def _outside(found: RunComparison) -> str:
    anchors = dict.fromkeys(run.manifest["anchor"] for run in (found.first, found.second) if run.manifest["anchor"])
    return f" outside {' and '.join(anchors)}" if anchors else ""


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _scale(measure: str) -> float:
    return 1.0 if measure in DIGITS else 100.0


def _unit(measure: str) -> str:
    return "" if measure in DIGITS else " points"


def _figure(measure: str, value: float) -> str:
    return f"{_scale(measure) * value:.{digits_of(measure)}f}{'' if measure in DIGITS else ' %'}"


def _signed(measure: str, value: float) -> str:
    return signed(_scale(measure) * value, digits_of(measure))


def difference_cell(row: Row) -> str:
    """`-13.4 [-16.2, -10.7]`, or a dash in place of an interval."""
    measure = row["measure"]
    ends = ABSENT if row["low"] is None else f"[{_signed(measure, row['low'])}, {_signed(measure, row['high'])}]"
    return f"{_signed(measure, row['difference'])} {ends}"


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def differences_table(rows: pl.DataFrame, name: str) -> Table:
    """One thing that is compared on one measure: a row per language, the average last."""
    head = ("language", "first run", "second run", "difference", "p", "pairs", "clusters")
    body = []
    for row in rows.rows(named=True):
        average = row["language"] == AVERAGE
        p = p_value(row["p"] if average else row["p_holm"])
        sizes = f"{row['n']:,}", row["crossed"] or f"{row['clusters']:,}"
        body.append((name if average else row["language"], *_values(row), difference_cell(row), p, *sizes))
    return Table(head, tuple(body))


def averages_table(found: RunComparison) -> Table:
    """Every measure and everything that is compared, on the average."""
    body = [
        (
            NAMES[row["measure"]],
            compared_title(row),
            *_values(row),
            difference_cell(row),
            p_value(row["p"]),
            f"{row['n']:,}",
        )
        for row in found.table.filter(language=AVERAGE).rows(named=True)
    ]
    return Table(("measure", "compared", "first run", "second run", "difference", "p", "pairs"), tuple(body))


def _values(row: Row) -> tuple[str, str]:
    write = _signed if row["compared"] == CHANGE else _figure
    return write(row["measure"], row["first"]), write(row["measure"], row["second"])


def compared_title(row: Row) -> str:
    """What a row compares: the untouched models, an arm, or the change by it."""
    if row["compared"] == UNTOUCHED:
        return "untouched models"
    return both_arms(row) if row["compared"] == ARM else f"change by {both_arms(row)}"


def average_name(found: RunComparison) -> str:
    return f"average{_outside(found).replace(' outside', ' without')}"


def differs_table(found: RunComparison) -> Table | None:
    """What the two runs do not have in common, beside the prompts that pair; None where that is nothing."""
    body = [
        (f"{one.where}{f' (and {one.places - 1} more)' if one.places > 1 else ''}", one.first, one.second)
        for one in found.differs
    ]
    return Table(("what", "first run", "second run"), tuple(body)) if body else None


def runs_table(found: RunComparison) -> Table:
    """Which runs these are."""
    runs = (found.first, found.second)
    rows = {
        "run": [run.name for run in runs],
        "recipe": [run.recipe.name for run in runs],
        "model": [run.manifest["model"]["name"] for run in runs],
        "started": [run.manifest["started"] for run in runs],
    }
    return Table(("", "first run", "second run"), tuple((name, *map(str, values)) for name, values in rows.items()))


def pairs_line(found: RunComparison) -> str:
    judge = "Nobody judged the responses." if found.judge is None else f"Judge of both: {found.judge}."
    return f"Paired are {found.pairs}. {judge}"


# ── sections ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def comparison_sections(found: RunComparison) -> list[Section]:
    """The whole comparison, the answer apart."""
    return [
        section("Which runs", runs_table(found), pairs_line(found), _notes(found)),
        *_measures(found),
        *_differs(found),
    ]


def _notes(found: RunComparison) -> Bullets | None:
    return Bullets(found.notes) if found.notes else None


def _measures(found: RunComparison) -> Iterator[Section]:
    yield section("Differences on the average over languages", averages_table(found), READING)
    for measure in (name for name in NAMES if name in set(found.table["measure"])):
        rows = found.table.filter(measure=measure)
        kinds = [(compared_title(own.row(0, named=True)), own) for own in _groups(rows)]
        parts: list[Part] = []
        for title, own in kinds:
            grid = differences_table(own, average_name(found))
            if own["compared"][0] == UNTOUCHED and is_alike(found, measure):
                parts.append(_alike(found, measure))
            elif own["compared"][0] == ARM:
                parts += [f"{title}:", grid]
            else:
                parts.append(Folded(title, (grid,)))
        yield section(TITLES[measure], *parts)


def _groups(rows: pl.DataFrame) -> Sequence[pl.DataFrame]:
    return rows.partition_by("compared", "first_arm", "second_arm", maintain_order=True)


def _differs(found: RunComparison) -> Iterator[Section]:
    grid = differs_table(found)
    same = "Nothing: the two runs were made in the same way."
    yield section("Also differs", same if grid is None else grid)


def title_of(found: RunComparison) -> str:
    """The two runs by their recipes and models, as far as these differ."""
    names = [f"{run.recipe.name} on {run.manifest['model']['name']}" for run in (found.first, found.second)]
    return plain(f"{names[0]}, twice" if names[0] == names[1] else f"{names[0]} beside {names[1]}")
