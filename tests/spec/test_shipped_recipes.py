"""The shipped recipes that amplify and patch: what they ask, and a small run of each to its last sentence."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from ssn_probe.recipes import amplify_ss, patch_ss

from ssn_probe import Amplify, Patch, Shared
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.node import from_json, to_json

SMALL: dict[str, Any] = {"effect": "local", "rule": "paper", "controls": 1, "log_odds_controls": 0}
RECIPES = [pytest.param(amplify_ss, id="amplify_ss"), pytest.param(patch_ss, id="patch_ss")]


def small_run(make: Any, folder: Path, **options: Any) -> RunFolder:
    recipe = make(**(SMALL | options))
    return run_recipe(recipe, Options(out=folder, limit=10), Console(quiet=True))


@pytest.mark.parametrize("make", RECIPES)
def test_the_primary_test_has_its_controls_and_the_costs_are_measured(make: Any) -> None:
    recipe = make()
    assert recipe.controls >= 19
    assert recipe.log_odds_controls >= 19
    assert {type(measure).__name__ for measure in recipe.measures} == {"ASR", "OverRefusal", "Utility"}
    assert all(isinstance(arm.neurons, Shared) for arm in recipe.arms.values())
    assert recipe.arms[recipe.primary].lowers
    assert from_json(to_json(recipe)) == recipe


def test_doses_stand_in_their_names() -> None:
    doses = {name: arm.by for name, arm in amplify_ss().arms.items() if isinstance(arm, Amplify)}
    assert {name: f"ss x{by:g}" for name, by in doses.items()} == {name: name for name in amplify_ss().arms}
    assert min(doses.values()) < 1 < max(doses.values())


def test_both_positions_are_patched_from_the_source_asked_for() -> None:
    arms = [arm for arm in patch_ss(source="qac").arms.values() if isinstance(arm, Patch)]
    assert [(arm.positions, arm.source) for arm in arms] == [("last", "qac"), ("response", "qac")]


@pytest.mark.slow
def test_amplifying_tells_the_whole_dose_curve(tmp_path: Path) -> None:
    run = small_run(amplify_ss, tmp_path)
    answer = run.manifest()["answer"]
    assert answer[0].startswith("Amplifying the shared safety neurons (SS) by 2 ")
    (curve,) = [line for line in answer if line.startswith("Dose by dose")]
    assert all(f"×{dose} ASR" in curve for dose in ("0.5", "1", "2", "4"))
    assert "over-refusal" in curve
    assert "Amplifying" in (run.path / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "outside"), [(None, "the anchor qaa "), ("qad", "the anchor qaa and the source qad ")]
)
def test_patching_leaves_its_source_out(tmp_path: Path, source: str | None, outside: str) -> None:
    run = small_run(patch_ss, tmp_path, source=source)
    assert f"ASR outside {outside}went from" in run.manifest()["answer"][0]
    samples = run.table("samples")
    ran = set(samples.filter(pl.col("role") != "baseline")["eval_language"])
    assert (source or "qaa") not in ran
    assert len(ran) == 6
    average = run.table("summary").filter(arm="ss last", role="tested", measure="asr", language="average")
    assert average["n"].to_list() == [10 * (6 if source is None else 5)]
