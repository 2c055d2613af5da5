"""The final effect by random read-outs: against the derivative of every family, and against ablation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from tiny import EVERY_FAMILY, FAMILIES, slow_but_for
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.spec import Final
from ssn_probe.spec.effect_registry import lowness
from ssn_probe.tracing import final_effects
from ssn_probe.tracing.bodies import final, softmax_term
from ssn_probe.tracing.effects import Scores, decode, score_final, score_final_ablation

from . import plain
from .test_effects import HALF, PROMPTS, assert_close, module_of

NOISES = final.noises
ANSWERS = [[5, 6, 9], [7], [8, 9]]
NAMES = ("llama", "qwen3", "gemma2")
QUICK = (*NAMES, "olmo2", "cohere")
"""Families whose norms differ: none on heads, on every head, over all of them, and one that takes away the mean."""


def every_read_out(states: Tensor, sketch: dict[str, Any]) -> Iterator[Tensor]:
    """Each channel of each read token once, scaled so that the mean of squares is the sum."""
    read = max(sketch["read"])
    for token in range(states.shape[1] - read, states.shape[1]):
        for channel in range(states.shape[2]):
            noise = torch.zeros_like(states)
            noise[:, token, channel] = math.sqrt(sketch["probes"])
            yield noise


@pytest.fixture
def by_all(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scores]:
    """`score_final` without chance."""
    monkeypatch.setattr(final, "noises", every_read_out)
    monkeypatch.setattr(final_effects, "lowness", lambda _probes: 1.0)

    def scored(subject: Subject, tokens: Sequence[Sequence[int]], read: int = 1, **rest: Any) -> Scores:
        width = module_of(subject).config.get_text_config().hidden_size
        return score_final(subject, tokens, probes=read * width, **rest)

    return scored


@pytest.mark.parametrize(
    "subject",
    slow_but_for(["llama"], EVERY_FAMILY),
    indirect=True,
)
def test_by_all_read_outs_it_is_the_derivative_of_the_exact_change(subject: Subject, by_all: Callable) -> None:
    """In a padded batch, in every family: of all channels, and of the response's tokens alone."""
    found = by_all(subject, PROMPTS[:2], exact_qk=1.0)
    prompt, answer = PROMPTS[0], ANSWERS[0]
    after = by_all(subject, [prompt], len(answer), response_tokens=[answer], exact_qk=1.0)
    last, spoken = slice(-1, None), slice(-len(answer), None)
    for layer in range(subject.n_layers):
        for site in SITES:
            wanted = plain.pushed_final(module_of(subject), prompt, layer, site, read=last)
            assert_close(decode(found, site)[0, layer], wanted.float(), 3 * HALF)
            wanted = plain.pushed_final(module_of(subject), prompt + answer, layer, site, spoken, spoken)
            assert_close(decode(after, site)[0, layer], wanted.float(), 3 * HALF)


@pytest.mark.parametrize("subject", slow_but_for(["cohere"], QUICK), indirect=True)
def test_the_strongest_by_first_order_are_exact(subject: Subject, by_all: Callable) -> None:
    every, few, one = (by_all(subject, PROMPTS, exact_qk=share) for share in (1.0, 0.25, 1e-9))
    for site in ("q", "k"):
        exact, some, first = (decode(scores, site) for scores in (every, few, one))
        count = math.ceil(0.25 * exact.shape[-1])
        mended = (some - exact).abs() <= HALF * exact.amax(-1, keepdim=True)
        kept = (some - first).abs() <= HALF * exact.amax(-1, keepdim=True)
        assert (mended | kept).all()
        assert (mended.sum(-1) >= count).all()
        assert (~mended).any()
    for site in ("v", "o", "ffn"):
        assert decode(every, site).equal(decode(one, site))


