"""A frozen model to train beside, given back as it was; and what to do when memory runs out."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from ssn_probe.errors import ModelError
from ssn_probe.model.families import family_of

T = TypeVar("T")

FULL = ("allocate memory", "out of memory", "ALLOC_FAILED")
"""What CPUs and the libraries of GPUs say where torch has no error of its own for it."""


@contextmanager
def frozen(module: Any) -> Iterator[None]:
    """Inside, no weight of the model takes a gradient, and nothing drops out; outside it is as it was before."""
    asked = [weight for weight in module.parameters() if weight.requires_grad]
    modes = [(part, part.training) for part in module.modules()]
    module.requires_grad_(False).eval()
    try:
        yield
    finally:
        for weight in asked:
            weight.requires_grad_(True)
        for part, mode in modes:
            part.training = mode


@contextmanager
def recomputing(module: Any, wanted: bool) -> Iterator[None]:
    """Inside, if it is wanted, each decoder layer keeps its input alone, and is computed again in the backward pass.

    transformers has a switch for this that works in training mode only, where dropout would begin.
    """
    layers = module.get_submodule(family_of(module.config).layers) if wanted else ()
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own shows again


class OutOfMemory(ModelError):
    """A training step does not fit; `rows` were in a forward pass."""

    def __init__(self, message: str, hint: str, rows: int):
        super().__init__(message, hint)
        self.rows = rows


@contextmanager
def memory_errors(rows: int, gradient_checkpointing: bool) -> Iterator[None]:
    """Turns running out of memory, with `rows` in a forward pass, into an OutOfMemory that says what to lower.

    No row is ever left out instead.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(word in str(error) for word in FULL):
            raise
        fewer = rows // 2
        options = f"micro_batch={fewer}; --micro-batch {fewer}, in a run --batch-size {fewer}"
        less = options if rows > 1 else "it is one: shorten the longest"
        rest = "" if gradient_checkpointing else ", or give gradient_checkpointing=True (--gradient-checkpointing)"
        hint = f"Take fewer rows at a time ({less}){rest}."
        message = f"There is not enough memory for a training step with {rows} rows in a pass."
        raise OutOfMemory(message, hint, rows) from error


def fitting(work: Callable[[int | None], T], rows: int | None, *, shrink: bool) -> T:
    """`work(rows)`; where that does not fit and `shrink` is asked for, again with half as many rows in a pass.

    None: all rows of a step at once. Nothing is left out: what is done so far lies in the training's checkpoint. Raises
    OutOfMemory where not even one row fits.
    """
    while True:
        try:
            return work(rows)
        except OutOfMemory as error:
            if not shrink or error.rows <= 1:
                raise
            rows = error.rows // 2
        release_memory()


def release_memory() -> None:
    """Gives back what a failed pass has left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
