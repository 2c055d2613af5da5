"""The intervention of docs/extend/intervention.md: defined outside the package, run, and equal to Suppress at 0."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ssn_probe import Suppress, run
from ssn_probe.spec.decorator import RecipeFunction
from ssn_probe.spec.discovery import load_function

PAGE = "intervention.md"


@pytest.mark.slow
def test_at_zero_it_is_suppression(extended: Callable[..., Path], tmp_path: Path) -> None:
    function = load_function(str(extended(PAGE)))
    assert isinstance(function, RecipeFunction)
    quick = {"log_odds_label_sets": 2, "permutations": 99, "half_samples": 2}
    recipe = replace(function(controls=2), **quick)
    silenced = replace(recipe, arms={"ss": Suppress(recipe.arms["ss"].neurons)})
    constant, suppressed = (run(one, out=tmp_path, limit=24, progress=False) for one in (recipe, silenced))
    assert constant.summary.equals(suppressed.summary)
    assert constant.samples.equals(suppressed.samples)
    assert constant.answer.startswith("Holding the shared safety neurons (SS) at 0 ")
