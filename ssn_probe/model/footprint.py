"""Bytes that a kind of work takes on a device, and the largest batch that a memory holds of it."""

import itertools
from dataclasses import dataclass

CONTEXT = 10**9
"""Bytes of a GPU that hold no tensors: context, kernels, workspaces of matrix products. An allowance, not measured."""
FRAGMENTATION = 0.05
"""Share by which torch reserves more than it hands out: an allowance. With 8B parameters on an H100 it was 1 to 4 %."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Bytes of a stage that walks in blocks.

    `blocks`: what every prompt adds of things of which never more than so much is there: (bytes of a prompt, the most).
    """

    per_prompt: int = 0
    blocks: tuple[tuple[int, int], ...] = ()

    def taken(self, prompts: int) -> int:
        return prompts * self.per_prompt + sum(min(prompts * each, most) for each, most in self.blocks)

    def largest(self, free: int) -> int:
        """How many prompts take no more than so many bytes."""
        fitting = []
        for full in itertools.product((False, True), repeat=len(self.blocks)):
            rest = free - sum(most for (_, most), at_most in zip(self.blocks, full, strict=True) if at_most)
            each = sum(size for (size, _), at_most in zip(self.blocks, full, strict=True) if not at_most)
            fitting.append(rest // max(1, self.per_prompt + each))
        return max(fitting)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a kind of work takes: weights, what comes once, and what every prompt of a batch adds.

    `later` is a stage that follows, when some of that is gone. `floor` is what a step before the batches takes beside
    the weights, when nothing else is there. `sequences` is how many rows of a batch a prompt takes.
    """

    weights: int
    fixed: int
    per_prompt: int
    later: Stage = Stage()
    floor: int = 0
    sequences: int = 1

    def beside(self, prompts: int) -> int:
        """What so many prompts take at once, beside the weights."""
        return max(self.floor, self.fixed + prompts * self.per_prompt, self.later.taken(prompts))

    def needed(self, batch_size: int) -> int:
        """The memory that a GPU must have for a batch of so many sequences (brute force: neurons)."""
        tensors = self.weights + self.beside(max(1, batch_size // self.sequences))
        return round(tensors * (1 + FRAGMENTATION)) + CONTEXT

    def largest_batch(self, memory: int) -> int:
        """The largest batch size whose `needed` is within so many bytes; 0 where not even one prompt fits."""
        free = int((memory - CONTEXT) / (1 + FRAGMENTATION)) - self.weights
        prompts = min((free - self.fixed) // self.per_prompt, self.later.largest(free))
        return 0 if self.floor > free else max(0, prompts) * self.sequences
