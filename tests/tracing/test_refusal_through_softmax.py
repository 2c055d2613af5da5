"""The refusal effect of q and k through the softmax: against its definition in every family, and against ablation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from tiny import EVERY_FAMILY
from torch import Tensor

from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.model.chat import encode
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.spec import Prompts, Refusal
from ssn_probe.tracing.ablations import Neuron
from ssn_probe.tracing.effects import Scores, decode, score_refusal
from ssn_probe.tracing.exact_effects import exact_effects

from . import plain
from .test_effects import HALF, OPENINGS, PROMPTS, assert_close, by_openings, module_of
from .test_final_effects import NAMES, QUICK

SOFTMAX: tuple[Site, ...] = ("q", "k")


def unscaled(subject: Subject, **rest: Any) -> Scores:
    return score_refusal(subject, PROMPTS, OPENINGS, at=1.0, **rest)


@pytest.mark.parametrize(
    "subject",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EVERY_FAMILY],
    indirect=True,
)
@pytest.mark.parametrize("at", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_it_is_the_derivative_times_the_exact_change(subject: Subject, at: float) -> None:
    """On a padded prompt of a batch, with openings of several tokens, where the strongest are scaled and where not."""
    row, prompt, share = 2, PROMPTS[2], 0.2
    first = unscaled(subject, exact_qk=0.0)
    found = score_refusal(subject, PROMPTS, OPENINGS, at=at, candidates=share, exact_qk=1.0)
    factors = {}
    for layer in range(subject.n_layers):
        for site in SITES:
            size = decode(first, site)[row, layer].abs()
            factors[layer, site] = torch.ones(len(size), dtype=torch.float64)
            factors[layer, site][size.argsort(descending=True)[: -int(-share * len(size) // 1)]] = at
    odds = partial(by_openings, module_of(subject), prompt)
    for layer in range(subject.n_layers):
        for site in SOFTMAX:
            wanted = plain.lost_at_o(module_of(subject), odds, factors, layer, site)
            assert_close(decode(found, site)[row, layer], wanted.float(), 3 * HALF)


@pytest.mark.parametrize("subject", QUICK, indirect=True)
def test_the_strongest_are_exact_and_the_others_are_not(subject: Subject) -> None:
    none, few, every = (unscaled(subject, exact_qk=share) for share in (0.0, 0.25, 1.0))
    for site in SOFTMAX:
        first, some, exact = (decode(scores, site) for scores in (none, few, every))
        count = -(-first.shape[-1] // 4)
        order = first.abs().argsort(dim=-1, descending=True)
        strong = torch.zeros_like(first, dtype=torch.bool).scatter(-1, order[..., :count], True)
        assert_close(some, torch.where(strong, exact, first), 2 * HALF)
        assert not torch.allclose(exact, first, rtol=0.02)
    for site in ("v", "o", "ffn"):
        assert decode(every, site).equal(decode(none, site))


@pytest.mark.parametrize("site", SOFTMAX)
def test_a_site_alone_has_the_same_effects(llama: Subject, site: Site) -> None:
    wanted = decode(unscaled(llama, exact_qk=1.0), site)
    assert_close(decode(unscaled(llama, exact_qk=1.0, sites=[site]), site), wanted, 2 * HALF)


def ranks_agree(one: Tensor, other: Tensor) -> float:
    """Spearman's rho, the mean over the places of [prompt, layer, neuron]."""
    spearman: Any = spearmanr
    pairs = zip(one.flatten(0, 1), other.flatten(0, 1), strict=True)
    rhos = [float(spearman(found, wanted).statistic) for found, wanted in pairs]
    return sum(rhos) / len(rhos)


def ablated(subject: Subject, tokens: Any, reads: Openings, site: Site) -> Tensor:
    every: list[Neuron] = [
        (layer, site, index) for layer in range(subject.n_layers) for index in range(subject.widths[site])
    ]
    return exact_effects(subject, tokens, every, reads).unflatten(1, (subject.n_layers, -1))


@pytest.mark.parametrize("family", NAMES)
def test_it_ranks_as_ablation_does_better_than_first_order(single: Callable[[str], Subject], family: str) -> None:
    """Random weights as large as these are far from linear downstream, too, which neither knows."""
    subject, gains = single(family), []
    first, exact = (unscaled(subject, exact_qk=share) for share in (0.0, 1.0))
    for site in SOFTMAX:
        truth = ablated(subject, PROMPTS, OPENINGS, site)
        gains.append(ranks_agree(decode(exact, site), truth) - ranks_agree(decode(first, site), truth))
    assert min(gains) > 0.01
    assert max(gains) > 0.07


@pytest.mark.slow
def test_of_a_trained_model_it_is_half_as_far_from_ablation() -> None:
    """With the default share, since what is largest decides."""
    subject = load_subject("organism")
    prompts = load_prompts(Prompts("organism"))
    rows = [prompts.select("identify", context, "qaa").sort("prompt_id").head(4) for context in ("harmful", "harmless")]
    tokens = encode(subject, [text for some in rows for text in some["text"]])
    assert subject.openings is not None
    reads = subject.openings["qaa"]
    first, few = (score_refusal(subject, tokens, reads, at=1.0, exact_qk=share) for share in (0.0, Refusal.exact_qk))
    for site in SOFTMAX:
        truth = ablated(subject, tokens, reads, site)
        misses = [float((decode(scores, site) - truth).norm() / truth.norm()) for scores in (first, few)]
        assert misses[1] < 0.65 * misses[0], site
