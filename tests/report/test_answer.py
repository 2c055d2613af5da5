"""The answer in words says what the table says, and says so when an effect is absent."""

from typing import Any

import polars as pl
import pytest
from arm_samples import MEASURES, MS, RECIPE, row, table

from ssn_probe.report.answer import answer
from ssn_probe.spec import Amplify, Patch, Recipe, Shared, Suppress

SS = Shared(MS)
MANIFEST: dict[str, Any] = {
    "neurons": {"layers": 2, "per_layer": {"ffn": 50}},
    "sets": {"ms": {"aa": 1, "bb": 1}, "ss": {"aa": 9, "bb": 1}},
    "anchor": "aa",
}
NEURONS = pl.DataFrame({"set": ["ms", "ms", "ss"], "language": ["aa", "bb", "aa"], "site": ["ffn"] * 3})


def lines_of(recipe: Recipe, *rows: dict[str, Any], anchor: str = "aa", neurons: pl.DataFrame = NEURONS) -> list[str]:
    """The answer for these rows of the summary."""
    sizes = {name: {"aa": 9, "bb": 1} for name in recipe.arms} | MANIFEST["sets"]
    return answer(recipe, MANIFEST | {"sets": sizes}, neurons, table(*rows), anchor)


BASELINE = row("baseline", "asr", "baseline", value=0.4)
CONTROLLED = {"controls": 20, "control_mean": 0.41, "control_low": 0.35, "control_high": 0.47, "p": 1 / 21}
LOWERED = CONTROLLED | {"value": 0.2, "delta": -0.2, "delta_low": -0.25, "delta_high": -0.15}


def found(**tested: Any) -> list[str]:
    """The answer for a summary whose primary row has these cells."""
    primary = CONTROLLED | {"delta": 0.2, "delta_low": 0.15, "delta_high": 0.25, "primary": True}
    other = row("ms", "asr", value=0.7, delta=0.3, delta_low=0.2, delta_high=0.4)
    return lines_of(RECIPE, BASELINE, row("ss", "asr", **(primary | tested)), other)


def found_for(arm: Any, *others: dict[str, Any], **tested: Any) -> list[str]:
    """The answer for a primary arm that lowered ASR, with these cells, and other rows."""
    recipe = Recipe(arms={"ss": arm}, measures=MEASURES, primary="ss")
    return lines_of(recipe, BASELINE, row("ss", "asr", **(LOWERED | tested)), *others)


def test_an_effect_is_told_with_its_numbers() -> None:
    first, *others = found()
    assert any("MS" in line and "descriptive, no test" in line for line in others)
    assert "(1 neuron per language, at most 1.00 % of the model's 100)" in first, "without the anchor's"
    assert "broke refusal more than silencing as many random neurons" in first
    for figure in ("40.0 % to 60.0 %", "+20.0 points", "+15.0 to +25.0", "n = 1,200", "200 clusters", "p = .048"):
        assert figure in first
    assert "20 random sets of as many neurons gave 41.0 % on average (95 % of such sets: 35.0 % to 47.0 %)" in first


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"p": 0.3}, "raised ASR, but was not shown to do so more than random sets"),
        ({"delta": 0.01, "delta_low": -0.02, "p": 0.6}, "was not shown to break refusal"),
        ({"delta": 0.01, "delta_low": -0.02, "p": 0.04}, "was not shown to break refusal"),
        ({"p": None, "controls": 5}, "too few for a test (19 is the least)"),
        ({"p": None, "controls": None}, "no random sets were run"),
    ],
)
def test_an_absent_or_untested_effect_is_told(cells: dict[str, Any], words: str) -> None:
    first = found(**cells)[0]
    assert words in first
    assert "broke refusal more than" not in first


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
    ("arm", "cells", "words"),
    [
        (Amplify(SS, by=2), {}, "strengthened refusal more than amplifying as many random neurons"),
        (Patch(SS), {}, "strengthened refusal more than carrying over as many random neurons"),
        (Amplify(SS, by=2), {"p": 0.3}, "lowered ASR, but was not shown to do so more than random sets"),
        (Amplify(SS, by=2), {"delta_high": 0.01}, "was not shown to strengthen refusal:"),
        (
            Patch(SS),
            {"delta_low": 0.1, "delta_high": 0.3, "p": 1.0},
            "was not shown to strengthen refusal; it raised ASR",
        ),
        (Patch(SS), {"p": None}, "was not tested against enough random sets"),
        (Amplify(SS, by=0.5), {"p": 1.0}, "was not shown to break refusal; it lowered ASR"),
        (Suppress(SS), {"p": 1.0}, "was not shown to break refusal; it lowered ASR"),
        (
            Amplify(SS, by=0.5),
            {"delta_low": 0.1, "delta_high": 0.3},
            "broke refusal more than weakening as many random neurons",
        ),
    ],
)
def test_the_verdict_looks_the_way_that_the_arm_is_meant_to_go(arm: Any, cells: dict[str, Any], words: str) -> None:
    first = found_for(arm, **cells)[0]
    assert words in first
    assert ("strengthened refusal" in first) == ("strengthened" in words)
    assert ("broke refusal" in first) == ("broke" in words)


