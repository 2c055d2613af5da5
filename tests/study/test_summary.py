"""Rates and paired differences, against figures worked out by hand."""

from typing import Any

import polars as pl
import pytest
from arm_samples import samples, spelled

from ssn_probe.stats import newcombe, wilson
from ssn_probe.study.summary import AVERAGE, summarise

THIRDS = "o" + (pl.int_range(pl.len()).over("eval_language") // 3).cast(pl.String)
"""The same label for three prompts that follow each other."""


def cell(summary: pl.DataFrame, **where: Any) -> dict[str, Any]:
    return summary.filter(**where).row(0, named=True)


def summary_of(*frames: pl.DataFrame, primary: str | None = "ss", odds: pl.DataFrame | None = None) -> pl.DataFrame:
    return summarise(pl.concat(frames), odds, anchor="aa", primary=primary)


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


def test_compared_sets_have_no_row() -> None:
    sets = (samples("ss", role, {"l0": spelled("c" * 8)}, seed=0) for role in ("labels", "random", "placebo"))
    assert summary_of(arms_of_six(["cccccccc"]), *sets).equals(summary_of(arms_of_six(["cccccccc"])))


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
