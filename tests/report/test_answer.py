"""The answer in words says what the table says, and says so when an effect is absent."""

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from arm_samples import MEASURES, MS, RECIPE, compared, comparisons, primary_test, row, table

from ssn_probe.report.answer import answer
from ssn_probe.spec import Amplify, Patch, Recipe, Shared, Suppress
from ssn_probe.study.comparisons import COMPARISONS

SS = Shared(MS)
MANIFEST: dict[str, Any] = {
    "neurons": {"layers": 2, "per_layer": {"ffn": 50}},
    "sets": {"ms": {"aa": 1, "bb": 1}, "ss": {"aa": 9, "bb": 1}},
    "anchor": "aa",
}
NEURONS = pl.DataFrame({"set": ["ms", "ms", "ss"], "language": ["aa", "bb", "aa"], "site": ["ffn"] * 3})


Rows = Sequence[dict[str, Any]]


def lines_of(
    recipe: Recipe, *rows: dict[str, Any], beside: Rows = (), anchor: str = "aa", neurons: pl.DataFrame = NEURONS
) -> list[str]:
    """The answer for these rows of the summary, and of the table of comparisons."""
    sizes = {name: {"aa": 9, "bb": 1} for name in recipe.arms} | MANIFEST["sets"]
    return answer(recipe, MANIFEST | {"sets": sizes}, neurons, table(*rows), anchor, comparisons(*beside))


BASELINE = row("baseline", "asr", "baseline", value=0.4)
RAISED = {"value": 0.6, "delta": 0.2, "delta_low": 0.15, "delta_high": 0.25}
LOWERED = {"value": 0.2, "delta": -0.2, "delta_low": -0.25, "delta_high": -0.15}
SHOWN, NOT_SHOWN = primary_test("ss", 0.05), primary_test("ss", 0.3, observed=0.42, difference=0.01)


def found(*beside: dict[str, Any], **tested: Any) -> list[str]:
    """The answer for a summary whose primary row has these cells, beside these comparisons."""
    other = row("ms", "asr", value=0.7, delta=0.3, delta_low=0.2, delta_high=0.4)
    return lines_of(RECIPE, BASELINE, row("ss", "asr", **(RAISED | tested)), other, beside=beside)


def found_for(arm: Any, *others: dict[str, Any], beside: Rows = (SHOWN,), **tested: Any) -> list[str]:
    """The answer for a primary arm that lowered ASR, with these cells, and other rows."""
    recipe = Recipe(arms={"ss": arm}, measures=MEASURES, primary="ss")
    return lines_of(recipe, BASELINE, row("ss", "asr", **(LOWERED | tested)), *others, beside=beside)


def test_an_effect_is_told_with_its_numbers() -> None:
    first, second, *others = found(SHOWN)
    assert any("MS" in line and "described, not tested" in line for line in others)
    assert "(1 neuron per language, at most 1.00 % of the model's 100)" in first, "without the anchor's"
    assert "broke refusal more than sets found under exchanged labels" in first
    for figure in ("40.0 % to 60.0 %", "+20.0 points", "+15.0 to +25.0", "n = 1,200", "200 clusters"):
        assert figure in first
    assert second == (
        "19 sets found under exchanged labels (5.5 neurons per language, the set 6.0) gave 41.0 % on average "
        "(95 % of such sets: 35.0 % to 47.0 %), a "
        "difference of +19.0 points (+13.0 to +25.0); more than 46.0 % would have shown it; p = .050, the one primary "
        "test."
    )


@pytest.mark.parametrize(
    ("test", "cells", "words"),
    [
        (NOT_SHOWN, {}, "raised ASR, but was not shown to do so more than sets found under exchanged labels"),
        (NOT_SHOWN, {"delta": 0.01, "delta_low": -0.02}, "was not shown to break refusal"),
        (SHOWN, {"delta": 0.01, "delta_low": -0.02}, "was not shown to break refusal"),
        (primary_test("ss", None, sets=5), {}, "too few for a test (19 is the least)"),
        (None, {}, "No sets found under exchanged labels were run"),
    ],
)
def test_an_absent_or_untested_effect_is_told(test: dict[str, Any] | None, cells: dict[str, Any], words: str) -> None:
    first, second, *_ = found(*([test] if test else []), **cells)
    assert words in f"{first} {second}"
    assert "broke refusal more than" not in first
    assert "about as" not in second, "a large p is no evidence of equality: the difference and its interval are told"


