"""How much of the model a method runs: forward passes per prompt, counted layer by layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from benchmarks.identification.peers.given import Given


class Passes:
    """Tokens that layers have computed, a backward pass counting two; the padding of a batch counts."""

    def __init__(self) -> None:
        self.tokens = 0

    def layer(self, _module: Any, _given: Any, made: Any) -> None:
        """A hook after a layer: its tokens, and twice as many when a gradient comes back through what it made."""
        state: Tensor = made[0] if isinstance(made, tuple) else made
        tokens = state.shape[:-1].numel()
        self.tokens += tokens
        if state.requires_grad:
            state.register_hook(lambda _gradient: self.back(tokens))

    def back(self, tokens: int) -> None:
        """A gradient came back through so many tokens of a layer."""
        self.tokens += 2 * tokens


@contextmanager
def counted(given: Given) -> Iterator[Passes]:
    """Inside, what the layers of the subject compute is counted, whoever runs them."""
    passes, subject = Passes(), given.subject
    layers = subject.model._module.get_submodule(subject.family.layers)
    handles = [layer.register_forward_hook(passes.layer) for layer in layers]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def per_prompt(passes: Passes, given: Given) -> float:
    """Counted tokens as forward passes over all prompts of both contexts: 1.0 is each prompt once, through all layers.

    A method that reads harmful prompts alone can thus cost 0.5.
    """
    tokens = sum(len(row) for rows in given.tokens.values() for row in rows)
    return passes.tokens / (tokens * given.subject.n_layers)