@pytest.mark.parametrize("subject", slow_but_for(["llama"], QUICK), indirect=True)
def test_blocks_and_batches_change_nothing(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = score_final(subject, PROMPTS, probes=3, exact_qk=0.5)
    monkeypatch.setattr(softmax_term, "BLOCK", 100)
    monkeypatch.setattr(softmax_term, "TOGETHER", 3)
    found = score_final(subject, PROMPTS[::-1], probes=3, exact_qk=0.5, batch_size=2)
    for site in SITES:
        assert_close(decode(found, site).flip(0), decode(wanted, site), 2 * HALF)


def ranks_agree(one: Tensor, other: Tensor) -> float:
    """Spearman's rho."""
    spearman: Any = spearmanr
    return float(spearman(one.flatten(), other.flatten()).statistic)


def top_quarter(effects: Mapping[str, Tensor]) -> set[int]:
    mean = torch.cat([values.mean(0).flatten() for values in effects.values()])
    return set(mean.topk(len(mean) // 4).indices.tolist())


@pytest.mark.parametrize("family", slow_but_for(["gemma2"], NAMES))
def test_it_estimates_ablation(single: Callable[[str], Subject], family: str) -> None:
    """All q and k exact. 400 read-outs: nearly unbiased. 16: the ranks of a mean over prompts, and its top."""
    subject = single(family)
    every = (
        score_final_ablation(subject, PROMPTS),
        *(score_final(subject, PROMPTS, probes=probes, exact_qk=1.0) for probes in (400, 16)),
    )
    truth, close, rough = ({site: decode(scores, site) for site in SITES} for scores in every)
    for site, exact in truth.items():
        ratio = (close[site] / exact)[exact > 0.01 * exact.amax(-1, keepdim=True)].median()
        assert 0.93 < ratio < 1.07, site
        assert ranks_agree(rough[site].mean(0), exact.mean(0)) > 0.85, site
    top = top_quarter(truth)
    assert len(top & top_quarter(rough)) > 0.7 * len(top)


def test_read_outs_follow_from_seed_and_prompt(llama: Subject) -> None:
    def scored(tokens: Sequence[Sequence[int]], **rest: Any) -> Tensor:
        return decode(score_final(llama, tokens, probes=1, sites=["ffn"], **rest), "ffn")

    first = scored(PROMPTS)
    assert first.equal(scored(PROMPTS))
    assert_close(scored(PROMPTS[1:]), first[1:], 2 * HALF)
    other = scored(PROMPTS, seed=1)
    assert ((other - first).abs() > 0.1 * first).double().mean() > 0.5
    twice = scored([PROMPTS[0], PROMPTS[0]])
    assert twice[0].equal(twice[1])


def test_few_read_outs_are_unbiased() -> None:
    """The root of a mean of squares of normal numbers, divided by its expectation."""
    assert [lowness(probes) for probes in (1, 4, 16)] == pytest.approx([0.798, 0.940, 0.984], abs=1e-3)
    products = torch.randn(2, 200_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = final.norm_of(products, {"read": [1] * 200_000, "lowness": lowness(2)})
    assert found.mean().item() == pytest.approx(1, abs=0.01)
    error = float((Final(probes=2).chance * found).square().mean().sqrt())
    assert error == pytest.approx(float(found.std()), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("probes", "least"), [(4, 0.88), (16, 0.92)])
def test_the_standard_error_is_that_of_other_seeds(llama: Subject, by_all: Callable, probes: int, least: float) -> None:
    """Means over three prompts, of every neuron, 40 seeds: their spread, and how often two errors hold the truth.

    Less often than .954 with few read-outs, since the error is a share of the estimate: too small where that is.
    """
    count, each = 40, Final(probes=probes).chance
    truth = by_all(llama, PROMPTS, exact_qk=1.0)
    with pytest.MonkeyPatch.context() as chance:
        chance.setattr(final, "noises", NOISES)
        chance.setattr(final_effects, "lowness", lowness)
        runs = [score_final(llama, PROMPTS, probes=probes, seed=seed, exact_qk=1.0) for seed in range(count)]
    for site in SITES:
        found = torch.stack([decode(scores, site) for scores in runs])  # [seed prompt layer neuron]
        means, errors = found.mean(1), each * found.square().sum(1).sqrt() / len(PROMPTS)
        assert float(means.var(0).mean() / errors.square().mean()) == pytest.approx(1, abs=0.15), site
        held = (means - decode(truth, site).mean(0)).abs() <= 2 * errors
        assert least < float(held.double().mean()) < 0.97, site


@pytest.mark.parametrize("family", slow_but_for(["qwen3"], FAMILIES))
def test_half_precision_keeps_the_ranks(tiny_folder: Callable, family: str) -> None:
    rough, exact = (load_subject(str(tiny_folder(family)), dtype=dtype) for dtype in ("bfloat16", "float32"))
    found, wanted = (score_final(model, PROMPTS, probes=4) for model in (rough, exact))
    for site in SITES:
        assert ranks_agree(decode(found, site)[0], decode(wanted, site)[0]) > 0.9, site


def test_what_is_not_there_to_estimate(llama: Subject) -> None:
    for problem, hint, call in (
        ("has 0 probes", "FinalAblation", partial(score_final, llama, PROMPTS, probes=0)),
        ("2 responses to 3 prompts", "one response", partial(score_final, llama, PROMPTS, response_tokens=ANSWERS[:2])),
        ("no token", "Leave it out", partial(score_final, llama, [[1, 2], []])),
        ("no token", "Leave it out", partial(score_final, llama, [[1, 2]], response_tokens=[[]])),
    ):
        with pytest.raises(ModelError, match=problem) as error:
            call()
        assert hint in (error.value.hint or "")
    assert len(score_final(llama, [])) == 0


def test_a_single_prompt_of_a_single_token(llama: Subject) -> None:
    """It attends to itself alone, whatever its queries and keys are."""
    found = score_final(llama, [[5]], probes=2, exact_qk=1.0)
    assert all(decode(found, site).abs().max() < 1e-12 for site in ("q", "k"))
    assert all(decode(found, site).min() > 0 for site in ("v", "o", "ffn"))


def test_a_layer_of_dead_neurons_has_no_effect(tiny_folder: Callable) -> None:
    subject = load_subject(str(tiny_folder("llama")), dtype="float32")
    for site in ("q", "k", "v"):
        module_of(subject).get_parameter(f"model.layers.1.self_attn.{site}_proj.weight").data.zero_()
    module_of(subject).get_parameter("model.layers.1.mlp.up_proj.weight").data.zero_()
    found = score_final(subject, PROMPTS, probes=2)
    for site in SITES:
        assert (decode(found, site)[:, 1] == 0).all(), site
        assert (decode(found, site)[:, 0] > 0).any(), site
