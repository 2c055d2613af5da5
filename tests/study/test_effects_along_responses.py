"""The final effect along the model's own responses: which, what it is the effect of, what it costs, what stops it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from studies import bench_for, planned

from ssn_probe.errors import ModelError, RecipeError
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.spec import Final, FinalAblation, Prompts, Recipe, SafetyNeurons, Site
from ssn_probe.study import importance
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.importance import effects_at, responses_read, score_inputs
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.workbench import Workbench

PROMPTS = Prompts("organism", languages=("qaa",), limit=3)
EFFECT = Final(position="response", probes=200, exact_qk=1.0)
SITES: tuple[Site, ...] = ("k", "v")
MS = SafetyNeurons(PROMPTS, effect=EFFECT, sites=SITES, top=0.02)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject("organism")


@pytest.fixture
def bench(subject: Subject) -> Workbench:
    return bench_for(Recipe(sets={"ms": MS}), subject)


def read_of(bench: Workbench, node: SafetyNeurons, context: str = "harmful") -> tuple[list[Any], list[Any]]:
    rows = bench.data[node.prompts].select("identify", context, "qaa")
    return tokens_of(bench, rows), responses_read(bench, node, rows, "qaa") or []


def ablated(module: Any, layer: int, site: str, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
    """√ of the mean over the response's tokens of ‖Δz‖², each neuron silent at these alone, by hooks: [neuron]."""
    target = getattr(module.model.layers[layer].self_attn, f"{site}_proj")
    ids, start = torch.tensor([[*prompt, *answer]]), len(prompt)

    def states(index: int | None) -> torch.Tensor:
        def quiet(_module: Any, _inputs: Any, made: torch.Tensor) -> torch.Tensor:
            made = made.clone()
            if index is not None:
                made[:, start:, index] = 0
            return made

        hook = target.register_forward_hook(quiet)
        try:
            with torch.no_grad():
                return module.model(ids, use_cache=False).last_hidden_state[0, start:]
        finally:
            hook.remove()

    before = states(None)
    moved = [(states(index) - before).square().sum(-1).mean().sqrt() for index in range(target.out_features)]
    return torch.stack(moved).numpy()


def test_it_estimates_ablation_at_the_responses_tokens(bench: Workbench) -> None:
    module = bench.subject.model._module
    prompts, answers = read_of(bench, MS)
    assert len({len(answer) for answer in answers} | {1}) > 1
    for site in SITES:
        found = effects_at(bench, MS, "qaa", "harmful", 2, site)
        wanted = np.stack([ablated(module, 2, site, *pair) for pair in zip(prompts, answers, strict=True)])
        rank: Callable[..., Any] = spearmanr
        assert rank(found.mean(0), wanted.mean(0)).statistic > 0.97, site
        large = wanted > 0.05 * wanted.max()
        assert np.median(found[large] / wanted[large]) == pytest.approx(1, abs=0.1), site


def test_responses_are_the_models_own_up_to_their_end(bench: Workbench) -> None:
    prompts, answers = read_of(bench, MS)
    module, ends = bench.subject.model._module, bench.subject.eos_ids
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = [*prompt]
        for token in answer:
            with torch.no_grad():
                assert int(module(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)
        assert answer[-1] in ends or len(answer) == bench.data[PROMPTS].max_new_tokens
        assert not set(answer[:-1]) & set(ends)


def test_how_long_they_are_is_part_of_the_key(subject: Subject) -> None:
    shorter = replace(MS, prompts=replace(PROMPTS, max_new_tokens=1))
    keys, lengths = [], []
    for node in (MS, shorter, replace(MS, effect=replace(EFFECT, position="last"))):
        bench = bench_for(Recipe(sets={"ms": node}), subject)
        keys.append(score_inputs(bench, node, "qaa", "harmful"))
        lengths.append([len(answer) for answer in read_of(bench, node)[1]])
    assert keys[0] != keys[1]
    assert "responses" not in keys[2]
    assert lengths[1] == [1, 1, 1]
    assert lengths[2] == []
    one_token = effects_at(bench_for(Recipe(sets={"ms": shorter}), subject), shorter, "qaa", "harmful", 1, "v")
    assert np.isfinite(one_token).all()
    assert (one_token > 0).all()


def test_they_are_steps_of_their_own(subject: Subject) -> None:
    recipe = Recipe(sets={"ms": MS, "harmful": replace(MS, rule="harmful", top=0.02)})
    rows = planned(recipe)
    assert [name.partition(" (")[0] for name in rows] == [
        "responses that the effect is read along",
        "final effect of every neuron",
    ]
    assert set(rows.values()) == {6}
    last = Recipe(sets={"ms": replace(MS, effect=replace(EFFECT, position="last"))})
    assert len(planned(last)) == 1
    bench = bench_for(recipe, subject)
    [read, scored] = list(identify_steps(bench, recipe))[::2]
    assert read.cost.generated == scored.cost.generated == bench.data[PROMPTS].max_new_tokens


def test_what_cannot_be_read(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="verify ablates single neurons"):
        replace(MS, verify=0.2)
    with pytest.raises(RecipeError, match="unknown position 'response'"):
        FinalAblation("response")
    monkeypatch.setattr(importance, "answer_tokens", lambda tokens, _subject: tokens[:0])
    with pytest.raises(ModelError, match=r"organism.*: 3 of 3 responses in qaa have no token") as error:
        read_of(bench, MS)
    assert 'position="last"' in (error.value.hint or "")


def test_a_score_along_responses_must_be_given_some(subject: Subject) -> None:
    from ssn_probe.tracing.effects import score

    with pytest.raises(RecipeError, match="read along responses, and is given none"):
        score(Final("response"), subject, [[5, 6]])
    found = partial(score, Final("response", probes=2), subject, [[5, 6]], sites=("v",))
    assert not found(responses=[[7]]).values["v"].equal(found(responses=[[7, 8]]).values["v"])
