"""Dose by dose: what is left of refusal, and what it costs."""

from collections.abc import Iterator

import polars as pl

from ssn_probe.report.cells import ABSENT
from ssn_probe.report.conditions import Row, summary_row
from ssn_probe.report.document import Picture, Section, Table, section
from ssn_probe.report.doses import dose_groups, dose_label, dose_of, untouched_row
from ssn_probe.report.measure_tables import DIGITS, digits_of
from ssn_probe.spec import Recipe, Trains
from ssn_probe.study.arms import TESTED
from ssn_probe.study.summary import KL, LOG_ODDS, PERPLEXITY

COLUMNS = {
    "asr": "ASR, %",
    LOG_ODDS: "refusal log-odds",
    "over_refusal": "over-refusal, %",
    "utility": "utility, %",
    KL: "KL on harmless text",
    PERPLEXITY: "perplexity",
}
NOTE = (
    "On the average over languages, with 95 % intervals. The doses are descriptions: only the primary arm is compared "
    "with other sets. Utility can be at its ceiling long before the model answers as it did; the KL from the untouched "
    "model on harmless text is not."
)


def doses_section(recipe: Recipe, summary: pl.DataFrame, anchor: str | None) -> Section | None:
    """A table per set whose activation is scaled by several factors; trainings have learning curves."""
    groups = [arms for arms in dose_groups(recipe) if not isinstance(recipe.arms[arms[0]], Trains)]
    tables = [_table(recipe, summary, arms, anchor) for arms in groups]
    return section("Dose by dose", Picture("doses"), *tables, NOTE) if tables else None


def _table(recipe: Recipe, summary: pl.DataFrame, arms: list[str], anchor: str | None) -> Table:
    measured = [name for name in COLUMNS if name in set(summary.filter(pl.col("arm").is_in(arms))["measure"])]
    body = tuple((name, *cells) for _, name, cells in sorted(_lines(recipe, summary, arms, measured, anchor)))
    return Table(("activation", *(COLUMNS[name] for name in measured)), body)


def _lines(
    recipe: Recipe, summary: pl.DataFrame, arms: list[str], measured: list[str], anchor: str | None
) -> Iterator[tuple[float, str, list[str]]]:
    untouched = [_cell(untouched_row(summary, arms, name, anchor)) for name in measured]
    yield 1.0, "×1: the untouched model", untouched
    for arm in arms:
        node = recipe.arms[arm]
        primary = ", the primary arm" if arm == recipe.primary else ""
        cells = [_cell(summary_row(summary, arm, name, role=TESTED)) for name in measured]
        yield dose_of(node), f"{dose_label(node)} ({arm}{primary})", cells


def _cell(row: Row | None) -> str:
    if row is None:
        return ABSENT
    scale, digits = (1 if row["measure"] in DIGITS else 100), digits_of(row["measure"])
    if row["low"] is None:
        return f"{scale * row['value']:.{digits}f}"
    low = max(0.0, row["low"]) if row["measure"] == KL else row["low"]
    return f"{scale * row['value']:.{digits}f} [{scale * low:.{digits}f}, {scale * row['high']:.{digits}f}]"
