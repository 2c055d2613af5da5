"""Local effects of every site, in every family of the table, against the module's own output without the neuron."""

from collections.abc import Callable

import pytest
import torch
from tiny import FAMILIES as FIRST
from torch import Tensor

from ssn_probe.model.families import BUILT_IN
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.tracing.bodies import attention_form
from ssn_probe.tracing.effects import decode, score_local

from ..hosted import hosted
from ..test_effects import HALF, PROMPTS, assert_close, local

FAMILIES = [family.name for family in BUILT_IN]
LATER = [name for name in FAMILIES if name not in FIRST]
"""The families that the fixture `subject` does not go through."""
OWN_FORM = ("olmo2", "cohere", "ministral3", "glm4", "phi3")
"""Between them: norms over all heads, norms that take away the mean, growing queries, both rotations of pairs, and a
part of the channels that is not rotated."""


@torch.no_grad()
def ablated(subject: Subject, prompt: list[int], layer: int, site: Site) -> Tensor:
    """‖Δ output‖ at every token [token, neuron], by plain hooks: row i of a batch runs without neuron i."""
    family, module, neurons = subject.family, subject.model._module, torch.arange(subject.widths[site])
    block = family.part(module, family.layers)[layer]
    path, side = family.modules[site]
    first = 0 if path not in family.fused else family.bounds(block, path, site)[0]
    seen: list[Tensor] = []

    def silence(activation: Tensor) -> Tensor:
        activation = activation.clone()
        activation[neurons, :, first + neurons] = 0
        return activation

    own, writes = family.part(block, path), family.part(block, family.modules["ffn" if site == "ffn" else "o"][0])
    hooks = [writes.register_forward_hook(lambda _m, _inputs, output: seen.append(output))]
    ids = torch.tensor([prompt])
    try:
        module(ids, use_cache=False)
        if side == "input":
            hooks.append(own.register_forward_pre_hook(lambda _m, inputs: (silence(inputs[0]),)))
        else:
            hooks.append(own.register_forward_hook(lambda _m, _inputs, output: silence(output)))
        module(ids.expand(len(neurons), -1), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return (seen[1] - seen[0]).norm(dim=-1).T


@pytest.mark.parametrize("family", LATER)
def test_the_closed_forms_of_every_family_equal_ablation(tiny_subject: Callable[..., Subject], family: str) -> None:
    """In a padded batch; prompts are longer than the windows."""
    subject = tiny_subject(family)
    means, lasts = local(subject, PROMPTS), local(subject, PROMPTS, "last")
    for row, prompt in enumerate(PROMPTS):
        for site in SITES:
            for layer in range(subject.n_layers):
                wanted = ablated(subject, prompt, layer, site)
                assert_close(means[site][row, layer], wanted.mean(0), 1e-6)
                assert_close(lasts[site][row, layer], wanted[-1], 1e-6)


@pytest.mark.parametrize("family", OWN_FORM)
@pytest.mark.parametrize("block", [1, 4000])
def test_no_form_depends_on_the_size_of_a_block(
    tiny_subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch, family: str, block: int
) -> None:
    subject = tiny_subject(family)
    wanted = local(subject, PROMPTS)
    monkeypatch.setattr(attention_form, "BLOCK", block)
    found = local(subject, PROMPTS)
    for site in ("q", "k"):
        assert_close(found[site], wanted[site], 1e-9)


@pytest.mark.parametrize("family", OWN_FORM)
def test_a_host_that_shows_no_weights_gives_the_same(single: Callable[[str], Subject], family: str) -> None:
    subject = single(family)
    here, there = score_local(subject, PROMPTS), score_local(hosted(subject, sandbox=True), PROMPTS)
    for site in SITES:
        assert_close(decode(there, site), decode(here, site), HALF)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", LATER)
def test_lower_precision_is_near(tiny_folder: Callable, tiny_subject: Callable, family: str, dtype: str) -> None:
    rough = local(load_subject(str(tiny_folder(family)), dtype=dtype), PROMPTS)
    exact = local(tiny_subject(family), PROMPTS)
    for site in SITES:
        assert_close(rough[site].double(), exact[site], 1e-4 if dtype == "float32" else 0.3)
