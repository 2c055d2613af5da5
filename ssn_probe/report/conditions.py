"""The conditions that a summary has rows of, what a reader calls them, and how their rows are found."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from ssn_probe.study.arms import BASELINE, TESTED, WEAKENED, ArmName
from ssn_probe.study.summary import AVERAGE, applied_language
from ssn_probe.text import counted, listing, plain

Row = Mapping[str, Any]
"""One row of the summary, by column."""
VARIANTS = {WEAKENED: "without its top neuron"}
"""Conditions beside a tested arm, in words."""


class Condition(NamedTuple):
    """An arm in one role."""

    name: ArmName
    role: str = TESTED

    @property
    def title(self) -> str:
        """The arm in words, and the role where the arm is not as the recipe has it."""
        return f"{self.name.title}, {VARIANTS[self.role]}" if self.role in VARIANTS else self.name.title


def arm_names(rows: pl.DataFrame) -> list[ArmName]:
    """The arm of every row of one measure."""
    return [ArmName(*row) for row in rows.select("arm", applied_language(), "step").iter_rows()]


def by_condition(rows: pl.DataFrame) -> dict[Condition, dict[str, Row]]:
    """The rows of one measure by condition and language, in the order of the table."""
    found: dict[Condition, dict[str, Row]] = {}
    for name, row in zip(arm_names(rows), rows.rows(named=True), strict=True):
        found.setdefault(Condition(name, row["role"]), {})[row["language"]] = row
    return found


def last_steps(rows: pl.DataFrame) -> pl.DataFrame:
    """Without the points of learning curves but the last of each, which is all a table per language has room for."""
    return rows.filter(pl.col("step").is_null() | (pl.col("step") == pl.col("step").max().over("arm")))


def summary_row(
    summary: pl.DataFrame, arm: str, measure: str, *, role: str = TESTED, language: str = AVERAGE
) -> Row | None:
    """The row of an arm that has one per measure and language, by default that of the average."""
    rows = summary.filter(ArmName(arm).rows, measure=measure, role=role, language=language)
    return rows.row(0, named=True) if rows.height == 1 else None


def why_no_change(summary: pl.DataFrame | None, arm: str) -> str:
    """Why an arm has no change of ASR on the average, in a sentence without a full stop."""
    asr = pl.DataFrame() if summary is None else summary.filter(measure="asr")
    rows = asr if asr.is_empty() else asr.filter(ArmName(arm).rows, role=TESTED)
    if rows.is_empty():
        return "ASR was not measured: there are no judged harmful prompts"
    if AVERAGE in set(rows["language"]):
        return "ASR has no change: no harmful prompt has a verdict both under the untouched model and under the arm"
    left_out = listing([plain(language) for language in rows["language"]])
    return f"ASR has no average: it leaves out the anchor and the language of the neurons, and {left_out} are all"


def leaves_out_its_own(rows: Mapping[str, Row], anchor: str | None) -> bool:
    """Does the average of an arm leave out, beside the anchor, the language whose neurons it applies everywhere?"""
    spoken = [row for language, row in rows.items() if language != AVERAGE]
    applied = {row["set_language"] for row in spoken}
    return len(spoken) > 1 and len(applied) == 1 and applied <= set(rows) - {anchor}


def on_fewer(row: Row, before: float) -> str:
    """On which prompts a change is measured, where these are not all that the figures before and after are over."""
    return "" if abs(row["value"] - before - row["delta"]) < 1e-9 else " on the prompts that count in both"


def clusters_of(row: Row) -> str:
    """How many clusters a figure is over, of every column where they cross."""
    crossed = row.get("crossed")
    return f"{crossed} crossed clusters" if crossed else counted(row["clusters"], "cluster")


def comparison_rows(comparisons: pl.DataFrame | None, condition: Condition) -> list[Row]:
    """What is beside a tested arm, from the rows of one measure."""
    if comparisons is None or condition.role != TESTED:
        return []
    name = condition.name
    here = pl.col("step").eq_missing(pl.lit(name.step, pl.Int64))
    of = pl.col("set_language").eq_missing(pl.lit(name.of, pl.String))
    return list(comparisons.filter(here, of, arm=name.arm).iter_rows(named=True))


def comparison_row(
    comparisons: pl.DataFrame | None, arm: str, comparison: str, measure: str = "asr", language: str = AVERAGE
) -> Row | None:
    """What a comparison beside a single arm gives, by default on the average over languages."""
    if comparisons is None:
        return None
    rows = comparisons.filter(arm=arm, comparison=comparison, measure=measure, language=language)
    return rows.row(0, named=True) if rows.height == 1 else None


def baseline_rows(summary: pl.DataFrame, measure: str = "asr") -> dict[str, Row]:
    """The untouched model's rows, by language."""
    return {row["language"]: row for row in summary.filter(measure=measure, role=BASELINE).rows(named=True)}
