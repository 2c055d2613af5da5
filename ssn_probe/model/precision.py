"""The same weights in a wider dtype for as long as neurons are scored: exact both ways, and never held twice.

A number in half precision is one in single precision, too, so the weights stay what they are; only what is computed
with them is rounded less. Tensor by tensor they are widened, and made as they were when the scores are there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject

WIDTH = {"bfloat16": 16, "float16": 16, "float32": 32, "float64": 64}
"""Bits of a number."""
HALF = ("bfloat16", "float16")
WITHOUT = "Leave scoring_dtype out: neurons are scored in the model's own dtype then."


class CannotWidenError(ModelError):
    """Some of the weights are not where the model computes."""


def widens(subject: Subject, dtype: str | None) -> bool:
    """Is `dtype` another one than the model's own? None stands for that."""
    return dtype not in (None, subject.identity["dtype"])


def check_trainable(dtype: str) -> None:
    """Raises ModelError for a precision in which no model is trained."""
    if dtype == "float16":
        hint = "Load the model in bfloat16 or float32 (--dtype bfloat16)."
        raise ModelError("Training in float16 would lose small gradients.", hint)


def check_widening(subject: Subject, dtype: str | None) -> None:
    """Raises ModelError where a model's weights cannot be widened to `dtype`."""
    own = subject.identity["dtype"]
    if dtype is None or dtype == own:
        return
    if WIDTH[dtype] <= WIDTH[own]:
        raise ModelError(f"scoring_dtype is {dtype}, and {subject.name} is loaded in {own}, which is wider.", WITHOUT)
    if subject.model is not None and any(one.device.type == "meta" for one in subject.model._module.parameters()):
        raise CannotWidenError(
            f"Scoring in {dtype} needs all weights of {subject.name} on a device, and some are fetched from elsewhere.",
            f"{WITHOUT} Or load the model in {dtype}: --dtype {dtype}.",
        )


@contextmanager
def computing_in(subject: Subject, dtype: str | None) -> Iterator[Subject]:
    """The subject as it computes in `dtype` with the very same weights; afterwards it is as before, bit for bit.

    Inside, this process alone computes: others that share its work have the weights as they were loaded.

    Raises:
        ModelError: a model whose weights cannot be widened, or too little memory for them.
    """
    from ssn_probe.model.out_of_memory import give_back_spare, memory_errors, release_memory

    check_widening(subject, dtype)
    own = subject.identity["dtype"]
    if dtype is None or dtype == own:
        yield subject
        return
    names = [name for name, tensor in tensors(subject.model) if str(tensor.dtype) == f"torch.{own}"]
    change = partial(convert, subject.model) if subject.shards is None else partial(subject.shards.run, convert)
    give_back_spare()  # it is of the weights as they are before
    try:
        with memory_errors(1, f"The memory does not hold the weights of {subject.name} in {dtype}", WITHOUT):
            change(names, dtype)
        yield replace(subject, identity=subject.identity | {"dtype": dtype}, workers=None)
    finally:
        change(names, own)
        release_memory()


def tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Every parameter and buffer once, by name. Some are wider than the rest, such as the angles of the rotation."""
    yield from model._module.named_parameters()
    yield from model._module.named_buffers()


def convert(model: Any, names: Sequence[str], dtype: str) -> None:
    """These parameters and buffers in another dtype, where they are."""
    import torch

    for name, tensor in tensors(model):
        if name not in names:
            continue
        converted = tensor.detach().to(getattr(torch, dtype))
        if hasattr(tensor, "full_tensor"):  # a part of a weight that is split over processes has a dtype of its own
            torch.utils.swap_tensors(tensor, torch.nn.Parameter(converted, requires_grad=False))
        else:
            tensor.data = converted
