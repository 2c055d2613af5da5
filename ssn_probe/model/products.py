"""Products of float32 on AMD's processors, by the library of torch's two that uses the whole processor.

torch multiplies matrices of float32 by MKL, which takes its kernels for AVX-512 on Intel's processors alone. oneDNN, by
which torch multiplies half precision, takes its own wherever there is AVX-512: a pass takes half of the time
(`python -m benchmarks.speed --only forward`). Both add in float32, in another order, so that what a layer gives differs
by rounding. `torch.backends.mkldnn.set_flags(False)` switches to MKL, and so does all that torch derives of its own
products alone: forward-mode gradients, the transforms of `torch.func`, compiled and traced models.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

FEWEST_ROWS = 16
"""Rows of a product from which on oneDNN is faster: a call of it takes 10 µs more."""


def use_faster_products(module: torch.nn.Module) -> None:
    """Lets every plain linear layer of a float32 model multiply by oneDNN, on processors where that is faster.

    The layers stay what they are, with the weights that they have: only their `forward` is another.
    """
    if not onednn_is_faster():
        return
    for layer in module.modules():
        if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu":
            layer.forward = partial(linear, layer)


def use_torchs_products(module: torch.nn.Module) -> None:
    """Takes it back."""
    for layer in module.modules():
        if getattr(vars(layer).get("forward"), "func", None) is linear:
            del layer.forward


def onednn_is_faster() -> bool:
    """Is this one of AMD's processors, with AVX-512, and does this torch have what is needed?"""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    has_product = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_product and bool(known.get("avx512_f")) and "AMD" in str(known.get("cpu_name"))


def linear(layer: torch.nn.Linear, input: Tensor) -> Tensor:
    """What `layer.forward(input)` gives: input [..., in] → [..., out]."""
    weight, bias = layer.weight, layer.bias
    if not _can_multiply(input, weight):
        return torch.nn.functional.linear(input, weight, bias)
    return _multiply(input, weight, bias)


def _can_multiply(input: Tensor, weight: Tensor) -> bool:
    return (
        type(input) is Tensor
        and type(weight) in (Tensor, torch.nn.Parameter)
        and input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
        and input.numel() >= FEWEST_ROWS * weight.shape[1]
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not _is_transformed()
    )


def _is_transformed() -> bool:
    """Does torch do something else with its operations than to compute them, or derive them backwards?"""
    return (
        peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
    )


def _multiply(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (input, weight, bias)):
        return _Product.apply(input, weight, bias)
    return _product(input, weight, bias)


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """The same with gradients, which torch does not derive of oneDNN's product, and gradients of these."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_weight = ctx.needs_input_grad[1]
        ctx.save_for_backward(weight, input if of_weight else None)
        return _product(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (weight, input), of = ctx.saved_tensors, ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            (gradient @ weight if _is_transformed() else _multiply(gradient, weight.mT, None)) if of[0] else None,
            rows.mT @ input.reshape(-1, input.shape[-1]) if of[1] else None,
            rows.sum(0) if of[2] else None,
        )
