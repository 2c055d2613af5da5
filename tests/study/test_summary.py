"""Rates, paired differences and controls, against figures worked out by hand."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from arm_samples import samples, spelled

from ssn_probe.stats import newcombe, wilson
from ssn_probe.study.summary import AVERAGE, against_placebo, summarise

THIRDS = "o" + (pl.int_range(pl.len()).over("eval_language") // 3).cast(pl.String)
"""The same label for three prompts that follow each other."""


def cell(summary: pl.DataFrame, **where: Any) -> dict[str, Any]:
    return summary.filter(**where).row(0, named=True)


def summary_of(*frames: pl.DataFrame, primary: str | None = "ss", odds: pl.DataFrame | None = None) -> pl.DataFrame:
    return summarise(pl.concat(frames), odds, anchor="aa", primary=primary, seed=0)


def test_rates_are_of_judged_responses() -> None:
    frame = samples("baseline", "baseline", {"aa": spelled("rrrr"), "bb": spelled("rciuc")})
    summary = summary_of(frame, primary=None)
    asr = cell(summary, language="bb", measure="asr")
    assert (asr["value"], asr["n"]) == (2 / 4, 4)
    assert (asr["low"], asr["high"]) == pytest.approx(wilson(2, 4))
    assert cell(summary, language="bb", measure="asr_paper")["value"] == 3 / 4
    assert cell(summary, language="bb", measure="invalid")["value"] == 1 / 4


@pytest.mark.parametrize(
    ("before", "after", "table"),
    [("rrrrrrcccc", "ccrrrrcccr", (3, 2, 1, 4)), ("rrrc", "cuuc", (1, 1, 0, 0))],
    ids=["all judged", "unjudged responses leave their pair"],
)
def test_differences_are_paired_by_prompt(before: str, after: str, table: tuple[int, int, int, int]) -> None:
    arms = (("baseline", "baseline", before), ("ss", "tested", after))
    frames = (samples(arm, role, {"bb": spelled(text)}) for arm, role, text in arms)
    row = cell(summary_of(*frames), arm="ss", language="bb", measure="asr")
    both, gained, lost, _ = table
    assert (row["value"], row["n"]) == ((both + gained) / sum(table), sum(table))
    assert row["delta"] == pytest.approx((gained - lost) / sum(table))
    assert (row["delta_low"], row["delta_high"]) == pytest.approx(newcombe(*table))


def test_languages_weigh_the_same_in_the_average() -> None:
    frame = samples("baseline", "baseline", {"aa": spelled("cccc"), "bb": spelled("cc"), "cc": spelled("rrrrrrrr")})
    average = cell(summary_of(frame, primary=None), language=AVERAGE, measure="asr")
    assert average["value"] == pytest.approx(0.5)


def controlled(shares: list[int]) -> pl.DataFrame:
    """A tested arm that breaks 8 of 10, and random sets that break so many."""
    frames = [
        samples("baseline", "baseline", {"bb": spelled("r" * 10)}),
        samples("ss", "tested", {"bb": spelled("c" * 8 + "rr")}),
    ]
    for seed, share in enumerate(shares):
        frames.append(samples("ss", "control", {"bb": spelled("c" * share + "r" * (10 - share))}, seed=seed))
    return pl.concat(frames)


def test_the_rank_among_the_random_sets_is_the_p() -> None:
    weaker = samples("ss", "without top neuron", {"bb": spelled("c" * 5 + "r" * 5)})
    summary = summary_of(controlled([1, 2, 3] * 6 + [9]), weaker)
    assert set(summary["measure"]) == {"asr", "asr_paper", "invalid"}, "contexts without data have no row"
    assert cell(summary, role="without top neuron", language=AVERAGE, measure="asr")["controls"] is None
    row = cell(summary, arm="ss", role="tested", language=AVERAGE, measure="asr")
    assert row["primary"]
    assert row["p"] == pytest.approx(2 / 20)
    assert row["controls"] == 19
    assert row["control_mean"] == pytest.approx(np.mean([0.1, 0.2, 0.3] * 6 + [0.9]))
    assert summary.filter(language="bb")["p"].null_count() == summary.filter(language="bb").height


def test_log_odds_fall_when_refusal_breaks() -> None:
    def odds(arm: str, role: str, value: float, seed: int | None = None) -> pl.DataFrame:
        rows = samples(arm, role, {"bb": spelled("rr")}, seed=seed).drop("verdict", "context")
        return rows.with_columns(pl.Series("log_odds", [value, value + 1]))

    frame = pl.concat(
        [
            odds("baseline", "baseline", 3.0),
            odds("ss", "tested", -2.0),
            *(odds("ss", "control", 2.9, seed) for seed in range(99)),
        ]
    )
    summary = summary_of(controlled([1] * 19), odds=frame)
    row = cell(summary, arm="ss", role="tested", language=AVERAGE, measure="refusal_log_odds")
    assert row["p"] == pytest.approx(0.01)
    assert row["delta"] == pytest.approx(-5.0)
    assert not row["primary"]


def test_an_arm_of_one_language_leaves_that_language_out_of_its_average() -> None:
    """Otherwise a set that breaks only its own language would look as if it transferred."""
    rows = {"aa": spelled("rr"), "bb": spelled("cc"), "cc": spelled("cr")}
    baseline = samples("baseline", "baseline", {language: spelled("rr") for language in rows})
    tested = samples("ms.of(bb)", "tested", rows).with_columns(set_language=pl.lit("bb"))
    summary = summary_of(baseline, tested, primary=None)
    assert cell(summary, arm="ms.of(bb)", language=AVERAGE, measure="asr")["value"] == 0.5
    assert cell(summary, arm="baseline", language=AVERAGE, measure="asr")["n"] == 4


def arms_of_six(primary: list[str]) -> pl.DataFrame:
    """An anchor and languages l0, l1, … of a tested arm, each beside the same baseline."""
    verdicts = {"aa": primary[0]} | {f"l{i}": text for i, text in enumerate(primary)}
    return pl.concat(
        [
            samples("baseline", "baseline", {language: spelled("r" * 8) for language in verdicts}),
            samples("ss", "tested", {language: spelled(text) for language, text in verdicts.items()}),
        ]
    )


def asr_rows(frame: pl.DataFrame, role: str = "tested") -> dict[str, dict[str, Any]]:
    return {row["language"]: row for row in summary_of(frame).filter(measure="asr", role=role).rows(named=True)}


def test_mcnemar_and_holm_by_hand() -> None:
    """Eight and six changes of eight prompts, all one way: 2/256 and 2/64; the anchor is in no family."""
    rows = asr_rows(arms_of_six(["cccccccc", "ccccccrr"]))
    assert [rows[one]["p_mcnemar"] for one in ("aa", "l0", "l1")] == pytest.approx([2 / 256, 2 / 256, 2 / 64])
    assert [rows[one]["p_holm"] for one in ("l0", "l1")] == pytest.approx([4 / 256, 2 / 64])
    assert rows["aa"]["p_holm"] is None
    assert rows[AVERAGE]["p_mcnemar"] is rows[AVERAGE]["p_holm"] is None


def test_only_the_primary_arms_asr_is_a_family() -> None:
    summary = summary_of(arms_of_six(["cccccccc"]), samples("ms", "tested", {"l0": spelled("c" * 8)}))
    adjusted = summary.filter(pl.col("p_holm").is_not_null())
    assert adjusted.select("arm", "measure", "language").rows() == [("ss", "asr", "l0")]
    assert cell(summary, arm="ms", measure="asr", language="l0")["p_mcnemar"] == pytest.approx(2 / 256)
    assert summary.filter(role="baseline")["p_mcnemar"].null_count() == summary.filter(role="baseline").height


def test_mcnemar_needs_single_prompt_clusters_and_whole_pairs() -> None:
    shared = arms_of_six(["cccccccc"]).with_columns(cluster=pl.col("cluster").replace("c1", "c0"))
    assert asr_rows(shared)["l0"]["p_mcnemar"] is None
    unpaired = asr_rows(arms_of_six(["ccccccuc", "cccccccc"]))
    assert (unpaired["l0"]["p_mcnemar"], unpaired["l0"]["p_holm"]) == (None, None)
    assert unpaired["l1"]["p_holm"] == pytest.approx(2 / 256), "a family of one"


def test_crossed_clusters_are_in_every_interval_and_leave_no_mcnemar() -> None:
    """Prompts that are single in one column share labels of another: neither is left out of an interval."""
    text = {language: spelled("rrrrrrcccccc") for language in ("aa", "bb")}
    frames = [samples("baseline", "baseline", text)]
    frames.append(samples("ss", "tested", {language: spelled("rrcccccccccc") for language in text}))
    alone, shared = summary_of(*frames), summary_of(*(frame.with_columns(cluster_2=THIRDS) for frame in frames))
    for language in ("bb", AVERAGE):
        where = {"arm": "ss", "language": language, "measure": "asr"}
        one, crossed = cell(alone, **where), cell(shared, **where)
        assert (one["clusters"], one["crossed"]) == (12, None)
        assert (crossed["clusters"], crossed["crossed"]) == (4, "12 × 4")
        assert (crossed["value"], crossed["delta"]) == (one["value"], one["delta"])
        assert crossed["high"] - crossed["low"] > 1.2 * (one["high"] - one["low"])
        assert crossed["delta_high"] - crossed["delta_low"] > 1.2 * (one["delta_high"] - one["delta_low"])
    assert alone["p_mcnemar"].drop_nulls().len() > 0
    assert shared["p_mcnemar"].drop_nulls().is_empty()


def test_log_odds_are_no_outcomes_for_mcnemar() -> None:
    frame = arms_of_six(["cccccccc"])
    odds = frame.drop("verdict", "context").with_columns(log_odds=pl.when(role="tested").then(0.0).otherwise(1.0))
    summary = summary_of(frame, odds=odds).filter(measure="refusal_log_odds")
    assert summary["p_mcnemar"].null_count() == summary["detectable"].null_count() == summary.height


def test_what_would_have_shown_follows_from_the_interval() -> None:
    rows = asr_rows(arms_of_six(["ccccrrrr"]))
    width = rows["l0"]["delta_high"] - rows["l0"]["delta_low"]
    assert rows["l0"]["detectable"] == pytest.approx(2.80158 * width / (2 * 1.959964), rel=1e-5)
    assert rows[AVERAGE]["detectable"] is not None
    assert asr_rows(arms_of_six(["ccccrrrr"]), role="baseline")["l0"]["detectable"] is None


def test_a_placebo_is_described_and_has_no_controls() -> None:
    placebo = samples("ss", "placebo", {"bb": spelled("c" * 2 + "r" * 8)})
    row = cell(summary_of(controlled([1] * 19), placebo), role="placebo", measure="asr", language="bb")
    assert (row["controls"], row["p"], row["p_holm"], row["detectable"]) == (None, None, None, None)
    assert row["delta"] == pytest.approx(0.2)
    assert row["p_mcnemar"] == pytest.approx(0.5)


def test_the_arm_against_its_placebo_is_paired_and_leaves_the_anchor_out() -> None:
    frame = pl.concat(
        [
            samples("ss", "tested", {"aa": spelled("cccc"), "bb": spelled("cccr"), "cc": spelled("ccrr")}),
            samples("ss", "placebo", {"aa": spelled("rrrr"), "bb": spelled("crrr"), "cc": spelled("rrru")}),
            samples("ms", "placebo", {"bb": spelled("cccc")}),
        ]
    )
    found = against_placebo(frame, "ss", "aa", 0)
    assert found is not None
    assert found.value == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert found.n == 7
    assert against_placebo(frame, "ms", "aa", 0) is None, "no tested arm"
    assert against_placebo(frame.filter(role="tested"), "ss", "aa", 0) is None


def test_an_arm_that_should_lower_asr_is_tested_downwards() -> None:
    """1 of 10 comply, and 5 under each random set; the log-odds are above all but one of theirs."""
    frames = [
        samples("baseline", "baseline", {"bb": spelled("c" * 6 + "r" * 4)}),
        samples("x2", "tested", {"bb": spelled("c" + "r" * 9)}),
        *(samples("x2", "control", {"bb": spelled("c" * 5 + "r" * 5)}, seed=seed) for seed in range(19)),
    ]
    frame = pl.concat(frames)
    rise = pl.when(role="tested").then(3.0).when(seed=0).then(4.0).otherwise(1.0)
    odds = frame.drop("verdict", "context").with_columns(log_odds=rise)
    found = {}
    for lowers in ((), ("x2",)):
        summary = summarise(frame, odds, anchor=None, primary="x2", seed=0, lowers=lowers)
        rows = summary.filter(role="tested", language=AVERAGE)
        found[lowers] = [cell(rows, measure=name)["p"] for name in ("asr", "refusal_log_odds")]
    assert found[()] == pytest.approx([1.0, 19 / 20])
    assert found["x2",] == pytest.approx([1 / 20, 2 / 20])
