"""A frozen model to train beside, given back as it was; and what to do when memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ssn_probe.anatomy import anatomy_of
from ssn_probe.errors import ModelError


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
    layers = module.get_submodule(anatomy_of(module.config).layers) if wanted else ()
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own shows again


@contextmanager
def memory_errors(rows: int, gradient_checkpointing: bool) -> Iterator[None]:
    """Turns running out of memory, with `rows` in a forward pass, into a ModelError that says what to lower.

    No row is ever left out instead.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(error):
            raise
        smaller = f"Give micro_batch={rows // 2} (it is {rows})" if rows > 1 else "Shorten the longest rows"
        rest = "." if gradient_checkpointing else ", or gradient_checkpointing=True."
        raise ModelError("There is not enough memory for a training step.", smaller + rest) from error
