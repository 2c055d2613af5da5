"""The algebra is in single precision whatever the model's: what a half-precision model computed is rounded no more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny import EVERY_FAMILY

from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing.bodies import attention_form, closed_form
from ssn_probe.tracing.bodies import local as bodies_local
from ssn_probe.tracing.bodies.refusal import absent, first_order, log_odds

from .. import plain
from ..test_effects import PROMPTS, local

BOUND = 2.0**-14
"""As a share of the largest effect of a layer: float32 rounds by 2⁻²⁴ a hundred times over, float16 by 2⁻¹¹ once."""


@contextmanager
def algebra_in(convert: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """What the bodies make of an activation, a weight or an angle before they compute with it."""
    with pytest.MonkeyPatch.context() as patched:
        for body in (closed_form, attention_form, bodies_local):
            patched.setattr(body, "exact", convert)
        yield


def gaps(found: dict, wanted: dict) -> dict[str, float]:
    return {
        site: float(((found[site] - wanted[site]).abs() / wanted[site].abs().amax(-1, keepdim=True)).max())
        for site in SITES
    }


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_local_effects_are_those_of_the_same_activations_in_double_precision(
    tiny_folder: Callable[[str], Path], family: str, dtype: str
) -> None:
    subject = load_subject(str(tiny_folder(family)), dtype=dtype)
    found = local(subject, PROMPTS)
    with algebra_in(torch.Tensor.double):
        wanted = local(subject, PROMPTS)
    assert max(gaps(found, wanted).values()) < BOUND


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_bound_catches_algebra_in_half_precision(tiny_folder: Callable[[str], Path], dtype: str) -> None:
    subject = load_subject(str(tiny_folder("llama")), dtype=dtype)
    with algebra_in(torch.Tensor.double):
        wanted = local(subject, PROMPTS)
    with algebra_in(lambda tensor: tensor):
        assert min(gaps(local(subject, PROMPTS), wanted).values()) > BOUND


@pytest.mark.parametrize("site", ["o", "ffn"])
def test_the_double_precision_is_that_of_plain_hooks(tiny_folder: Callable[[str], Path], site: str) -> None:
    subject, prompt = load_subject(str(tiny_folder("llama")), dtype="bfloat16"), PROMPTS[1]
    effects = dict(local(subject, [prompt]))[site][0]  # type: ignore[index]
    for layer in range(subject.n_layers):
        target = plain.site_module(subject.model._module, layer, site)
        seen = _input_of(subject, target, prompt).double()
        wanted = seen.abs().mean(0) * target.weight.double().norm(dim=0)
        assert torch.allclose(effects[layer].double(), wanted, rtol=0, atol=BOUND * float(wanted.max()))


def _input_of(subject: Subject, target: torch.nn.Module, prompt: list[int]) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = target.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        subject.model._module(torch.tensor([prompt]))
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_first_order_effect_is_the_sum_of_unrounded_products(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    activation, gradient = (torch.randn(2, 300, 5, generator=generator).to(dtype) for _ in range(2))
    mask = torch.arange(300)[None] > torch.tensor([[7], [0]])
    wanted = (activation.double() * gradient.double() * mask[..., None]).sum(1)
    found = first_order(activation, gradient, absent(mask), 1).double()
    assert torch.allclose(found, wanted, rtol=0, atol=1e-5)
    rounded = (activation * gradient * mask[..., None]).sum(1).double()
    assert not torch.allclose(rounded, wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_log_odds_are_those_of_the_logits_as_they_are(dtype: torch.dtype) -> None:
    logits = (8 * torch.randn(3, 1, 40, generator=torch.Generator().manual_seed(0))).to(dtype)
    scoring = {"row": [0, 0], "position": [0, 0], "token": [3, 5], "opening": [0, 1], "refusal": 1, "openings": 2}
    scoring = {name: torch.tensor(value) if isinstance(value, list) else value for name, value in scoring.items()}
    found = log_odds(logits, scoring | {"sequences": 1})
    wanted = logits[:, 0, 3].double() - logits[:, 0, 5].double()
    assert torch.allclose(found.double(), wanted, rtol=0, atol=1e-5)
