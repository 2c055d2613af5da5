"""A study over organisms of several seeds has one row per organism, because the model is the unit."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.study.arms import BASELINE
from ssn_probe.study.summary import AVERAGE, LOG_ODDS

SHOWN = 0.05
DIFFERENCE = ("difference", "difference_low", "difference_high")
COLUMNS = {
    "seed": pl.Int64,
    "accepted": pl.Boolean,
    "run": pl.String,
    "arm": pl.String,
    "measure": pl.String,
    "baseline": pl.Float64,
    "value": pl.Float64,
    "sets": pl.Int64,
    "label_sets": pl.Float64,
    "neurons": pl.Float64,
    "label_neurons": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p": pl.Float64,
    "p_log_odds": pl.Float64,
    "own": pl.Float64,
    "sharing": pl.Float64,
    "sharing_low": pl.Float64,
    "sharing_high": pl.Float64,
    "important": pl.Float64,
    "beyond_importance": pl.Float64,
    "holds": pl.Boolean,
}


def organism_row(card: Mapping[str, Any], run: str, summary: pl.DataFrame, comparisons: pl.DataFrame) -> dict[str, Any]:
    """The row of an organism; see `COLUMNS`.

    `value`: what was measured under the primary arm, on average over the languages; `label_sets`: the mean under sets
    found by the same expression with exchanged labels, `difference` from them and `p`, the run's primary test;
    `neurons` and `label_neurons`: how many neurons per language the set and those sets have; `p_log_odds`: the same
    test on the refusal log-odds; `own`: the mean under as many neurons of each language's own sets, and `sharing` the
    difference from them; `important` and `beyond_importance`: the same of as many equally important neurons. Null where
    a run has no such comparison. `holds`: p ≤ .05, null without p.
    """
    tests = comparisons.filter(pl.col("primary")).rows(named=True)
    if not tests:
        return {"seed": card["seed"], "accepted": card["accepted"], "run": run}
    test = tests[0]
    beside = comparisons.filter(
        pl.col("arm") == test["arm"],
        pl.col("language") == AVERAGE,
        pl.col("set_language").eq_missing(test["set_language"]),
        pl.col("step").eq_missing(test["step"]),
    )
    own, important = (_one(beside, measure=test["measure"], comparison=name) for name in ("own", "importance"))
    before = summary.filter(role=BASELINE, language=AVERAGE, measure=test["measure"])
    return {
        "seed": card["seed"],
        "accepted": card["accepted"],
        "run": run,
        "arm": test["arm"],
        "measure": test["measure"],
        "baseline": before["value"].first(),
        "value": test["observed"],
        "sets": test["sets"],
        "label_sets": test["mean"],
        "neurons": test["neurons"],
        "label_neurons": test["neurons_mean"],
        **{name: test[name] for name in (*DIFFERENCE, "p")},
        "p_log_odds": _one(beside, measure=LOG_ODDS, comparison=test["comparison"]).get("p"),
        "own": own.get("mean"),
        **{name.replace("difference", "sharing"): own.get(name) for name in DIFFERENCE},
        "important": important.get("mean"),
        "beyond_importance": important.get("difference"),
        "holds": None if test["p"] is None else test["p"] <= SHOWN,
    }


def _one(rows: pl.DataFrame, **wanted: str) -> dict[str, Any]:
    """The row with these values; an empty dict where there is none."""
    found = rows.filter(**wanted).rows(named=True)
    return found[0] if found else {}