def test_the_set_that_is_ranked_is_told_where_it_is_another_than_the_tested_one() -> None:
    """Prompts whose labels cannot be exchanged take no part: the set of the others is what is ranked."""
    second = found(primary_test("ss", observed=0.57))[1]
    assert second.startswith("The set of the prompts whose labels exchange gave 57.0 %; 19 sets")
    assert "exchange gave" not in found(SHOWN)[1]


def test_other_tests_are_told_with_holms_p_and_none_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMPARISONS, "own", COMPARISONS["random"])
    own = compared("ss", "own", mean=0.608, difference=-0.004, p=0.1, p_holm=0.2)
    line = next(line for line in found(SHOWN, own) if line.startswith("Is it that languages share them? "))
    assert "Not shown: 19 " in line
    assert "a difference of -0.4 points" in line
    assert line.endswith("before Holm; p = .200 after Holm.")
    few = next(line for line in found(SHOWN, own | {"p": 0.05, "p_holm": 0.15}) if line.startswith("Is it"))
    assert few.endswith("p = .150 after Holm, the smallest that so few sets can give.")
    assert "Shown: 19 " in " ".join(found(SHOWN, own | {"p_holm": 0.05}))
    assert not any(line.startswith("Is it") for line in found(SHOWN))


def test_what_has_no_room_to_differ_is_not_testable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMPARISONS, "own", COMPARISONS["random"])
    same = {"mean": 0.6, "low": 0.6, "high": 0.6, "difference": 0.0, "p": 1.0}
    (line,) = (line for line in found(SHOWN, compared("ss", "own", **same, p_holm=1.0)) if line.startswith("Is it"))
    assert "Not testable: each of 19 " in line
    assert "p =" not in line
    assert found(primary_test("ss", **same))[1].startswith("Not testable: each of 19 sets found under exchanged")


def test_empty_sets_are_counted() -> None:
    assert "19 sets found under exchanged labels, 4 of them empty, (5.5" in found(primary_test("ss", empty=4))[1]


def test_random_and_placebo_sets_are_descriptions_in_one_line() -> None:
    beside = compared("ss", "random", mean=0.44), compared("ss", "placebo", mean=0.45)
    (line,) = (line for line in found(SHOWN, *beside) if line.startswith("Described, not tested: "))
    assert "19 random sets of as many neurons gave 44.0 % (35.0 % to 47.0 %) and 19 sets found between" in line
    assert "p =" not in line
    assert "hown" not in line


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        (Amplify(SS, by=2), "Amplifying the shared safety neurons (SS) by 2 (1 neuron"),
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
        (Amplify(SS, by=2), SHOWN, {}, "strengthened refusal more than sets found under exchanged labels"),
        (Amplify(SS, by=2), NOT_SHOWN, {}, "lowered ASR, but was not shown to do so more than sets found under"),
        (Amplify(SS, by=2), SHOWN, {"delta_high": 0.01}, "was not shown to strengthen refusal:"),
        (
            Patch(SS),
            NOT_SHOWN,
            {"delta_low": 0.1, "delta_high": 0.3},
            "was not shown to strengthen refusal; it raised ASR",
        ),
        (Patch(SS), primary_test("ss", None, sets=3), {}, "lowered ASR, and was not tested against sets found under"),
        (Amplify(SS, by=0.5), NOT_SHOWN, {}, "was not shown to break refusal; it lowered ASR"),
        (Suppress(SS), NOT_SHOWN, {}, "was not shown to break refusal; it lowered ASR"),
        (Amplify(SS, by=0.5), SHOWN, {"delta_low": 0.1, "delta_high": 0.3}, "broke refusal more than sets found under"),
    ],
)
def test_the_verdict_looks_the_way_that_the_arm_is_meant_to_go(
    arm: Any, test: dict[str, Any], cells: dict[str, Any], words: str
) -> None:
    first, second, *_ = found_for(arm, beside=(test,), **cells)
    assert words in first
    assert ("strengthened refusal" in first) == ("strengthened" in words)
    assert ("broke refusal" in first) == ("broke" in words)
    if test["p"] is not None:
        assert ("less than" in second) == arm.lowers


