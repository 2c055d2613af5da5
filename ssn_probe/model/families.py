"""Where each site lives in each model family: one table, and what can be asked of it without knowing the family.

All five families keep their decoder layers under `model.layers` and name their projections alike; what differs is
stated in the table: a norm on each head's queries and keys (Qwen3), a soft-cap on attention scores (Gemma-2). A
family that is not in the table is refused: a wrong guess would silence the wrong weights without a sound.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ssn_probe.errors import ModelError, nearest
from ssn_probe.neurons import SITES, Site

Side = Literal["input", "output"]

MODULES: Mapping[Site, tuple[str, Side]] = {
    "q": ("self_attn.q_proj", "output"),
    "k": ("self_attn.k_proj", "output"),
    "v": ("self_attn.v_proj", "output"),
    "o": ("self_attn.o_proj", "input"),
    "ffn": ("mlp.down_proj", "input"),
}
"""Site → module of a decoder layer, and the side of it on which the neuron's activation is read and written.

q, k and v are read after the bias and before any norm or rotation; o and ffn are what the output projection is given.
"""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The map of one model family: paths from the model's root, and the features that change the algebra of a site."""

    family: str
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens"
    rotary: str = "model.rotary_emb"
    norm: str = "model.norm"
    head: str = "lm_head"
    attention: Literal["sdpa", "eager"] = "sdpa"
    """The attention implementation that computes all of the family's features."""
    head_norms: bool = False
    """`self_attn.q_norm` and `k_norm` normalise every head between projection and rotation."""
    score_cap: bool = False
    """`self_attn.attn_logit_softcapping` squashes scores before the softmax, where it is set."""
    modules: Mapping[Site, tuple[str, Side]] = field(default_factory=lambda: MODULES)

    def widths(self, model: Any) -> dict[Site, int]:
        """How many neurons a layer has at each site, read from the modules themselves."""
        first = model.get_submodule(self.layers)[0]
        return {site: _width(first.get_submodule(path), side) for site, (path, side) in self.modules.items()}

    def depth(self, model: Any) -> int:
        """The number of decoder layers."""
        return len(model.get_submodule(self.layers))


def _width(module: Any, side: Side) -> int:
    return module.in_features if side == "input" else module.out_features


FAMILIES: Mapping[str, Anatomy] = {
    anatomy.family: anatomy
    for anatomy in (
        Anatomy(family="llama"),
        Anatomy(family="qwen2"),
        Anatomy(family="qwen3", head_norms=True),
        Anatomy(family="mistral"),
        Anatomy(family="gemma2", score_cap=True, attention="eager"),
    )
}


def anatomy_of(config: Any) -> Anatomy:
    """The map of the family that a Hugging Face config (or its `model_type`) names.

    Raises:
        ModelError: a family that is not in the table; the message lists those that are.
    """
    family = config if isinstance(config, str) else getattr(config, "model_type", None)
    if isinstance(family, str) and family in FAMILIES:
        return FAMILIES[family]
    raise ModelError(
        f"Models of the family {family!r} are not supported.",
        f"Supported families (model_type in config.json): {', '.join(FAMILIES)}.",
    )


def known_site(word: str) -> Site:
    """The word, if it is a site; else ModelError."""
    for site in SITES:
        if site == word:
            return site
    raise ModelError(f"There is no site {word!r}.", nearest(word, SITES))


def check_neurons(neurons: Iterable[tuple[int, str, int]], *, n_layers: int, widths: Mapping[Site, int]) -> None:
    """Raise ModelError, naming what is allowed, if any (layer, site, index) does not exist in the model."""
    for layer, word, index in neurons:
        site = known_site(word)
        if not 0 <= layer < n_layers:
            raise ModelError(f"There is no layer {layer}.", f"The model has layers 0 to {n_layers - 1}.")
        if not 0 <= index < widths[site]:
            raise ModelError(
                f"There is no neuron {index} at site {site} of layer {layer}.",
                f"Its indices run from 0 to {widths[site] - 1}.",
            )
