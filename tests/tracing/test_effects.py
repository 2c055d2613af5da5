"""The three effects against plain hooks, in every family; tolerances are shares of the largest effect of a layer."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from tiny import FAMILIES
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.tracing.bodies import local as bodies_local
from ssn_probe.tracing.bodies.local import measure_weights, trace_local_effects
from ssn_probe.tracing.bodies.refusal import scaled_down
from ssn_probe.tracing.edits import places_of, suppression
from ssn_probe.tracing.effects import (
    Scores,
    decode,
    refusal_log_odds,
    score_final,
    score_final_ablation,
    score_local,
    score_refusal,
)

from . import plain

PROMPTS = [[1, 3, 7, 8, 9, 20, 4], [1, 3, 10, 11, 12, 13, 14, 15, 30, 31, 4], [1, 3, 9, 4]]
OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (13, 16), (17,)))
DIRECTION = Direction(tuple((torch.arange(24) % 5 - 2).tolist()))
HALF = 2**-11
"""The rounding of half precision."""


def module_of(subject: Subject):
    return subject.model._module


def local(
    subject: Subject, tokens: Sequence[Sequence[int]], position: str = "mean", exact_qk: float = 1.0
) -> dict[Site, Tensor]:
    """The local effects as computed, before they are stored in half precision."""
    places = places_of(subject)
    inputs = pad_left(tokens, subject.pad_id, subject.device)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bodies_local, "encoded", lambda effect: (effect, effect.abs().amax(-1)))
        known = measure_weights(subject.model, places)
        found = trace_local_effects(subject.model, inputs, places, known, position, exact_qk)
    return {site: values for site, (values, _scale) in found.items()}


def assert_close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    """The largest error, as a share of the largest value of each row of neurons."""
    error = ((found - wanted).abs() / wanted.abs().amax(-1, keepdim=True)).max().item()
    assert error < tolerance, f"error {error:.1e}"


# --- local


@pytest.mark.parametrize("site", SITES)
def test_local_equals_ablation_at_every_position(subject: Subject, site: Site) -> None:
    prompt = PROMPTS[1]
    means, lasts = local(subject, [prompt])[site], local(subject, [prompt], "last")[site]
    for layer in range(subject.n_layers):
        wanted = plain.ablated_local(module_of(subject), prompt, layer, site)
        assert_close(means[0, layer], wanted.mean(0), 1e-6)
        assert_close(lasts[0, layer], wanted[-1], 1e-6)


def refusal(subject: Subject, tokens: Sequence[Sequence[int]]) -> dict[Site, Tensor]:
    scores = score_refusal(subject, tokens, OPENINGS)
    return {site: decode(scores, site) for site in SITES}


def first_order(subject: Subject, tokens: Sequence[Sequence[int]], **rest: Any) -> Scores:
    return score_refusal(subject, tokens, OPENINGS, at=1.0, exact_qk=0.0, **rest)


@pytest.mark.parametrize(
    ("effects", "tolerance"),
    [(local, 1e-6), (partial(local, position="last"), 1e-6), (refusal, 2 * HALF)],
    ids=["local", "local, last", "refusal"],
)
def test_a_padded_batch_equals_single_prompts(subject: Subject, effects: Any, tolerance: float) -> None:
    together = effects(subject, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone = effects(subject, [prompt])
        for site in SITES:
            assert_close(together[site][row], alone[site][0], tolerance)


def test_local_scores_keep_the_effects_to_half_precision(subject: Subject) -> None:
    scores, exact = score_local(subject, PROMPTS, exact_qk=1.0), local(subject, PROMPTS)
    for site in SITES:
        assert_close(decode(scores, site), exact[site].float(), HALF)
    assert scores.log_odds is None


def test_local_scores_only_the_sites_asked_for(llama: Subject) -> None:
    every, some = score_local(llama, PROMPTS), score_local(llama, PROMPTS, sites=("ffn", "k"))
    assert list(some.values) == ["k", "ffn"]
    for site in some.values:
        assert torch.equal(decode(some, site), decode(every, site))


def test_single_precision_gemma_is_padded_without_a_trace(tiny_folder: Callable) -> None:
    """transformers' own softmax, which the double-precision fixture replaces."""
    gemma = load_subject(str(tiny_folder("gemma2")), dtype="float32")
    together = local(gemma, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone = local(gemma, [prompt])
        for site in SITES:
            assert_close(together[site][row], alone[site][0], 1e-4)


# --- refusal


@pytest.mark.parametrize("site", [None, *SITES])
def test_log_odds_are_those_of_the_definition_with_zeroed_weights(subject: Subject, site: Site | None) -> None:
    """Also where no weight is zeroed, and whatever the size of a batch."""
    neurons = [(layer, site, index) for layer in range(2) for index in (1, 4, 9)] if site else []
    with torch.no_grad(), plain.weights_scaled(module_of(subject), neurons):
        wanted = [
            plain.log_odds(module_of(subject), prompt, OPENINGS.refusal, OPENINGS.compliant).item()
            for prompt in PROMPTS
        ]
    for size in (1, 4, 64):
        found = refusal_log_odds(subject, PROMPTS, OPENINGS, edits=suppression(neurons), batch_size=size)
        assert found.tolist() == pytest.approx(wanted, abs=1e-5)
    untouched = score_refusal(subject, PROMPTS, OPENINGS).log_odds
    if site is None:
        assert untouched.tolist() == pytest.approx(wanted, abs=1e-5)
    else:
        assert (found - untouched).abs().min() > 1e-3


def test_refusal_equals_the_derivative_by_a_gate(subject: Subject) -> None:
    scores = first_order(subject, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        wanted = plain.gradient_shares(module_of(subject), prompt, OPENINGS.refusal, OPENINGS.compliant)
        for site in SITES:
            assert_close(decode(scores, site)[row], wanted[site].float(), 2 * HALF)


def by_openings(module: Any, prompt: Sequence[int], inside: plain.Inside) -> Tensor:
    """r(x) as `plain.log_odds` has it, each sequence inside its context."""
    sides = []
    for side in (OPENINGS.refusal, OPENINGS.compliant):
        found = []
        for opening in side:
            with inside([*prompt, *opening]):
                found.append(plain.opening_log_prob(module, prompt, opening))
        sides.append(torch.stack(found).logsumexp(0))
    return sides[0] - sides[1]


def along_direction(module: Any, prompt: Sequence[int], inside: plain.Inside) -> Tensor:
    with inside(prompt):
        state = plain.output_of(module, plain.text_model(module).norm, prompt)[-1]
    return state @ torch.tensor(DIRECTION.vector).double()


@pytest.mark.parametrize(
    ("reads", "odds", "at", "share"),
    [(OPENINGS, by_openings, 0.5, 0.05), (OPENINGS, by_openings, 0.0, 0.2), (DIRECTION, along_direction, 0.5, 0.1)],
    ids=["openings", "openings, silenced", "direction"],
)
def test_refusal_is_the_slope_where_the_strongest_are_scaled(
    subject: Subject, reads: Any, odds: Callable, at: float, share: float
) -> None:
    """For neurons that are scaled and for others, on a padded prompt of a batch."""
    row, prompt = 2, PROMPTS[2]
    before = score_refusal(subject, PROMPTS, reads, at=1.0, exact_qk=0.0)
    scores = score_refusal(subject, PROMPTS, reads, at=at, candidates=share, exact_qk=0.0)
    factors = {}
    for site in SITES:
        for layer in range(subject.n_layers):
            order = decode(before, site)[row, layer].abs().argsort(descending=True)
            factors[layer, site] = torch.ones(len(order), dtype=torch.float64)
            factors[layer, site][order[: math.ceil(share * len(order))]] = at
    wanted = plain.slopes_at(module_of(subject), partial(odds, module_of(subject), prompt), factors)
    for (layer, site), slopes in wanted.items():
        assert_close(decode(scores, site)[row, layer], slopes.float(), 2 * HALF)
    assert not torch.allclose(decode(scores, "ffn"), decode(before, "ffn"), rtol=0.02)
    assert scores.log_odds.equal(before.log_odds)


def test_what_is_scaled_down() -> None:
    """By size in each place; equal ones together; nothing where there is no effect."""
    share = torch.tensor([[3.0, -4.0, 1.0, 0.0], [2.0, 1.0, -2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert scaled_down(share, 0.5, 0.25).tolist() == [[1, 0.5, 1, 1], [0.5, 1, 0.5, 1], [1, 1, 1, 1]]
    assert scaled_down(share, 0.0, 1.0).tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]


def test_refusal_leaves_no_gradient_behind(llama: Subject) -> None:
    score_refusal(llama, PROMPTS, OPENINGS)
    assert all(p.grad is None and not p.requires_grad for p in module_of(llama).parameters())


# --- final, by ablation (estimated: test_final_effects.py)


@pytest.mark.parametrize("site", SITES)
def test_final_equals_ablation(subject: Subject, site: Site) -> None:
    prompt = PROMPTS[0]
    last = score_final_ablation(subject, [prompt], sites=[site], batch_size=7)
    for layer in range(subject.n_layers):
        wanted = plain.ablated_final(module_of(subject), prompt, layer, site).float()
        assert_close(decode(last, site)[0, layer], wanted[-1], 2 * HALF)


# --- the rest


SCORERS: dict[str, Callable[..., Scores]] = {
    "local": score_local,
    "final": partial(score_final, probes=2),
    "final by ablation": score_final_ablation,
    "refusal": lambda subject, tokens, **rest: score_refusal(subject, tokens, OPENINGS, **rest),
    "first order": first_order,
}


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
def test_progress_counts_prompts(llama: Subject, scorer: Callable[..., Scores]) -> None:
    done: list[int] = []
    scores = scorer(llama, PROMPTS, sites=["ffn"], batch_size=2, advance=done.append)
    assert sum(done) == len(PROMPTS) == len(scores)


@pytest.mark.parametrize(
    ("scorer", "options", "problem"),
    [
        (score_local, {"sites": ["mlp"]}, "no site 'mlp'"),
        (score_final_ablation, {"sites": ["mlp"]}, "no site 'mlp'"),
        (score_local, {"position": "first"}, "position 'first'"),
    ],
)
def test_an_unknown_site_or_position_is_named(
    llama: Subject, scorer: Callable[..., Scores], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem):
        scorer(llama, PROMPTS, **options)


@pytest.mark.parametrize("scorer", [SCORERS["local"], first_order], ids=["local", "first order"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_models_score_nearly_the_same(
    tiny_folder: Callable, family: str, scorer: Callable[..., Scores]
) -> None:
    """The algebra is in single precision whatever the model's, so only the forward pass differs."""
    rough, exact = (load_subject(str(tiny_folder(family)), dtype=dtype) for dtype in ("bfloat16", "float32"))
    found, wanted = (scorer(model, PROMPTS) for model in (rough, exact))
    for site in SITES:
        assert_close(decode(found, site), decode(wanted, site), 0.3)


def test_no_prompts_give_no_scores(llama: Subject) -> None:
    assert len(score_local(llama, [])) == 0
