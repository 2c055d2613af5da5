"""How much memory the work of a study takes on its device, from the model's shape alone: no weights, no allocation.

Every kind of work is a succession of stages, such as the attention of a layer, its MLP, or the logits, and takes at
its peak what lasts, plus the largest stage. What is alive in a stage was read off transformers 5.23, and what autograd
saves off torch's derivatives: a linear map with frozen weights saves nothing, a product of two activations saves both,
a norm saves its argument in single precision. `tests/test_footprint.py` compares with what torch allocates on a CPU:
of all families and kinds of work, the estimate is at least the measured peak, and at most 1.3 times as much.

What is stated is device memory. The scores themselves are kept in the memory of the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ssn_probe.errors import ModelError, nearest
from ssn_probe.model.memory import once, rows
from ssn_probe.model.memory.shape import Shape
from ssn_probe.neurons import SITES

Work = Literal["generate", "log_odds", "refusal", "local", "final"]

CONTEXT = 10**9
"""Bytes of a GPU that hold nobody's tensors: about half a gigabyte of CUDA context and kernels, and the workspaces of
matrix products. An allowance that is stated, not measured."""

FRAGMENTATION = 0.05
"""Share by which torch reserves more than it hands out: it rounds blocks up, and not every gap can be used again.
Longest prompts run first, so that later batches fit into the blocks of the first. Stated, not measured, too."""

UNCOUNTED = 0.05
"""Share of what the rows take for small tensors that are not counted one by one: positions, statistics of norms."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a kind of work takes: weights, what comes once, and what every prompt of a batch adds.

    `floor` is what a step before the batches takes beside the weights, when nothing else is there. `sequences` is how
    many rows of a batch one prompt takes.
    """

    weights: int
    fixed: int
    per_prompt: int
    floor: int = 0
    sequences: int = 1

    def at(self, batch_size: int) -> int:
        """Bytes in tensors at the peak; `batch_size` counts sequences, as the option does, and one prompt always runs.

        In brute force it counts neurons.
        """
        prompts = max(1, batch_size // self.sequences)
        return self.weights + max(self.floor, self.fixed + prompts * self.per_prompt)

    def needed(self, batch_size: int) -> int:
        """The memory that a GPU must have for it: what is in tensors, and the allowances."""
        return round(self.at(batch_size) * (1 + FRAGMENTATION)) + CONTEXT

    def largest_batch(self, memory: int) -> int:
        """The largest batch size whose `needed` is within so many bytes; 0 where not even one prompt fits."""
        free = int((memory - CONTEXT) / (1 + FRAGMENTATION)) - self.weights
        prompts = (free - self.fixed) // self.per_prompt
        return 0 if self.floor > free else max(0, prompts) * self.sequences


def footprint(
    shape: Shape,
    work: Work,
    *,
    tokens: int,
    new_tokens: int = 1,
    sequences: int = 1,
    kept: int = 1,
    sites: Sequence[str] = SITES,
    position: str = "mean",
) -> Footprint:
    """What a kind of work takes.

    Args:
        shape: see `shape_of`.
        work: "generate", "log_odds" (r(x) by forward passes), "refusal", "local" (exact q and k where `sites` has
            them) or "final" (brute force).
        tokens: of the longest prompt, the chat template included.
        new_tokens: generated at most.
        sequences, kept: of an `openings.Forcing`: teacher-forced sequences of a prompt, and last positions with logits,
            one more than the longest prefix has tokens.
        sites, position: as in `score_local`.
    """
    if work not in get_args(Work):
        raise ModelError(f"Unknown work {work!r}.", nearest(work, get_args(Work)))
    length, fixed, floor = tokens + kept - 1, 0, 0
    match work:
        case "generate":
            row = rows.generating(shape, tokens, new_tokens)
        case "log_odds":
            row = rows.forward(shape, length, kept)
        case "refusal":
            row = rows.differentiating(shape, length, kept, sites)
        case "local":
            row = rows.scoring(shape, tokens, sites, tokens if position == "mean" else 1)
            fixed = once.measures(shape, sites) + once.blocks(shape, tokens, sites)
            floor = once.measuring(shape, sites)
        case "final":
            row = fixed = rows.ablating(shape, tokens)  # the untouched row runs beside
    return Footprint(
        weights=shape.weights,
        fixed=round(fixed * (1 + UNCOUNTED)),
        per_prompt=round(row * sequences * (1 + UNCOUNTED)),
        floor=floor,
        sequences=sequences,
    )
