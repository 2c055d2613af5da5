"""Charts of sets and of figures in rows: what is drawn is what the tables say."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from arm_samples import MS, RECIPE, findings, row, table
from test_charts import layers, marks

from ssn_probe import Amplify, Suppress
from ssn_probe.report.charts import (
    asr_chart,
    dose_chart,
    judge_chart,
    neuron_chart,
    overlap_chart,
    stability_chart,
    transfer_chart,
    truth_chart,
)
from ssn_probe.report.charts.cell_maps import shade
from ssn_probe.report.charts.chart import Chart
from ssn_probe.report.charts.stability_chart import apart
from ssn_probe.report.finished import FinishedRun
from ssn_probe.stats.intervals import wilson
from ssn_probe.study.robustness import Robustness

SHAPE = {"layers": 3, "per_layer": {"q": 10, "ffn": 30}}
NEURONS = pl.DataFrame(
    {
        "set": ["ss"] * 5,
        "language": ["aa", "aa", "aa", "bb", "bb"],
        "layer": [0, 2, 2, 2, 0],
        "site": ["q", "ffn", "ffn", "ffn", "q"],
        "index": [1, 2, 3, 2, 1],
    }
)


def run_of(manifest: dict[str, Any] | None = None, **changes: Any) -> FinishedRun:
    return FinishedRun(recipe=RECIPE, manifest=manifest or {}, findings=replace(findings(), **changes))


def says(chart: Chart | None) -> list[str]:
    """Everything that marks say."""
    assert chart is not None
    found = [row["says"] for one in layers(chart.specification) for row in one["data"]["values"] if "says" in row]
    assert chart.altair is not None
    return found


def test_a_cell_per_layer_and_site_has_the_mean_over_languages_and_its_range() -> None:
    sets = {"ss": {"aa": 3, "bb": 2, "cc": 0}}
    chart = neuron_chart.draw(run_of({"neurons": SHAPE}, neurons=NEURONS, sets=sets))
    found = says(chart)
    assert len(found) == 6
    assert "layer 2, ffn: 1.0 neurons per language, 0 to 2" in found
    assert "layer 0, q: 0.7 neurons per language, 0 to 1" in found
    assert "layer 1, ffn: none" in found
    assert chart is not None
    assert chart.title == (
        "ss: 1.0 of 1.7 neurons per language are in ffn of layer 2; ffn has 60 % of the set and 75 % of all neurons"
    )
    many = {"neurons": {"layers": 80, "per_layer": SHAPE["per_layer"]}}
    drawn = neuron_chart.draw(run_of(many, neurons=NEURONS, sets=sets))
    assert drawn is not None
    assert drawn.specification["hconcat"][0]["height"] <= 540
    assert neuron_chart.draw(run_of({"neurons": SHAPE}, neurons=NEURONS.clear())) is None


def overlap(**changes: list[Any]) -> pl.DataFrame:
    known: dict[str, Any] = {"set": ["ss"] * 3, "language_a": ["aa", "aa", "bb"], "language_b": ["bb", "cc", "cc"]}
    known |= {"size_a": [9] * 3, "size_b": [8] * 3, "shared": [6, 4, 2], "expected": [0.5] * 3}
    known |= {"jaccard": [0.1] * 3, "expected_permuted": [3.0, 2.0, 1.0], "p_permuted": [0.01, 0.2, 0.9]}
    return pl.DataFrame(known | changes)


def test_shared_neurons_stand_below_the_diagonal_and_the_null_above_it() -> None:
    chart = overlap_chart.draw(run_of(overlap=overlap()))
    assert chart is not None
    texts = [(one["x"] < one["y"], one["text"]) for one in marks(chart, "text") if "x" in one and "y" in one]
    assert {text for below, text in texts if below} >= {"6", "4", "2"}
    assert {text for below, text in texts if not below} >= {"3.0", "2.0", "1.0"}
    assert "aa and bb: 6 shared, 3.0 expected, p = .030 after Holm" in says(chart)
    assert chart.title.endswith("more than expected is shown for 1 of 3 pairs")
    missed = overlap_chart.draw(run_of(overlap=overlap(p_permuted=[0.2, 0.3, 0.4])))
    assert missed is not None
    assert missed.title.endswith("not shown for any of 3 pairs")
    untested = overlap_chart.draw(run_of(overlap=overlap(p_permuted=[None] * 3, expected_permuted=[None] * 3)))
    assert untested is not None
    assert "not tested" in untested.title
    assert overlap_chart.draw(run_of()) is None


def test_an_overlap_says_how_many_sets_it_leaves_out() -> None:
    arms = {"ss": RECIPE.arms["ss"], "ms": RECIPE.arms["ms"], "more": Suppress(replace(MS, top=0.2))}
    found = pl.concat([overlap(set=[name] * 3) for name in arms])
    chart = overlap_chart.draw(replace(run_of(overlap=found), recipe=replace(RECIPE, arms=arms)))
    assert chart is not None
    assert "1 more set in the tables." in chart.specification["title"]["subtitle"]


def test_stability_ends_where_the_halves_agree() -> None:
    jaccard = {"set": ["ss"] * 2, "language": ["aa", "bb"], "jaccard": [0.5, 0.7], "low": [0.4, 0.6]}
    jaccard |= {"high": [0.6, 0.8], "null_jaccard": [0.1, 0.2], "p": [0.01] * 2, "pairs": [50] * 2}
    curve = {"set": ["ss"] * 4, "language": ["aa", "aa", "bb", "bb"], "prompts": [50.0, 100.0] * 2}
    curve |= {"jaccard": [0.3, 0.5, 0.4, 0.7]}
    found = Robustness(jaccard=pl.DataFrame(jaccard), curve=pl.DataFrame(curve))
    chart = stability_chart.draw(run_of(robustness=found))
    assert "aa: 0.50 (0.40 to 0.60), 0.10 under exchanged labels" in says(chart)
    assert chart is not None
    assert [row["jaccard"] for row in marks(chart, "line")] == [0.3, 0.5, 0.4, 0.7]
    assert chart.title == (
        "ss: two halves of the prompts share a Jaccard overlap of 0.50 to 0.70 over 2 languages, 0.15 under exchanged "
        "labels"
    )
    assert stability_chart.draw(run_of()) is None


def test_names_beside_lines_stay_apart() -> None:
    assert apart([10, 11, 100], 15, 220) == [10, 25, 100]
    assert apart([210, 215, 219], 15, 220) == [190, 205, 220]
    assert apart([], 15, 220) == []


def test_cells_are_darker_with_more_and_brown_below_zero() -> None:
    levels = [int(shade(share)[1:3], 16) for share in (0, 0.5, 1)]
    assert levels == sorted(levels, reverse=True)
    assert shade(-1) != shade(1)


def test_doses_are_in_order_with_the_untouched_model_at_one() -> None:
    ss = RECIPE.arms["ss"]
    recipe = replace(RECIPE, arms={"ss": ss, "twice": Amplify(ss.neurons, by=2.0)})
    arms = {"baseline": 0.2, "ss": 0.6, "twice": 0.1}
    rows = [
        row(
            arm,
            measure,
            "baseline" if arm == "baseline" else "tested",
            value=value,
            low=value - 0.05,
            high=value + 0.05,
        )
        for arm, value in arms.items()
        for measure in ("asr", "utility")
    ]
    run = FinishedRun(recipe=recipe, manifest={}, findings=findings(summary=table(*rows)))
    chart = dose_chart.draw(run)
    assert chart is not None
    dots = [row for row in marks(chart, "point") if "value" in row]
    assert [row["value"] for row in sorted(dots[:3], key=lambda row: row["y"])] == pytest.approx([60, 20, 10])
    assert chart.title.startswith("From ×1 to ×0 (ss): ASR 20.0 % → 60.0 %")
    assert dose_chart.draw(run_of(summary=table(*rows))) is None


def test_a_language_s_neurons_are_a_row_of_the_transfer() -> None:
    rows = [
        row("ss", set_language=source, language=target, delta=delta, delta_low=delta - 0.1, delta_high=delta + 0.1)
        for source, target, delta in (("aa", "aa", 0.4), ("aa", "bb", -0.1), ("bb", "aa", 0.2), ("bb", "bb", 0.3))
    ]
    chart = transfer_chart.draw(run_of(summary=table(*rows)))
    assert any(one.startswith("neurons of aa in bb: -10.0 points, 95 % interval -20.0 to +0.0") for one in says(chart))
    assert chart is not None
    assert "+35.0 points in their own language and +5.0 points in others" in chart.title


def test_neurons_of_each_language_are_named_beside_the_asr_although_they_have_no_average() -> None:
    rows = [row("baseline", role="baseline", value=0.2, low=0.1, high=0.3)]
    rows += [row("baseline", role="baseline", language=of, value=0.2, low=0.1, high=0.3) for of in ("aa", "bb")]
    rows += [row("ss", set_language=of, language=language) for of in ("aa", "bb") for language in ("aa", "bb")]
    run = run_of(summary=table(*rows))
    chart = asr_chart.draw(replace(run, recipe=replace(RECIPE, primary=None)))
    assert chart is not None
    named = {row["colour"]: row["text"] for row in marks(chart, "text") if "colour" in row}
    assert {row["colour"] for row in marks(chart, "point") if "asr" in row} <= set(named)
    assert "ss, own neurons: no average" in named.values()


def test_the_certificate_s_shares_have_wilson_s_intervals() -> None:
    counts = {"other_as_complied": 9, "other_as_refused": 1, "refused_as_refused": 20, "refused_as_complied": 0}
    judge = {"name": "gate", "contexts": ["harmful"]}
    certified = judge | {"certificate": {"languages": {"aa": counts}, "data": {"name": "labels"}}}
    chart = judge_chart.draw(run_of({"judges": [certified]}))
    assert chart is not None
    first, second = [row for row in marks(chart, "point") if "value" in row]
    low, high = wilson(9, 10)
    assert (first["value"], first["low"], first["high"]) == pytest.approx((90, 100 * low, 100 * high))
    assert second["value"] == 100
    assert chart.title == "gate: sensitivity 90.0 % of 10, specificity 100.0 % of 20"
    assert judge_chart.draw(run_of({"judges": [judge]})) is None


def test_identification_is_beside_what_was_planted() -> None:
    known: dict[str, Any] = {"set": ["ss"] * 2, "ranked_by": ["own"] * 2, "question": ["harmful"] * 2}
    known |= {"language": ["aa", "bb"], "precision": [0.5, 0.7], "recall": [0.2, 0.4], "mass": [0.8, 0.6]}
    chart = truth_chart.draw(run_of(truth=pl.DataFrame(known)))
    assert chart is not None
    assert chart.title == "ss has 70 % of the planted value, precision 60 %"
    first = next(row for row in marks(chart, "point") if "value" in row)
    assert (first["value"], first["low"], first["high"]) == pytest.approx((60, 50, 70))
    assert truth_chart.draw(run_of()) is None
