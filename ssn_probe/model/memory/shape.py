"""The few numbers of a model that decide how much memory it takes, read off its modules and its config."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssn_probe.model.families import Family


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers that decide. `stored` is the size of an element in bytes; `windows` one per layer, None: all keys."""

    weights: int
    layers: int
    hidden: int
    inner: int
    query: int
    key: int
    head: int
    vocabulary: int
    norms: int
    stored: int
    eager: bool
    head_norms: bool
    score_cap: bool
    logit_cap: bool
    windows: tuple[int | None, ...]

    @property
    def heads(self) -> int:
        return self.query // self.head

    @property
    def repeats(self) -> int:
        """Query heads per key head."""
        return self.query // self.key

    @property
    def copied(self) -> bool:
        """Are keys and values copied for every query head? A single key head is seen by all of them as it is."""
        return self.eager or (self.repeats > 1 and self.key > self.head)

    @property
    def exact(self) -> int:
        """The size of an element where the project computes: at least single precision."""
        return max(4, self.stored)

    @property
    def lifted(self) -> int:
        """What a copy of an element in single precision takes; none is made where it is that already."""
        return 4 if self.stored < 4 else 0

    def width(self, sites: Sequence[str]) -> int:
        """Neurons of a layer."""
        sizes = {"q": self.query, "k": self.key, "v": self.key, "o": self.query, "ffn": self.inner}
        return sum(sizes[site] for site in sites)


def shape_of(module: Any, family: Family, dtype_bytes: int | None = None) -> Shape:
    """The shape of a model, which may be on the meta device; its own dtype unless another size is given."""
    first, config = module.get_submodule(family.layers)[0], module.config
    hidden, widths = module.get_submodule(family.embedding).embedding_dim, family.widths(module)
    stored = dtype_bytes or next(module.parameters()).element_size()
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * family.depth(module)
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in module.buffers())
    return Shape(
        weights=sum(parameter.numel() for parameter in module.parameters()) * stored + buffers,
        layers=family.depth(module),
        hidden=hidden,
        inner=widths["ffn"],
        query=widths["q"],
        key=widths["k"],
        head=first.get_submodule(family.attention).head_dim,
        vocabulary=module.get_submodule(family.head).out_features,
        norms=sum("Norm" in type(child).__name__ for child in first.children()),
        stored=stored,
        eager=family.implementation == "eager",
        head_norms=family.head_norms is not None,
        score_cap=bool(family.score_cap and getattr(config, family.score_cap, None)),
        logit_cap=bool(getattr(config, "final_logit_softcapping", None)),
        windows=tuple(window if kind == "sliding_attention" else None for kind in types),
    )
