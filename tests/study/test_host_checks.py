"""What may run on a host: refused before anything is sent, with what to do instead."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ssn_probe.recipes import suppress_ss
from tracing.hosted import hosted

from ssn_probe import Effect, Prompts, Recipe, SafetyNeurons, preview, recipes, run
from ssn_probe.errors import RecipeError
from ssn_probe.model.subject import Subject
from ssn_probe.spec import EFFECTS
from ssn_probe.spec.node import NODES
from ssn_probe.study.host_checks import check_allowed
from ssn_probe.study.plan import make_plan

NO_HOST = "http://127.0.0.1:9"
"""Nobody listens there."""
ON_THE_ORGANISM: dict[str, Any] = {"data": "organism", "harmless": None, "anchor": "qaa", "languages": ("qaa", "qab")}
ON_THE_ORGANISM |= {"model": "organism", "judge": ""}
"""Parameters of what is otherwise about data of the hub."""
TRAIN = {"after_expand", "expand_controls", "expand_ss", "leave_one_out"}


@pytest.mark.parametrize("name", recipes.__all__)
def test_recipes_that_train_are_refused_and_no_others(name: str) -> None:
    recipe = getattr(recipes, name)(**(ON_THE_ORGANISM if name.startswith("reproduce_") else {}))
    make_plan(recipe)
    if name not in TRAIN:
        make_plan(recipe, remote=True)
        return
    with pytest.raises(RecipeError, match="trains the model's weights") as caught:
        make_plan(recipe, remote=True)
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


def test_a_sandbox_allows_no_gradients_and_the_way_out_is_named(llama: Subject) -> None:
    recipe, there = suppress_ss(effect="refusal"), hosted(llama, sandbox=True)
    check_allowed(recipe, hosted(llama))
    for effect in ("ablation", "ablation:0.01", "local", "finalablation"):
        check_allowed(suppress_ss(effect=effect), there)
    with pytest.raises(RecipeError, match="the effect refusal needs gradients") as caught:
        check_allowed(recipe, there)
    assert "-T effect=ablation works" in (caught.value.hint or "")
    with pytest.raises(RecipeError, match="the effect final needs gradients") as caught:
        check_allowed(suppress_ss(effect="final"), there)
    assert "-T effect=finalablation works" in (caught.value.hint or "")
    with pytest.raises(RecipeError, match="the effect final needs gradients") as caught:
        check_allowed(suppress_ss(effect="final:response"), there)
    assert "Give position='last'" in (caught.value.hint or "")


def test_who_needs_nothing_asks_the_host_nothing(llama: Subject) -> None:
    check_allowed(suppress_ss(effect="ablation"), replace(llama, model=None))


def test_a_score_of_ones_own_says_what_it_needs(llama: Subject) -> None:
    @dataclass(frozen=True, eq=False)
    class NeedsWeights(Effect):
        formula = "|w|"
        needs = ("weights",)

    @dataclass(frozen=True, eq=False)
    class NeedsGradients(Effect):
        formula = "∂"
        needs_gradients = True

    try:
        for kind, need in ((NeedsWeights, "weights"), (NeedsGradients, "gradients")):
            recipe = Recipe(sets={"ms": SafetyNeurons(Prompts("organism"), effect=kind())})
            check_allowed(recipe, hosted(llama))
            with pytest.raises(RecipeError, match=f"needs{need} needs {need}"):
                check_allowed(recipe, hosted(llama, sandbox=True))
    finally:
        for kind in (NeedsWeights, NeedsGradients):
            NODES.pop(kind.__name__)
            EFFECTS.pop(kind.__name__.lower())


def test_a_layer_that_the_model_lacks_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    ms = SafetyNeurons(Prompts("organism", languages=("qaa", "qab"), limit=4), effect="local")
    for ask in (run, preview):
        with pytest.raises(RecipeError, match="names layer 99, and organism has 4 layers") as caught:
            ask(ms.only(layers=(0, 99)), model="organism", out=tmp_path)
        assert caught.value.hint == "Layers are numbered from 0 to 3."
    assert not list((tmp_path / "cache").glob("*/*.safetensors"))
