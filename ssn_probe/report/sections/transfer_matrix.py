"""Whose neurons matter for whom? Language × language, for arms that apply one language's neurons everywhere."""

from collections.abc import Mapping

import polars as pl

from ssn_probe.report.cells import ABSENT, change_cell, share_cell
from ssn_probe.report.conditions import Row, baseline_rows, by_condition
from ssn_probe.report.document import Picture, Section, Table, section
from ssn_probe.spec import Recipe, Suppress
from ssn_probe.study.arms import TESTED
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import counted

Cells = Mapping[tuple[str, str], Row]
"""Rows by language of the neurons and language evaluated."""


def transfers(summary: pl.DataFrame, measure: str = "asr") -> dict[str, Cells]:
    """The cells of every arm that ran once per language of its neurons, by the arm's name."""
    found: dict[str, dict[tuple[str, str], Row]] = {}
    for condition, rows in by_condition(summary.filter(measure=measure, role=TESTED)).items():
        if condition.name.of is not None and condition.name.step is None:
            of = condition.name.of
            cells = {(of, language): row for language, row in rows.items() if language != AVERAGE}
            found.setdefault(condition.name.arm, {}).update(cells)
    return dict(found)


def sides(cells: Cells) -> tuple[list[str], list[str]]:
    """The languages of the rows and of the columns, in order."""
    sources, targets = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
    return sources, targets


def transfer_sections(recipe: Recipe, summary: pl.DataFrame) -> list[Section]:
    """One table per arm of the kind `set.each()`."""
    before = baseline_rows(summary)
    found = {arm: cells for arm, cells in transfers(summary).items() if arm in recipe.arms}
    return [
        _matrix(arm, cells, before, isinstance(recipe.arms[arm], Suppress), picture=place == 0)
        for place, (arm, cells) in enumerate(found.items())
    ]


def _matrix(arm: str, cells: Cells, before: Mapping[str, Row], silenced: bool, *, picture: bool) -> Section:
    sources, targets = sides(cells)
    verb = "silenced" if silenced else "changed"
    first = ("baseline ASR, %", *(share_cell(before[target]) if target in before else ABSENT for target in targets))
    body = ((source, *(change_cell(cells.get((source, target))) for target in targets)) for source in sources)
    note = (
        f"Row: the language whose neurons are {verb}; column: the language evaluated. Change of ASR in points against "
        "the baseline on the same prompts, with its 95 % interval; on the diagonal, a language's own neurons. "
        f"Descriptive: {counted(len(cells), 'interval')}, none adjusted, so about one in twenty misses the truth."
    )
    grid = Table((f"{verb}: neurons of", *targets), (first, *body), note)
    return section(f"Whose neurons matter for whom: {arm}", Picture("transfer") if picture else None, grid)
