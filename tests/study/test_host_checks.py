"""What may run on a host: refused before anything is sent, with what to do instead."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssn_probe import preview, recipes, run
from ssn_probe.errors import RecipeError
from ssn_probe.study.plan import make_plan

NO_HOST = "http://127.0.0.1:9"
"""Nobody listens there."""
TRAIN = {"after_expand", "expand_controls", "expand_ss", "leave_one_out"}


@pytest.mark.parametrize("name", recipes.__all__)
def test_recipes_that_train_are_refused_and_no_others(name: str) -> None:
    recipe = getattr(recipes, name)()
    make_plan(recipe)
    if name not in TRAIN:
        make_plan(recipe, hosted=True)
        return
    with pytest.raises(RecipeError, match="trains the model's weights") as caught:
        make_plan(recipe, hosted=True)
    assert "without --remote" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("call", "given", "said"),
    [
        (run, {"what": "expand_ss"}, r"Expand\(…\) trains the model's weights"),
        (preview, {"what": "expand_ss"}, r"Expand\(…\) trains the model's weights"),
        (run, {"what": "suppress_ss", "tasks": ("mmlu",)}, r"LMEval\(…\) reads the logits"),
    ],
)
def test_nothing_is_sent_for_what_is_refused(
    call: Callable[..., Any], given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        call(**given, remote=NO_HOST, out=tmp_path)
