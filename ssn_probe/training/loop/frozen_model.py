"""A model that is frozen while a change is trained beside it, and afterwards as it was."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from ssn_probe.model.families import family_of
from ssn_probe.model.out_of_memory import memory_errors


@contextmanager
def frozen(module: Any) -> Iterator[None]:
    """Inside, no weight of the model takes a gradient, and there is no dropout; outside it is as it was before."""
    trained_before = [weight for weight in module.parameters() if weight.requires_grad]
    module.requires_grad_(False)
    try:
        with evaluating(module):
            yield
    finally:
        for weight in trained_before:
            weight.requires_grad_(True)


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Inside, every part of the model is in evaluation mode, without dropout."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def recomputing(module: Any, wanted: bool) -> Iterator[None]:
    """Inside, if `wanted`, each decoder layer keeps only its input, and is computed again in the backward pass.

    transformers' own switch works in training mode only, where there is dropout.
    """
    layers = module.get_submodule(family_of(module.config).layers) if wanted else ()
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own shows again


def step_memory_errors(rows: int, gradient_checkpointing: bool) -> AbstractContextManager[None]:
    """Turns running out of memory, with `rows` rows in a pass, into an OutOfMemory that says what to lower."""
    fewer = f"micro_batch={rows // 2}; --micro-batch {rows // 2}, in a run --batch-size {rows // 2}"
    advice = [f"take fewer rows at a time ({fewer})"] if rows > 1 else ["shorten the longest row"]
    if not gradient_checkpointing:
        advice.append("give gradient_checkpointing=True (--gradient-checkpointing)")
    hint = ", or ".join(advice)
    message = f"There is not enough memory for a training step with {rows} row{'s' * (rows > 1)} in a pass"
    return memory_errors(rows, message, f"{hint[0].upper()}{hint[1:]}.")
