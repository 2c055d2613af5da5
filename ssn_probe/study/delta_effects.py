"""What a run measured of one training, as a delta file and a model card state it: plain JSON."""

from typing import Any

import polars as pl

from ssn_probe.study.arms import BASELINE, TESTED, ArmName
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.summary import AVERAGE, applied_language, averaged
from ssn_probe.training.delta_file.stated_measures import MEASURES

BASE = (ArmName(BASELINE), BASELINE)
BEFORE = ("before", "before_low", "before_high")


def measured_of(
    summary: pl.DataFrame, comparisons: pl.DataFrame, arm: ArmName, *, run: str, anchor: str | None
) -> dict[str, Any] | None:
    """`effects`: per language and measure before and after; `controls`: on the average, what else the run trained.

    Args:
        summary, comparisons: a run's, or some languages of them.
        arm: a tested arm of it.
        run: the run's name.
        anchor: that of the study, which averages leave out.

    A control is the sets of a comparison beside the arm (their mean, and the interval in which 95 % of such sets fall),
    or another tested arm (its 95 % interval). `before` is null where the average before is over other languages than
    that after. None where nothing of the arm was measured.
    """
    effects = [_comparable(row, summary, arm, anchor) for row in _effects(summary, arm)]
    controls = _controls(summary, comparisons, arm)
    return {"run": run, "arm": arm.title, "effects": effects, "controls": controls} if effects else None


def _effects(summary: pl.DataFrame, arm: ArmName) -> list[dict[str, Any]]:
    keys = ["language", "measure"]
    after = summary.filter(arm.rows, pl.col("measure").is_in(MEASURES), role=TESTED)
    before = summary.filter(role=BASELINE).select(
        *keys, pl.col("value").alias("before"), pl.col("low").alias("before_low"), pl.col("high").alias("before_high")
    )
    columns = [*keys, "n", *BEFORE, pl.col("value").alias("after"), "low", "high"]
    return after.join(before, on=keys, how="left", maintain_order="left").select(columns).to_dicts()


def _comparable(row: dict[str, Any], summary: pl.DataFrame, arm: ArmName, anchor: str | None) -> dict[str, Any]:
    """The row, without its figures before where they are an average over other languages."""
    sides = (averaged(summary, name, row["measure"], anchor, role) for name, role in ((arm, TESTED), BASE))
    return row if row["language"] != AVERAGE or len(set(sides)) == 1 else row | dict.fromkeys(BEFORE)


def _controls(summary: pl.DataFrame, comparisons: pl.DataFrame, arm: ArmName) -> list[dict[str, Any]]:
    average = summary.filter(pl.col("measure").is_in(MEASURES), language=AVERAGE, role=TESTED)
    named = average.with_columns(of=applied_language()).filter(~arm.rows)
    names = [ArmName(*name).title for name in named.select("arm", "of", "step").iter_rows()]
    others = named.select(pl.Series("arm", names, pl.String), "measure", "value", "low", "high")
    beside = comparisons.filter(pl.col("measure").is_in(MEASURES), arm=arm.arm, language=AVERAGE)
    beside = beside.filter(pl.col("step").eq_missing(pl.lit(arm.step, pl.Int64)))
    titles = [COMPARISONS[name].counted(sets) for name, sets in beside.select("comparison", "sets").iter_rows()]
    drawn = beside.select(pl.Series("arm", titles, pl.String), "measure", value="mean", low="low", high="high")
    return pl.concat([drawn, others]).to_dicts()
