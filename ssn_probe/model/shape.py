"""The numbers of a model that decide on the memory of its work: read off its modules, which may have no weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssn_probe.model.families import BUILT_IN, Family
from ssn_probe.model.text_config import text_config

ALONE = {"relu2": (3, 1), "xielu": (5.25, 3.25)}
"""Activations that are no gate's, by their name in config.json → how many tensors of the MLP's width are alive at once
while one is computed, its argument included, and how many are saved for the backward pass; of others 2 and 1."""
IN_SINGLE = {"halves": 12, "pairs": 16, "pairs, angles in halves": 16}
"""What rotation in single precision takes a channel, in bytes, where the model is in half precision."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of a model that decide. `windows`: one per layer, None for all keys; sizes are in elements.

    `alive` and `saved` count tensors of the MLP's width: those at once in its pass, and those that autograd keeps.
    `halves`: gate and up are one tensor, which lasts as long as the MLP. `joined`: so do queries, keys and values.
    `partly`: not all channels of a head are rotated. `single`: bytes a channel where that is in single
    precision. `normed`: bytes that a norm keeps of a number for the backward pass. `together`: the norm
    on queries and keys is over all heads; `centred`: it takes away the mean. `narrow`: the last layer's output
    projection and MLP can run at the positions alone that are read.

    `stored`, `exact` and `lifted` are bytes: of an element as it is stored, where the project computes (in at least
    single precision), and of its copy in single precision, 0 where it is that already.
    """

    weights: int
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
    alive: float = 3
    saved: float = 3
    halves: bool = False
    joined: bool = False
    partly: bool = False
    single: int = 0
    normed: int = 4
    together: bool = False
    centred: bool = False
    narrow: bool = False

    @property
    def layers(self) -> int:
        return len(self.windows)

    @property
    def heads(self) -> int:
        return self.query // self.head

    @property
    def exact(self) -> int:
        return max(4, self.stored)

    @property
    def lifted(self) -> int:
        return 4 if self.stored < 4 else 0

    @property
    def unturned(self) -> int:
        """Channels of the queries before their rotation, where they last as long as the attention."""
        return self.query * self.joined

    @property
    def logit(self) -> int:
        """Bytes per logit in the model's own dtype; a soft-cap makes two more of them."""
        return self.stored * (3 if self.logit_cap else 1)

    @property
    def upcast(self) -> int:
        """Bytes per query and key of eager attention's softmax, which is in single precision."""
        return max(2 * self.stored, self.stored + 4 + self.lifted)

    def width(self, sites: Sequence[str]) -> int:
        """Neurons of a layer."""
        sizes = {"q": self.query, "k": self.key, "v": self.key, "o": self.query, "ffn": self.inner}
        return sum(sizes[site] for site in sites)


def shape_of(module: Any, family: Family, dtype_bytes: int | None = None) -> Shape:
    """The shape of a model, which may be on the meta device; its own dtype unless another size is given."""
    first, config = module.get_submodule(family.layers)[0], text_config(module.config)
    widths, depth = family.widths(module), family.depth(module)
    stored = dtype_bytes or next(module.parameters()).element_size()
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * depth
    gated, halves = len(family.weights["ffn"]) == 3, len(family.ffn_inputs) == 1
    alive, saved = (3 + halves, 3) if gated else ALONE.get(config.hidden_act, (2, 1))
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in module.buffers())
    return Shape(
        weights=sum(parameter.numel() for parameter in module.parameters()) * stored + buffers,
        hidden=module.get_submodule(family.embedding).embedding_dim,
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
        alive=alive,
        saved=saved,
        halves=gated and halves,
        partly=_rotation(config).get("partial_rotary_factor", 1) != 1,
        single=IN_SINGLE[family.rotation] if family.rotates_in_single and stored < 4 else 0,
        normed=_normed(next(child for child in first.children() if "Norm" in type(child).__name__), stored),
        together=family.norm_over == "all heads",
        centred=family.norm_centred,
        joined=family.modules["q"][0] in family.fused,
        narrow=family in BUILT_IN,
    )


def _rotation(config: Any) -> Mapping[str, Any]:
    """The parameters of the rotation; of several kinds of layers the first's."""
    rope = getattr(config, "rope_parameters", None) or {}
    return next((one for one in rope.values() if isinstance(one, Mapping)), rope)


def _normed(norm: Any, stored: int) -> int:
    """What a norm keeps of each of its numbers: itself in torch's own, else in single precision, twice if centred."""
    from torch.nn import LayerNorm

    if isinstance(norm, LayerNorm):
        return stored
    return 8 if "LayerNorm" in type(norm).__name__ else 4