def test_the_source_of_a_patch_is_told_and_left_out_of_before_and_after() -> None:
    """The baseline's own row has that language: the sentence takes the same prompts before and after."""
    own = row("baseline", "asr", "baseline", value=0.013) | {"language": "aa"}
    assert "The ASR of the untouched model in aa is 1.3 %." in found_for(Patch(SS), own)[0]
    first = found_for(Patch(SS, source="bb"), delta=-0.3)[0]
    assert "ASR outside the anchor aa and the source bb went from 50.0 % to 20.0 % (-30.0 points" in first


def test_doses_are_one_line_with_what_they_cost() -> None:
    arms = {"ss x4": Amplify(SS, by=4), "ss x2": Amplify(SS, by=2), "ss x0.5": Amplify(SS, by=0.5)}
    others = [
        row("ss x0.5", "asr", value=0.5, delta=0.1),
        row("ss x4", "asr", value=0.1),
    ]
    others += [row("ss x4", "over_refusal", value=0.3), row("baseline", "over_refusal", "baseline", value=0.01)]
    recipe = Recipe(arms=arms, measures=MEASURES, primary="ss x2")
    lines = lines_of(recipe, BASELINE, row("ss x2", "asr", **LOWERED), *others, beside=[primary_test("ss x2")])
    curve = next(line for line in lines if line.startswith("Dose by dose"))
    assert "outside the anchor aa: ×0.5 ASR 50.0 %; ×1 ASR 40.0 %, over-refusal 1.0 %; ×2 " in curve
    assert "×4 ASR 10.0 %, over-refusal 30.0 %" in curve
    assert "only ×2 is tested" in curve
    assert sum("ss x" in line or "×" in line for line in lines) == 1


def test_the_log_odds_have_their_own_line_where_they_were_tested() -> None:
    cells = {"value": -1.5, "delta": -2.74, "delta_low": -2.88, "delta_high": -2.6}
    figures = {"observed": -1.5, "mean": 1.06, "low": -0.2, "high": 2.3, "shown_from": -0.1}
    figures |= {"difference": -2.56, "difference_low": -3.8, "difference_high": -1.3}
    sets = compared("ss", measure="refusal_log_odds", sets=99, **figures)

    def lines(**test: Any) -> list[str]:
        return [
            line
            for line in found_for(
                Suppress(SS), row("ss", "refusal_log_odds", **cells), beside=(SHOWN, sets | test), **RAISED
            )
            if "log-odds" in line
        ]

    (line,) = lines(p=0.01, p_holm=0.02)
    assert "changed by -2.74 (-2.88 to -2.60) to -1.50. Shown to be more than under exchanged labels: 99 sets" in line
    assert "gave 1.06 on average (95 % of such sets: -0.20 to 2.30), a difference of -2.56 (-3.80 to -1.30)" in line
    assert line.endswith("less than -0.10 would have had p ≤ .05 before Holm; p = .020 after Holm.")
    assert ". Not shown to be more" in lines(p=0.04, p_holm=0.08)[0]
    assert lines() == [], "not tested"


def test_names_from_models_and_data_are_literal() -> None:
    rows = BASELINE, row("ss", "asr", delta=0.0, delta_low=0.0, delta_high=0.0)
    assert "\x1b" not in "".join(lines_of(RECIPE, *rows, anchor="a\x1b[31ma"))


def test_a_study_without_a_primary_arm_describes() -> None:
    recipe = Recipe(arms={"ms": Suppress(MS)}, measures=MEASURES)
    own = row("ms", "asr", delta=0.2, delta_low=0.1, delta_high=0.3, set_language="bb")
    lines = lines_of(recipe, BASELINE, own, neurons=NEURONS.filter(set="ms"))
    assert "ASR of the untouched model outside the anchor aa is 40.0 %" in lines[0]
    assert "all languages except the anchor aa and bb, whose neurons they are" in lines[1]
    assert "described, not tested" in lines[1]
