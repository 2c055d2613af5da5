"""The answer in words says what the table says, and says so when an effect is absent."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from arm_samples import MEASURES, MS, RECIPE, comparisons, findings, primary_test, row, samples, table

from ssn_probe.report.answer import answer_lines
from ssn_probe.report.claims import claims
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.measure_tables import grid_of
from ssn_probe.spec import Amplify, Intervention, Patch, Recipe, Shared, Suppress
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.study.arms import ArmName
from ssn_probe.study.refusal_trial import Refusals
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.summary import summarise, untouched

SS = Shared(MS)
MANIFEST: dict[str, Any] = {
    "neurons": {"layers": 2, "per_layer": {"ffn": 50}},
    "sets": {"ms": {"aa": 1, "bb": 1}, "ss": {"aa": 9, "bb": 1}},
    "anchor": "aa",
}
NEURONS = pl.DataFrame({"set": ["ms", "ms", "ss"], "language": ["aa", "bb", "aa"], "site": ["ffn"] * 3})


Rows = Sequence[dict[str, Any]]


def lines_of(
    recipe: Recipe,
    *rows: dict[str, Any],
    beside: Rows = (),
    anchor: str = "aa",
    neurons: pl.DataFrame = NEURONS,
    **found: Any,
) -> list[str]:
    """The answer for these rows of the summary, and of the table of comparisons."""
    sizes = {name: {"aa": 9, "bb": 1} for name in recipe.arms} | MANIFEST["sets"]
    tables = {"summary": table(*rows) if rows else None, "comparisons": comparisons(*beside), "neurons": neurons}
    study = findings(anchor=anchor, **tables | found)
    return answer_lines(FinishedRun(recipe=recipe, manifest=MANIFEST | {"sets": sizes}, findings=study))


BASELINE = row("baseline", "asr", "baseline", value=0.4)
RAISED: dict[str, Any] = {"value": 0.6, "delta": 0.2, "delta_low": 0.15, "delta_high": 0.25}
LOWERED: dict[str, Any] = {"value": 0.2, "delta": -0.2, "delta_low": -0.25, "delta_high": -0.15}
SHOWN, NOT_SHOWN = primary_test("ss", 0.05), primary_test("ss", 0.3, observed=0.42, difference=0.01)


def found(*beside: dict[str, Any], **tested: Any) -> list[str]:
    """The answer for a summary whose primary row has these cells, beside these comparisons."""
    other = row("ms", "asr", value=0.7, delta=0.3, delta_low=0.2, delta_high=0.4)
    return lines_of(RECIPE, BASELINE, row("ss", "asr", **(RAISED | tested)), other, beside=beside)


def found_for(arm: Any, *others: dict[str, Any], beside: Rows = (SHOWN,), **tested: Any) -> list[str]:
    """The answer for a primary arm that lowered ASR, with these cells, and other rows."""
    recipe = Recipe(arms={"ss": arm}, measures=MEASURES, primary="ss")
    return lines_of(recipe, BASELINE, row("ss", "asr", **(LOWERED | tested)), *others, beside=beside)


NEVER = "Not shown by any of this: that only these neurons carry refusal, or that the difference is safety."


def test_an_effect_is_told_with_its_numbers_in_one_sentence() -> None:
    assert found(SHOWN) == [
        "Silencing the shared safety neurons (SS) raised ASR outside the anchor aa from 40.0 % to 60.0 % (+20.0 "
        "points, 95 % interval +15.0 to +25.0; n = 1,200), more than sets found under exchanged labels did (p = .050).",
        NEVER,
    ]


@pytest.mark.parametrize(
    ("test", "cells", "words"),
    [
        (NOT_SHOWN, {}, "raised ASR outside the anchor aa from 40.0 % to 60.0 %"),
        (
            NOT_SHOWN,
            {},
            "n = 1,200), but was not shown to do so more than sets found under exchanged labels (p = .300).",
        ),
        (
            NOT_SHOWN,
            {"delta": 0.01, "delta_low": -0.02},
            "was not shown to break refusal: ASR outside the anchor aa went",
        ),
        (SHOWN, {"delta": 0.01, "delta_low": -0.02}, "; p = .050 among sets found under exchanged labels."),
        (SHOWN, {"delta_low": None, "delta_high": None}, "(+20.0 points, no interval; n = 1,200); p = .050 among"),
        (
            primary_test("ss", None, sets=5),
            {},
            "Not tested: 5 sets found under exchanged labels are too few for a test (19",
        ),
        (primary_test("ss", None, sets=5), {"delta_low": -0.02}, "was not shown to break refusal"),
        (None, {}, ". Not tested: no sets found under exchanged labels were run."),
    ],
)
def test_an_absent_or_untested_effect_is_told(test: dict[str, Any] | None, cells: dict[str, Any], words: str) -> None:
    first = found(*([test] if test else []), **cells)[0]
    assert words in first
    assert ", more than sets" not in first
    assert "about as" not in first, "a large p is no evidence of equality: the difference and its interval are told"


def test_where_no_language_shares_a_neuron_nothing_is_tested() -> None:
    recipe = Recipe(arms={"ss": Suppress(SS)}, measures=MEASURES, primary="ss")
    same: dict[str, Any] = {"value": 0.4, "delta": 0.0, "delta_low": -0.1, "delta_high": 0.1}
    rows = [BASELINE, row("ss", "asr", **same)]
    for language in ("aa", "bb"):
        rows.append(row("baseline", "asr", "baseline", language=language, value=0.4))
        rows.append(row("ss", "asr", language=language, set_language=language, **same))
    first = lines_of(recipe, *rows, sets={"ss": {"aa": 9, "bb": 0}})[0]
    assert first.endswith("n = 1,200). Not tested: no language shares a neuron with the anchor aa.")
    assert "no language shares" not in lines_of(recipe, *rows, sets={"ss": {"aa": 9, "bb": 1}})[0]


def test_without_a_valid_null_or_a_refusal_nothing_is_shown() -> None:
    recipe = Recipe(arms={"ss": Suppress(SS)}, measures=MEASURES, primary="ss")
    rows = BASELINE, row("ss", "asr", **RAISED)
    why = Exchangeability(sets=("ss",), prompts=10, impossible="no prompts are exchangeable")
    first = lines_of(recipe, *rows, beside=[SHOWN], robustness=Robustness(exchangeability=(why,)))[0]
    assert first.endswith("n = 1,200). Not tested: no valid null exists.")
    nothing = Refusals(data="mine", language="aa", harmful=40, refused=0, harmless=40, refused_harmless=0)
    lines = lines_of(recipe, *rows, beside=[SHOWN], refusals=(nothing, replace(nothing, language="bb")))
    assert lines[0].startswith("No refusal was shown: refused were 0 of 80 harmful prompts and 0 of 80 harmless in 2 ")
    assert lines[1].startswith(
        "Silencing the shared neurons that respond differently to harmful and harmless prompts (SS)"
    )
    assert lines[1].endswith(" Not tested: no refusal was shown.")


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        (Amplify(SS, by=2), "Amplifying the shared safety neurons (SS) by 2 lowered"),
        (Amplify(SS, by=0.5), "Weakening the shared safety neurons (SS) to 0.5 of their activation"),
        (
            Patch(SS),
            "Carrying over from aa the activation of the shared safety neurons (SS) at the last prompt position",
        ),
        (Patch(SS, source="cc", positions="response"), "Carrying over from cc the activation of the shared safety"),
        (Patch(SS, positions="response"), "at every step of the response"),
    ],
)
def test_every_intervention_has_its_verb(arm: Any, words: str) -> None:
    assert words in found_for(arm)[0]


@pytest.mark.parametrize(
    ("arm", "test", "cells", "words"),
    [
        (Amplify(SS, by=2), SHOWN, {}, "more than sets found under exchanged labels did"),
        (Amplify(SS, by=2), NOT_SHOWN, {}, "but was not shown to do so more than sets found under"),
        (Amplify(SS, by=2), SHOWN, {"delta_high": 0.01}, "was not shown to strengthen refusal: ASR"),
        (
            Patch(SS),
            NOT_SHOWN,
            {"delta_low": 0.1, "delta_high": 0.3},
            "was not shown to strengthen refusal: it raised ASR",
        ),
        (
            Patch(SS),
            primary_test("ss", None, sets=3),
            {},
            "Not tested: 3 sets found under exchanged labels are too few",
        ),
        (Amplify(SS, by=0.5), NOT_SHOWN, {}, "was not shown to break refusal: it lowered ASR"),
        (Suppress(SS), NOT_SHOWN, {}, "was not shown to break refusal: it lowered ASR"),
        (Amplify(SS, by=0.5), SHOWN, {"delta_low": 0.1, "delta_high": 0.3}, ", more than sets found under"),
    ],
)
def test_the_verdict_looks_the_way_that_the_arm_is_meant_to_go(
    arm: Any, test: dict[str, Any], cells: dict[str, Any], words: str
) -> None:
    first = found_for(arm, beside=(test,), **cells)[0]
    assert words in first
    assert (", more than" in first) == (test is SHOWN and "not shown" not in words)


def test_the_source_of_a_patch_is_left_out_of_before_and_after() -> None:
    """The baseline's own row has that language: the sentence takes the same languages before and after."""
    before = [
        row("baseline", "asr", "baseline", language=name, value=value) for name, value in (("bb", 0.3), ("cc", 0.5))
    ]
    first = found_for(Patch(SS, source="bb"), *before, row("ss", "asr", language="cc", value=0.2), delta=-0.3)[0]
    assert "lowered ASR outside the anchor aa and the source bb from 50.0 % to 20.0 % (-30.0 points" in first


