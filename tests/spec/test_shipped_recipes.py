"""The shipped recipes that amplify and patch: what they ask, and a small run of each to its last sentence."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from ssn_probe.recipes import amplify_ss, patch_ss, suppress_ss
from studies import planned

from ssn_probe import Amplify, Patch, Shared
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.errors import RecipeError
from ssn_probe.spec.node import from_json, to_json
from ssn_probe.study.plan import limited

RECIPES = [pytest.param(amplify_ss, id="amplify_ss"), pytest.param(patch_ss, id="patch_ss")]


@pytest.mark.parametrize("make", RECIPES)
def test_the_primary_test_has_its_controls_and_the_costs_are_measured(make: Any) -> None:
    recipe = make()
    assert min(recipe.label_sets, recipe.controls) >= 19
    assert recipe.log_odds_label_sets >= 19
    assert {type(measure).__name__ for measure in recipe.measures} == {"ASR", "OverRefusal", "Utility"}
    assert all(isinstance(arm.neurons, Shared) for arm in recipe.arms.values())
    assert recipe.arms[recipe.primary].lowers
    assert from_json(to_json(recipe)) == recipe


def test_doses_stand_in_their_names() -> None:
    doses = {name: arm.by for name, arm in amplify_ss().arms.items() if isinstance(arm, Amplify)}
    assert {name: f"ss x{by:g}" for name, by in doses.items()} == {name: name for name in amplify_ss().arms}
    assert min(doses.values()) < 1 < max(doses.values())


def test_silencing_is_shown_beside_weaker_doses_which_can_be_chosen() -> None:
    arms = suppress_ss().arms
    assert [name for name in arms if name != "ms"] == ["ss", "ss x0.75", "ss x0.5", "ss x0.25", "ss to mean"]
    assert all(arms[name].neurons == arms["ss"].neurons for name in arms if name != "ms")
    assert list(suppress_ss.from_text({"doses": "0.1,mean"}).arms) == ["ms", "ss", "ss x0.1", "ss to mean"]
    assert list(suppress_ss.from_text({"doses": "none"}).arms) == ["ms", "ss"]
    with pytest.raises(RecipeError, match="by is 'half'"):
        suppress_ss.from_text({"doses": "half"})


def test_doses_are_not_compared_nor_run_without_their_top_neuron() -> None:
    rows = planned(limited(suppress_ss(), 2))
    assert "ss, without its top neuron" in rows
    for dose in ("ss x0.75", "ss x0.5", "ss x0.25", "ss to mean"):
        assert [row for row in rows if row.startswith(dose)] == [
            dose,
            f"{dose}: log-odds only",
            f"{dose}: KL and perplexity",
        ]


def test_both_positions_are_patched_from_the_source_asked_for() -> None:
    arms = [arm for arm in patch_ss(source="qac").arms.values() if isinstance(arm, Patch)]
    assert [(arm.positions, arm.source) for arm in arms] == [("last", "qac"), ("response", "qac")]


@pytest.mark.slow
def test_patching_leaves_its_source_out(tmp_path: Path) -> None:
    recipe = patch_ss(source="qad", effect="local", rule="paper", controls=1, log_odds_label_sets=0)
    run = run_recipe(recipe, Options(out=tmp_path, limit=10), Console(quiet=True))
    assert re.search("ASR outside the anchor qaa and the source qad (went )?from ", run.manifest()["answer"][0])
    ran = set(run.table("samples").filter(pl.col("role") != "baseline")["eval_language"])
    assert ran == {"qaa", "qab", "qac", "qae", "qaf", "qag"}
    average = run.table("summary").filter(arm="ss last", role="tested", measure="asr", language="average")
    assert average["n"].to_list() == [10 * 5]
