"""Low-rank adapters as a value (LoRA, Hu et al. 2021): W + scale · B A, matrix by matrix."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.spec import Site


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """One matrix's adapter: `module` is the path of the linear layer, whose weight is [output, input].

    Where it holds several sites, `site` is the one with most neurons of the set that the adapter is measured by.
    """

    module: str
    layer: int
    site: Site
    a: Float[Tensor, "rank input"]
    b: Float[Tensor, "output rank"]
    scale: float = 1.0

    @property
    def name(self) -> str:
        return self.module

    @property
    def parameters(self) -> int:
        return self.a.numel() + self.b.numel()

    def change(self, weight: Tensor) -> Tensor:
        """What the adapter adds to this weight, in float32 or better."""
        wide = torch.promote_types(weight.dtype, torch.float32)
        return self.scale * (self.b.to(weight.device, wide) @ self.a.to(weight.device, wide))

    def merged(self, weight: Tensor) -> Tensor:
        """Weight plus adapter, added in float32 or better and rounded once."""
        change = self.change(weight)
        return (weight.to(change.dtype) + change).to(weight.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """The adapters that training made, float32 on the CPU, one per matrix, in order of layer and site."""

    parts: tuple[Factors, ...]

    @property
    def parameters(self) -> int:
        """How many weights were trained."""
        return sum(part.parameters for part in self.parts)