def test_an_arm_whose_average_has_no_language_is_not_said_to_have_no_judged_prompts() -> None:
    """The neurons of the only language beside the anchor, applied in every language: none is left for the average."""
    arms: dict[str, Intervention] = {"own": Suppress(MS.of("bb")), "half": Amplify(MS.of("bb"), by=0.5)}
    recipe = Recipe(arms=arms, measures=MEASURES, primary="own")
    verdicts = {"aa": ["refused"] * 8, "bb": ["complied", *["refused"] * 7]}
    tested = [samples(arm, "tested", verdicts).with_columns(set_language=pl.lit("bb")) for arm in arms]
    frame = pl.concat([samples("baseline", "baseline", verdicts), *tested])
    summary = summarise(frame, None, anchor="aa", primary="own")
    told = "ASR has no average: it leaves out the anchor and the language of the neurons, and aa and bb are all"
    lines = lines_of(recipe, *summary.rows(named=True))
    assert lines[0] == f"own: {told}."
    assert not any("by dose" in line for line in lines)
    run = FinishedRun(recipe=recipe, manifest=MANIFEST, findings=findings(summary=summary, evaluated=("aa", "bb")))
    assert [one.why for one in claims(run) if one.primary] == [told]
    grid = grid_of(run, "asr")
    assert grid is not None
    assert grid.cells["own"][-1] == "not averaged: no other language"


