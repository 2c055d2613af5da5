"""Every shipped recipe on a real NDIF server, in trusted jobs and in the sandbox, against the same recipe here.

What a host computes has the keys that it has here, the same responses and verdicts, scores and log-odds equal to
rounding, and the same sets but for neurons whose score is within rounding of the lowest of their set.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from light_ndif import LightNDIF
from polars.testing import assert_frame_equal
from rich.console import Console

from ssn_probe import Prompts, Recipe
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.errors import RecipeError
from ssn_probe.model import products
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.discovery import find_recipe, list_recipes
from ssn_probe.spec.node import rewrite

pytestmark = pytest.mark.ndif

TRAINED = ("after_expand", "expand_controls", "expand_ss", "leave_one_out")
OF_THE_HUB = ("reproduce_advbench_x", "reproduce_multijail")
FORWARD = sorted({one.name for one in list_recipes()} - {*TRAINED, *OF_THE_HUB})
QUICK, QUICK_IN_THE_SANDBOX = ("suppress_ss",), ("identify_ms",)
"""Those that `make test` runs; the others run with `make test-slow`."""
FEW = {"doses": "mean", "controls": "1", "log_odds_label_sets": "1"}
ROUNDING = 2**-10
"""Scores are stored in half precision."""


GRADIENTS = ("dissociation",)
"""What no sandbox can run, whatever the effect."""
ONE_FORM = {"amplify_ss": True, "overlap": True, "patch_ss": False, "transfer": False}
"""Whether jobs of the recipe's one sandbox see nothing of the model but its activations. Others run in both."""


def recipes(quick: tuple[str, ...]) -> list[Any]:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in FORWARD]


def sandboxed() -> list[Any]:
    """Recipes in both forms of the sandbox, but those of `ONE_FORM`."""
    forms = [(name, outline) for name in FORWARD if name not in GRADIENTS for outline in (True, False)]
    kept = [(name, outline) for name, outline in forms if ONE_FORM.get(name, outline) == outline]
    quick = [(name, False) for name in QUICK_IN_THE_SANDBOX]
    return [pytest.param(*form, marks=() if form in quick else pytest.mark.slow) for form in kept]


def small(name: str, effect: str) -> Recipe:
    """A shipped recipe on two languages, with as few random sets as it can do with."""
    taken = {parameter[0] for one in list_recipes() if one.name == name for parameter in one.parameters}
    recipe = find_recipe(name, {key: text for key, text in (FEW | {"effect": effect}).items() if key in taken})
    recipe = rewrite(
        recipe, lambda node: replace(node, languages=("qaa", "qab")) if isinstance(node, Prompts) else node
    )
    return replace(recipe, permutations=0, half_samples=0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of folders: every recipe has its own here and on a host, since a run that shares one reads less."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def here(results: Path) -> Callable[[Recipe], RunFolder]:
    """The run of a recipe on this machine: the first, since a later one reads less of what it finds."""
    return cache(lambda recipe: study(recipe, results / f"here {recipe.key}"))


def study(recipe: Recipe, out: Path, remote: str | bool = False) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:  # a host multiplies by torch's own products
        patch.setattr(products, "onednn_is_faster", lambda: False)
        return run_recipe(recipe, Options(out=out, limit=24, remote=remote), Console(quiet=True))


@pytest.mark.parametrize("name", recipes(QUICK))
def test_trusted(name: str, ndif: LightNDIF, results: Path, here: Callable[[Recipe], RunFolder]) -> None:
    recipe = small(name, "refusal")
    assert_same(study(recipe, results / f"host {recipe.key}", ndif.host), here(recipe))


@pytest.mark.parametrize(("name", "outline"), sandboxed())
def test_in_the_sandbox(
    name: str, outline: bool, ndif: LightNDIF, results: Path, here: Callable[[Recipe], RunFolder]
) -> None:
    """Without gradients, and also where jobs see nothing of the model but its activations."""
    in_the_sandbox(small(name, "local"), outline, ndif, results, here)


@pytest.mark.slow
def test_ablation_in_the_sandbox(ndif: LightNDIF, results: Path, here: Callable[[Recipe], RunFolder]) -> None:
    in_the_sandbox(small("suppress_ss", "ablation:0.02"), False, ndif, results, here)


def in_the_sandbox(recipe: Recipe, outline: bool, ndif: LightNDIF, results: Path, here: Any) -> None:
    with ndif.untrusted(outline=outline):
        there = study(recipe, results / f"sandbox {outline} {recipe.key}", ndif.host)
    assert_same(there, here(recipe))


@pytest.mark.parametrize("name", TRAINED)
def test_what_trains_is_refused_before_the_host_is_asked(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="trains the model's weights") as caught:
        run_recipe(find_recipe(name, {}), Options(out=tmp_path, remote="http://127.0.0.1:1"), Console(quiet=True))
    assert "suppress_ss" in str(caught.value.hint)
    assert not any(tmp_path.iterdir())


def assert_same(there: RunFolder, here: RunFolder) -> None:
    """Two runs of one recipe found the same."""
    manifests = [json.loads((run.path / "manifest.json").read_text(encoding="utf-8")) for run in (there, here)]
    assert manifests[0]["key"] == manifests[1]["key"]
    assert manifests[0]["nodes"] == manifests[1]["nodes"]
    if not same_neurons(there, here):
        return  # other neurons are other arms
    more = measured(there) - measured(here)
    assert len(more) <= 1, "what a sandbox was asked about weights, and nothing else"
    assert measured(here) <= measured(there)
    for table in sorted(here.path.glob("*.parquet")):
        assert_close(pl.read_parquet(there.path / table.name), pl.read_parquet(table))


def same_neurons(there: RunFolder, here: RunFolder) -> bool:
    """Whether both have the same sets. Fails where they differ by more than rounding can change."""
    found = [pl.read_parquet(run.path / "neurons.parquet") for run in (there, here)]
    place = ["set", "language", "layer", "site", "index"]
    for one, other in (found, reversed(found)):
        lowest = one.group_by("set", "language").agg(lowest=pl.col("score").min(), highest=pl.col("score").max())
        odd = one.join(other, on=place, how="anti", nulls_equal=True).join(lowest, on=place[:2], nulls_equal=True)
        assert odd.filter(pl.col("score") - pl.col("lowest") > 2 * ROUNDING * pl.col("highest").abs()).is_empty()
    return found[0].select(place).sort(place).equals(found[1].select(place).sort(place))


def measured(run: RunFolder) -> set[str]:
    """The keys of what a run measured."""
    parts = json.loads((run.path / "parts.json").read_text(encoding="utf-8"))["parts"]
    return {part.split("/")[0] for part in parts}


def assert_close(there: pl.DataFrame, here: pl.DataFrame) -> None:
    """Equal texts and counts; numbers to rounding."""
    by = [name for name, kind in here.schema.items() if not kind.is_float()]
    assert_frame_equal(there.sort(by), here.sort(by), check_exact=False, rel_tol=2 * ROUNDING, abs_tol=1e-4)
