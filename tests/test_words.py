"""The answer in words says what the table says, and says so when an effect is absent."""

from typing import Any

import polars as pl
import pytest

from ssn_probe.recipe import Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.summary import AVERAGE, COLUMNS
from ssn_probe.words import answer

MS = SafetyNeurons(Prompts("organism"))
RECIPE = Recipe(arms={"ms": Suppress(MS), "ss": Suppress(Shared(MS))}, primary="ss")
MANIFEST: dict[str, Any] = {
    "neurons": {"layers": 2, "per_layer": {"ffn": 50}},
    "sets": {"ms": {"aa": 1, "bb": 1}, "ss": {"aa": 1, "bb": 0}},
}
NEURONS = pl.DataFrame({"set": ["ms", "ms", "ss"], "language": ["aa", "bb", "aa"], "site": ["ffn"] * 3})


def row(arm: str, measure: str, role: str = "tested", **changes: Any) -> dict[str, Any]:
    cells: dict[str, Any] = dict.fromkeys(COLUMNS)
    cells |= {"language": AVERAGE, "arm": arm, "role": role, "measure": measure, "n": 1200, "clusters": 200}
    cells |= {"value": 0.6, "low": 0.55, "high": 0.65, "primary": False}
    return cells | changes


def found(**tested: Any) -> list[str]:
    """The answer for a summary whose primary row has these cells."""
    primary = {"delta": 0.2, "delta_low": 0.15, "delta_high": 0.25, "controls": 20, "control_mean": 0.41}
    primary |= {"control_low": 0.35, "control_high": 0.47, "p": 1 / 21, "primary": True}
    rows = [
        row("baseline", "asr", "baseline", value=0.4),
        row("ss", "asr", **(primary | tested)),
        row("ms", "asr", value=0.7, delta=0.3, delta_low=0.2, delta_high=0.4),
    ]
    return answer(RECIPE, MANIFEST, NEURONS, pl.DataFrame(rows, schema=COLUMNS, orient="row"), "aa")


def test_an_effect_is_told_with_its_numbers() -> None:
    first = found()[0]
    assert "broke refusal more than silencing as many random neurons" in first
    for figure in ("40.0 % to 60.0 %", "+20.0 points", "+15.0 to +25.0", "n = 1,200", "200 clusters", "p = .048"):
        assert figure in first
    assert "20 random sets of as many neurons gave 41.0 % on average (95 % of such sets: 35.0 % to 47.0 %)" in first


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"p": 0.3}, "raised ASR, but not more than random sets of as many neurons do"),
        ({"delta": 0.01, "delta_low": -0.02, "p": 0.6}, "did not break refusal"),
        ({"delta": 0.01, "delta_low": -0.02, "p": 0.04}, "did not break refusal"),
        ({"p": None, "controls": 5}, "too few controls for a test (19 is the least)"),
        ({"p": None, "controls": None}, "no random sets were run"),
    ],
)
def test_an_absent_or_untested_effect_is_told(cells: dict[str, Any], words: str) -> None:
    first = found(**cells)[0]
    assert words in first
    assert "broke refusal more than" not in first


def test_the_other_arm_is_labelled_descriptive() -> None:
    assert any("MS" in line and "descriptive, no test" in line for line in found())


def test_names_from_recipes_are_literal() -> None:
    hostile = "x\x1b[31m"
    recipe = Recipe(arms={hostile: Suppress(MS)}, primary=hostile)
    rows = [row("baseline", "asr", "baseline"), row(hostile, "asr", delta=0.0, delta_low=0.0, delta_high=0.0)]
    neurons, manifest = NEURONS.with_columns(set=pl.lit(hostile)), MANIFEST | {"sets": {hostile: {"aa": 1}}}
    lines = answer(recipe, manifest, neurons, pl.DataFrame(rows, schema=COLUMNS, orient="row"), "aa")
    assert "\x1b" not in "".join(lines)