def test_a_change_without_prompts_that_count_in_both_is_said_to_be_none() -> None:
    verdicts = {"bb": ["refused"] * 4 + ["unjudged"] * 4}
    hidden = {"bb": ["unjudged"] * 4 + ["refused"] * 4}
    frame = pl.concat([samples("baseline", "baseline", hidden), samples("ss", "tested", verdicts)])
    summary = summarise(frame, None, anchor="aa", primary="ss")
    told = "ss: ASR has no change: no harmful prompt has a verdict both under the untouched model and under the arm."
    assert lines_of(RECIPE, *summary.rows(named=True))[0] == told


def test_before_and_after_are_those_of_the_table_where_the_judge_abstains() -> None:
    """Verdicts that are missing before or after leave the change to fewer prompts than either figure is over.

    The average less the change is then neither: it would be below zero here.
    """
    verdicts = {"aa": ["refused"] * 8, "bb": ["complied", *["refused"] * 7]}
    hidden = {"aa": ["refused"] * 8, "bb": ["refused", "refused", *["unjudged"] * 6]}
    frame = pl.concat([samples("baseline", "baseline", hidden), samples("ss", "tested", verdicts)])
    summary = summarise(frame, None, anchor="aa", primary="ss")
    rows = {(one["arm"], one["language"]): one for one in summary.filter(measure="asr").iter_rows(named=True)}
    before, after = rows["baseline", "average"], rows["ss", "average"]
    assert (before["value"], after["value"], after["delta"]) == pytest.approx((0.0, 1 / 8, 1 / 2))
    assert untouched(summary, ArmName("ss"), "asr", "aa") == before["value"]
    assert untouched(summary, ArmName("ss"), "kl", "aa") is None
    told = lines_of(RECIPE, *summary.rows(named=True), beside=[NOT_SHOWN])[0]
    assert "from 0.0 % to 12.5 % (+50.0 points" in told
    assert "on the prompts that count in both; n = 8)" in told


def test_doses_are_one_line_with_what_they_cost_where_they_cost_something() -> None:
    arms: dict[str, Intervention] = {
        "ss x4": Amplify(SS, by=4),
        "ss x2": Amplify(SS, by=2),
        "ss x0.5": Amplify(SS, by=0.5),
    }
    recipe = Recipe(arms=arms, measures=MEASURES, primary="ss x2")
    rows = [BASELINE, row("ss x2", "asr", **LOWERED), row("ss x0.5", "asr", value=0.5, delta=0.1)]
    rows += [row("ss x4", "asr", value=0.1), row("baseline", "over_refusal", "baseline", value=0.01)]

    def doses(change: float, *beside: dict[str, Any]) -> list[str]:
        costly = row("ss x4", "over_refusal", value=0.01 + change, delta=change)
        lines = lines_of(recipe, *rows, costly, beside=beside or [primary_test("ss x2")])
        return [line for line in lines if "×" in line or "ss x" in line]

    assert doses(0.29) == [
        "ASR / over-refusal by dose, %: ×0.5 50.0 / –, ×1 40.0 / 1.0, ×2 20.0 / –, ×4 10.0 / 30.0 (only ×2 is tested)."
    ]
    assert doses(0.005) == ["ASR by dose, %: ×0.5 50.0, ×1 40.0, ×2 20.0, ×4 10.0 (only ×2 is tested)."]
    few = primary_test("ss x2", None, sets=4)
    assert doses(0.005, few) == ["ASR by dose, %: ×0.5 50.0, ×1 40.0, ×2 20.0, ×4 10.0 (none is tested)."]


