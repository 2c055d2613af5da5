"""Local effects of q and k, exact for each prompt's largest alone: what is exact, what is first order; bad input."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.tracing.bodies import attention_form, chosen_channels
from ssn_probe.tracing.effects import decode, score_local

from ..test_effects import PROMPTS, assert_close, local, module_of

LONG = [[1, 3, *range(7, 27), 4], [1, 3, 9, 8, 7, 4]]
FORMS = ("llama", "qwen3", "gemma2", "cohere", "ministral3", "glm4")
SIZES = {"groups": 2, "rep": 2, "size": 8, "hidden": 40}
FOUR: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm": {"eps": 1e-6},
    "norm and its mean": {"eps": 1e-6, "centred": True},
    "cap": {"cap": 4.0},
}


def made_up(tokens: int, *, eps: float | None = None, centred: bool = False, cap: float | None = None) -> Any:
    """What `heads_of` takes, of random numbers, and the columns of an o_proj [x g a d]."""
    draw = torch.Generator().manual_seed(tokens)
    groups, rep, size = SIZES["groups"], SIZES["rep"], SIZES["size"]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    seen: dict[str, Any] = {site: random(2, tokens, groups * (rep if site == "q" else 1) * size) for site in "qkv"}
    angle = random(1, tokens, size // 2).repeat(1, 1, 2)
    seen |= {"cos": angle.cos(), "sin": angle.sin(), "rotation": "halves", "turned": True, "eps": eps, "cap": cap}
    seen |= {"scale": size**-0.5, "growth": None, "together": False, "heads": (groups, rep, size)}
    for site in "qk" if eps is not None else "":
        heads, weight = seen[site].unflatten(-1, (-1, size)), random(size)
        if centred:
            heads = heads - heads.mean(-1, keepdim=True)
            seen[f"{site}_weight"] = weight.expand(groups * (rep if site == "q" else 1), size)
        normed = heads / (heads.square().mean(-1, keepdim=True) + eps).sqrt() * weight
        seen[f"{site}_normed"] = normed.flatten(-2)
    seen["pairs"] = torch.ones(1, tokens, tokens, dtype=torch.bool).tril().expand(2, -1, -1)
    return seen, random(SIZES["hidden"], groups, rep, size)


@pytest.mark.parametrize("form", FOUR.values(), ids=FOUR)
@pytest.mark.parametrize("site", ["q", "k"])
def test_estimates_are_the_derivative_of_the_pattern(site: str, form: dict[str, Any]) -> None:
    """Along a basis of the residual stream in place of random directions."""
    seen, columns = made_up(11, **form)
    weight = torch.ones(2, 11, dtype=torch.float64) / 11
    heads = attention_form.heads_of(seen)
    ((_rows, _queries, part),) = attention_form.parts_of(heads, 0)
    shifted, gain = attention_form.SHIFTED[site](part)
    shift = (shifted if gain is None else shifted * gain) - part["scores"]
    scores = part["scores"].expand_as(shift)
    shift = shift.masked_fill(~part["pairs"], 0)
    step = 1e-4 * shift
    change = (attention_form.attend(scores + step, part) - attention_form.attend(scores - step, part)) / 2e-4
    moved = torch.einsum("bgatds,bgse,xgae->bgatdx", change, heads["value"], columns)
    moved = moved.sum(2, keepdim=True) if site == "k" else moved
    wanted = moved.norm(dim=-1).mean(3).flatten(1)
    probes = columns.permute(1, 2, 3, 0)
    found = chosen_channels.first_order(heads, probes, weight, [site])[site] * chosen_channels.mean_norm(len(columns))
    assert_close(found, wanted, 1e-6)


@pytest.mark.parametrize("position", ["mean", "last"])
@pytest.mark.parametrize("subject", FORMS, indirect=True)
def test_a_share_is_exact_and_the_others_are_near(subject: Subject, position: str) -> None:
    exact, found = local(subject, LONG, position), local(subject, LONG, position, exact_qk=0.3)
    for site in ("q", "k"):
        same = ((found[site] - exact[site]).abs() <= 1e-9 * exact[site].amax(-1, keepdim=True)).sum(-1)
        count = math.ceil(0.3 * exact[site].shape[-1])
        assert (same >= count).all()
        assert (same < exact[site].shape[-1]).any()
        ratio = (found[site] / exact[site]).median()
        assert 0.7 < ratio < 1.4
    assert found["ffn"].equal(exact["ffn"])


@pytest.mark.parametrize("subject", ["olmo2"], indirect=True)
def test_with_a_norm_over_all_heads_all_are_exact(subject: Subject) -> None:
    exact, found = local(subject, LONG), local(subject, LONG, exact_qk=0.1)
    assert found["q"].equal(exact["q"])


@pytest.mark.parametrize("position", ["mean", "last"])
@pytest.mark.parametrize("subject", FORMS, indirect=True)
def test_neither_batch_nor_blocks_change_anything(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, position: str
) -> None:
    together = local(subject, PROMPTS, position, exact_qk=0.2)
    for block in (1, 3000):
        monkeypatch.setattr(chosen_channels, "BLOCK", block)
        for row, prompt in enumerate(PROMPTS):
            alone = local(subject, [prompt], position, exact_qk=0.2)
            for site in ("q", "k"):
                assert_close(together[site][row], alone[site][0], 1e-6)


@pytest.mark.parametrize("share", [0.09, 1.0])
@pytest.mark.parametrize("subject", FORMS, indirect=True)
def test_a_prompt_of_one_token_has_no_pattern_to_change(subject: Subject, share: float) -> None:
    if subject.family.implementation == "eager" and subject.identity["dtype"] == "float64":
        found = local(subject, [[5]], exact_qk=share)
    else:
        found = local(subject, [[5], [1, 7, 8]], exact_qk=share)
        assert found["q"][1].max() > 0
    assert not found["q"][0].any()
    assert not found["k"][0].any()
    assert found["o"][0].any()


def test_dead_neurons_have_no_effect(tiny_folder: Callable) -> None:
    subject = load_subject(str(tiny_folder("qwen3")), dtype="float32")
    attention = module_of(subject).model.layers[1].self_attn
    with torch.no_grad():
        attention.q_proj.weight.zero_()
        module_of(subject).model.layers[0].mlp.down_proj.weight.zero_()
    scores = score_local(subject, PROMPTS)
    assert not decode(scores, "q")[:, 1].any()
    assert not decode(scores, "ffn")[:, 0].any()
    assert decode(scores, "q")[:, 0].any()


@pytest.mark.parametrize("share", [0.09, 1.0])
def test_nan_at_one_position_is_named(tiny_folder: Callable, share: float) -> None:
    subject = load_subject(str(tiny_folder("llama")), dtype="float32")
    with torch.no_grad():
        module_of(subject).model.embed_tokens.weight[20] = float("nan")
    with pytest.raises(ModelError, match="site q of layer 0"):
        score_local(subject, PROMPTS, sites=("q", "k"), exact_qk=share)