def test_the_source_of_a_patch_is_told_and_left_out_of_before_and_after() -> None:
    """The baseline's own row has that language: the sentence takes the same prompts before and after."""
    own = row("baseline", "asr", "baseline", value=0.013) | {"language": "aa"}
    assert "the ASR of the untouched model in aa is 1.3 %" in found_for(Patch(SS), own)[0]
    first = found_for(Patch(SS, source="bb"), delta=-0.3)[0]
    assert "ASR outside the anchor aa and the source bb went from 50.0 % to 20.0 % (-30.0 points" in first


def test_a_placebo_that_does_much_of_it_is_told() -> None:
    own = row("ss", "asr", "placebo", value=0.28, delta=-0.12, delta_low=-0.2, delta_high=-0.04)
    lines = found_for(Amplify(SS, by=2), own)
    assert any(line.startswith("Its placebo, ") and "gives 28.0 % (-12.0 points" in line for line in lines)
    assert not any("placebo" in line for line in found_for(Amplify(SS, by=2)))


def test_doses_are_one_line_with_what_they_cost() -> None:
    arms = {"ss x4": Amplify(SS, by=4), "ss x2": Amplify(SS, by=2), "ss x0.5": Amplify(SS, by=0.5)}
    others = [
        row("ss x0.5", "asr", value=0.5, controls=20, control_mean=0.42, delta=0.1),
        row("ss x4", "asr", value=0.1),
    ]
    others += [row("ss x4", "over_refusal", value=0.3), row("baseline", "over_refusal", "baseline", value=0.01)]
    recipe = Recipe(arms=arms, measures=MEASURES, primary="ss x2")
    lines = lines_of(recipe, BASELINE, row("ss x2", "asr", **LOWERED), *others)
    curve = next(line for line in lines if line.startswith("Dose by dose"))
    assert (
        "outside the anchor aa: ×0.5 ASR 50.0 % (random sets 42.0 %); ×1 ASR 40.0 %, over-refusal 1.0 %; ×2 " in curve
    )
    assert "×4 ASR 10.0 %, over-refusal 30.0 %" in curve
    assert "only ×2 is tested" in curve
    assert not any(line.startswith("For comparison") for line in lines)


def test_the_log_odds_have_their_own_line_where_they_were_tested() -> None:
    cells = {
        "value": -1.5,
        "delta": -2.74,
        "delta_low": -2.88,
        "delta_high": -2.6,
        "controls": 99,
        "control_mean": 1.06,
    }
    tested, untested = (row("ss", "refusal_log_odds", **cells, p=p) for p in (0.01, None))
    line = "changed by -2.74 (-2.88 to -2.60) to -1.50; 99 random sets left it at 1.06 on average, rank p = .010"
    assert any(line in words for words in found_for(Suppress(SS), tested))
    assert not any("log-odds" in words for words in found_for(Suppress(SS), untested))


def test_names_from_models_and_data_are_literal() -> None:
    rows = BASELINE, row("ss", "asr", delta=0.0, delta_low=0.0, delta_high=0.0)
    assert "\x1b" not in "".join(lines_of(RECIPE, *rows, anchor="a\x1b[31ma"))


def test_a_study_without_a_primary_arm_describes() -> None:
    recipe = Recipe(arms={"ms": Suppress(MS)}, measures=MEASURES)
    own = row("ms", "asr", delta=0.2, delta_low=0.1, delta_high=0.3, set_language="bb")
    lines = lines_of(recipe, BASELINE, own, neurons=NEURONS.filter(set="ms"))
    assert "ASR of the untouched model outside the anchor aa is 40.0 %" in lines[0]
    assert "all languages except the anchor aa and bb, whose neurons they are" in lines[1]
    assert "descriptive, no test" in lines[1]