def test_side_effects_are_one_line() -> None:
    costs = {"utility": (0.9, -0.05), "over_refusal": (0.02, 0.0)}
    rows = [row("ss", name, value=value, delta=delta) for name, (value, delta) in costs.items()]
    rows += [row("baseline", name, "baseline", value=value - delta) for name, (value, delta) in costs.items()]
    assert found_for(Suppress(SS), *rows, row("ss", "kl", value=0.0123))[1] == (
        "Side effects: over-refusal 2.0 → 2.0 %, utility 95.0 → 90.0 %, KL on harmless text 0.0123 nats per token."
    )
    assert not any("Side effects" in line for line in found_for(Suppress(SS)))


def test_names_from_models_and_data_are_literal() -> None:
    rows = BASELINE, row("ss", "asr", delta=0.0, delta_low=0.0, delta_high=0.0)
    assert "\x1b" not in "".join(lines_of(RECIPE, *rows, anchor="a\x1b[31ma"))


def test_a_study_without_a_primary_arm_describes() -> None:
    recipe = Recipe(arms={"ms": Suppress(MS)}, measures=MEASURES)
    own = row("ms", "asr", delta=0.2, delta_low=0.1, delta_high=0.3, set_language="bb")
    line, never = lines_of(recipe, BASELINE, own, neurons=NEURONS.filter(set="ms"))
    assert "ASR of the untouched model outside the anchor aa is 40.0 % (95 % interval 55.0 to 65.0; n = 1,200)." in line
    assert "Described, not tested: " in line
    assert "60.0 % on the average of all languages except the anchor aa and bb itself (+20.0 points" in line
    assert never == NEVER
    three = [own | {"set_language": of, "delta": delta} for of, delta in (("bb", 0.3), ("cc", 0.2), ("aa", 0.1))]
    line = lines_of(recipe, BASELINE, *three)[0]
    assert "The largest and the smallest change, described, not tested: ms of bb" in line
    assert "ms of cc" not in line


def test_the_largest_change_is_so_by_its_size_and_learning_curves_are_told_apart() -> None:
    recipe = Recipe(arms={name: Suppress(MS) for name in "abc"}, measures=MEASURES)
    rows = [row(arm, "asr", delta=delta) for arm, delta in (("a", 0.01), ("b", -0.3), ("c", 0.1))]
    line = lines_of(recipe, BASELINE, *rows)[0]
    assert line.partition("described, not tested: ")[2].startswith("b 60.0 % on the average")
    assert "; a 60.0 % on the average" in line
    line = lines_of(recipe, BASELINE, *rows, row("ss", "asr", delta=-0.9, step=8))[0]
    assert ". Beside the learning curves, the largest and the smallest change, described, not tested: b 60.0 %" in line


def test_an_arm_says_how_much_it_trained_or_changed_without_training() -> None:
    recipe = Recipe(arms={"ss": Suppress(SS)}, measures=MEASURES, primary="ss")
    tables = {"summary": table(BASELINE, row("ss", "asr", **LOWERED)), "comparisons": comparisons(SHOWN)}
    size = [{"site": "all", "parameters": 1792, "percent": 0.1502}]
    for done, words in ((8, "trained 1,792 parameters (0.15 % of the model) for 8 steps."), (0, "changed 1,792")):
        one = {"arm": "ss", "parameters": size, "steps": {"done": done, "planned": done, "chosen": done}}
        run = FinishedRun(recipe=recipe, manifest=MANIFEST | {"trained": [one]}, findings=findings(**tables))
        assert any(line.startswith(f"It {words}") for line in answer_lines(run))


def test_sets_alone_are_told_by_their_sizes() -> None:
    recipe = Recipe(sets={"ms": MS, "ss": SS})
    assert lines_of(recipe) == [
        "Neurons found: ms 1 per language; ss 1 per language (at most 1.00 % of the model's 100)."
    ], "without the anchor's, which are its whole MS"


def test_twelve_languages_are_counted_and_not_named() -> None:
    names = [f"a{letter}" for letter in "abcdefghijkl"]
    rows = [row("ss", "asr", language=name, n=100, delta=0.1) for name in names]
    untouched = [row("baseline", "asr", "baseline", language=name, n=100) for name in [*names, "zz"]]
    average = row("ss", "asr", **RAISED)
    first = lines_of(RECIPE, *untouched, BASELINE | {"n": 1200}, *rows, average, beside=[SHOWN])[0]
    assert "ASR on the average of 11 languages from" in first, first
