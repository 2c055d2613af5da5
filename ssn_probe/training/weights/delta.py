"""A delta as a value: which rows and columns changed, by how much, and what they were before.

The base rows are kept (in the base's own precision) so that a delta can be checked against a model row by row, and
taken out of a merged model again bit for bit.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssn_probe.spec import Site
from ssn_probe.training.weights.neuron_weights import Neuron, Place, neurons_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One projection: the place, its base rows in the base's dtype, and their change in float32, both on the CPU.

    `base` and `change` are [neuron, width]; a column lies in them as a row. `clusters` are those of the neurons where
    all neurons of a cluster have one change, see `tied`; None where each has its own.
    """

    place: Place
    base: Float[Tensor, "neuron width"]
    change: Float[Tensor, "neuron width"]
    clusters: Int[Tensor, " neuron"] | None = None

    @property
    def module(self) -> str:
        return self.place.module

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def layer(self) -> int:
        return self.place.layer

    @property
    def site(self) -> Site:
        return self.place.site

    @property
    def parameters(self) -> int:
        """How many numbers were trained: what a cluster shares counts once."""
        own = len(self.change) if self.clusters is None else len(self.clusters.unique())
        return own * self.change.shape[1]

    def merged(self, dtype: torch.dtype) -> Float[Tensor, "neuron width"]:
        """Base plus change, added in float32 or better and rounded once."""
        wide = torch.promote_types(dtype, torch.float32)
        return (self.base.to(wide) + self.change.to(wide)).to(dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Delta:
    """The change that training made, one part per projection, in order of layer and site."""

    parts: tuple[Part, ...]

    @property
    def neurons(self) -> list[Neuron]:
        """(layer, site, index) of every neuron, each once."""
        return neurons_of(part.place for part in self.parts)

    @property
    def dtype(self) -> torch.dtype:
        """That of the base when it was trained."""
        return self.parts[0].base.dtype

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return sum(part.parameters for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """What writing a delta into weights of limited precision costs.

    `unmoved`: share of the changed weights that round back to what they were. `error`: the norm of what rounding
    added, relative to the norm of the change.
    """

    unmoved: float
    error: float


def rounding(delta: Delta, dtype: torch.dtype) -> Rounding:
    """The cost of storing base + change in `dtype`. In bfloat16 a change below 1/256 of its weight can vanish."""
    return cost_of((part.base, part.merged(dtype), part.change) for part in delta.parts)


def cost_of(written: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Rounding:
    """The cost of what was written, matrix by matrix: weights before and after, and their change before rounding."""
    changed = unmoved = 0
    lost = size = 0.0
    for base, merged, change in written:
        base, merged, change = base.double(), merged.double(), change.double()
        moved = change != 0
        changed += int(moved.sum())
        unmoved += int((moved & (merged == base)).sum())
        lost += float((merged - base - change).square().sum())
        size += float(change.square().sum())
    return Rounding(unmoved=unmoved / changed if changed else 0.0, error=(lost / size) ** 0.5 if size else 0.0)
