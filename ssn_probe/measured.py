"""What a run measured of one training, as a delta file and a model card state it: plain JSON."""

from typing import Any

import polars as pl

from ssn_probe.arms import BASELINE, TESTED
from ssn_probe.expand.stated import MEASURES
from ssn_probe.summary import AVERAGE

BEFORE = ("before", "before_low", "before_high")


def measured_of(summary: pl.DataFrame, arm: str, *, run: str) -> dict[str, Any] | None:
    """`effects`: per language and measure before and after; `controls`: on the average, what else the run trained.

    Args:
        summary: a run's, or some languages of it.
        arm: a tested arm of it.
        run: the run's name.

    A control is the arm's random sets (their mean, and the interval in which 95 % of such sets fall), or another tested
    arm (its 95 % interval). `before` is null where the average before is over other languages than that after. None
    where nothing of the arm was measured.
    """
    effects = _effects(summary, arm)
    return {"run": run, "arm": arm, "effects": effects, "controls": _controls(summary, arm)} if effects else None


def _effects(summary: pl.DataFrame, arm: str) -> list[dict[str, Any]]:
    keys = ["language", "measure"]
    after = summary.filter(pl.col("measure").is_in(MEASURES), arm=arm, role=TESTED)
    before = summary.filter(role=BASELINE).select(
        *keys, pl.col("value").alias("before"), pl.col("low").alias("before_low"), pl.col("high").alias("before_high")
    )
    columns = [*keys, "n", *BEFORE, pl.col("value").alias("after"), "low", "high"]
    both = after.join(before, on=keys, how="left", maintain_order="left").select("set_language", *columns)
    return [_before_after(row, summary, arm) for row in both.to_dicts()]


def _before_after(row: dict[str, Any], summary: pl.DataFrame, arm: str) -> dict[str, Any]:
    own = row.pop("set_language")
    if row["language"] != AVERAGE or own not in summary["language"]:
        return row
    return row if _anchors(summary.filter(measure=row["measure"]), own, arm) else row | dict.fromkeys(BEFORE)


def _anchors(summary: pl.DataFrame, own: str, arm: str) -> bool:
    """Does every average leave out `own`, whose neurons the arm applies everywhere, and nothing else?

    The arm's average leaves out `own` and the anchor, the baseline's the anchor alone: they are over the same languages
    only where the two are one.
    """
    tested, baseline = summary.filter(arm=arm, role=TESTED), summary.filter(role=BASELINE)
    return _uncounted(tested) == sum(tested.filter(language=own)["n"]) and _uncounted(baseline) > 0


def _uncounted(rows: pl.DataFrame) -> int:
    """Responses of the languages that the average leaves out."""
    average = pl.col("language") == AVERAGE
    return sum(rows.filter(~average)["n"]) - sum(rows.filter(average)["n"])


def _controls(summary: pl.DataFrame, arm: str) -> list[dict[str, Any]]:
    average = summary.filter(pl.col("measure").is_in(MEASURES), language=AVERAGE, role=TESTED)
    others = average.filter(pl.col("arm") != arm).select("arm", "measure", "value", "low", "high")
    drawn = average.filter(pl.col("controls") > 0, arm=arm).select(
        (pl.col("controls").cast(pl.String) + " random sets").alias("arm"),
        "measure",
        pl.col("control_mean").alias("value"),
        pl.col("control_low").alias("low"),
        pl.col("control_high").alias("high"),
    )
    return pl.concat([drawn, others]).to_dicts()
