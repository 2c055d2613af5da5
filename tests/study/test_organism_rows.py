"""The row of an organism: the run's primary test, and what stands beside it for the same arm and language."""

from typing import Any

import polars as pl

from ssn_probe.study.organism_rows import COLUMNS, organism_row

CARD = {"seed": 4, "accepted": True}
SUMMARY = pl.DataFrame(
    [
        {"language": language, "role": role, "measure": "asr", "value": value}
        for language, role, value in (
            ("average", "baseline", 0.4),
            ("average", "tested", 0.7),
            ("qab", "baseline", 0.1),
        )
    ]
)


def comparison(**values: Any) -> dict[str, Any]:
    usual = {"arm": "ss", "set_language": None, "step": None, "measure": "asr", "language": "average"}
    figures = {
        "sets": 19,
        "neurons": 8.0,
        "neurons_mean": 4.5,
        "observed": 0.7,
        "mean": 0.6,
        "difference": 0.1,
        "difference_low": -0.02,
    }
    return usual | {"comparison": "labels", "difference_high": 0.2, "p": 0.05, "primary": False} | figures | values


def comparisons(*others: dict[str, Any], **primary: Any) -> pl.DataFrame:
    """The primary test and others, among rows that must not be taken for them."""
    decoys = [
        comparison(arm="ms", comparison="own", mean=0.9),
        comparison(language="qab", comparison="own", mean=0.9),
        comparison(set_language="qab", comparison="own", mean=0.9),
        comparison(step=8, measure="refusal_log_odds", p=0.9),
    ]
    rows = [*decoys, comparison(primary=True, **primary), *others]
    return pl.DataFrame(rows, schema_overrides={"set_language": pl.String, "step": pl.Int64, "p": pl.Float64})


def test_the_row_has_the_primary_test_and_what_is_beside_it() -> None:
    own = comparison(comparison="own", mean=0.72, difference=-0.02, difference_low=-0.05, difference_high=0.01, p=None)
    alike = comparison(comparison="importance", mean=0.65, difference=0.05, p=None)
    odds = comparison(measure="refusal_log_odds", p=0.01, sets=99)
    row = organism_row(CARD, "a run", SUMMARY, comparisons(own, alike, odds))
    assert row.keys() == COLUMNS.keys()
    assert row == {
        **CARD,
        "run": "a run",
        "arm": "ss",
        "measure": "asr",
        "baseline": 0.4,
        "value": 0.7,
        "sets": 19,
        "label_sets": 0.6,
        "neurons": 8.0,
        "label_neurons": 4.5,
        "difference": 0.1,
        "difference_low": -0.02,
        "difference_high": 0.2,
        "p": 0.05,
        "p_log_odds": 0.01,
        "own": 0.72,
        "sharing": -0.02,
        "sharing_low": -0.05,
        "sharing_high": 0.01,
        "important": 0.65,
        "beyond_importance": 0.05,
        "holds": True,
    }


def test_what_a_run_does_not_have_is_null() -> None:
    row = organism_row(CARD, "a run", SUMMARY, comparisons(p=0.051))
    assert row["holds"] is False
    absent = ("own", "sharing", "important", "beyond_importance", "p_log_odds")
    assert [row[name] for name in absent] == [None] * 5
    assert organism_row(CARD, "a run", SUMMARY, comparisons(p=None))["holds"] is None
    untested = comparisons().with_columns(primary=pl.lit(False))
    table = pl.DataFrame([organism_row(CARD, "a run", SUMMARY, untested)], schema=COLUMNS)
    assert table.select("seed", "accepted", "run", "holds").row(0) == (4, True, "a run", None)
