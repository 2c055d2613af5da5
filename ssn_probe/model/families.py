"""Where each site lives in each model family: one table, which tracing, training and the doctor ask.

All five families keep their decoder layers under `model.layers` and give their projections the same names; the table
states what differs: a norm on each head's queries and keys (Qwen3), a soft-cap on attention scores (Gemma-2). A
family that is not in the table is refused: a wrong guess would silence the wrong weights without a sound. A user adds
a row with `register_family`; see docs/extend/family.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from ssn_probe.errors import ModelError, nearest
from ssn_probe.model.refused_families import unsupported
from ssn_probe.neurons import SITES, Site

Side = Literal["input", "output"]
Axis = Literal["row", "column"]

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
class Family:
    """A row of the table; `name` is the `model_type` of config.json.

    Paths of `layers`, `embedding`, `rotary`, `norm` and `head` begin at the model's root, all others at a decoder
    layer. The attention module must have `head_dim`, `num_key_value_groups` and `scaling`, and rotate in halves.
    """

    name: str
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens"
    rotary: str = "model.rotary_emb"
    norm: str = "model.norm"
    head: str = "lm_head"
    implementation: Literal["sdpa", "eager"] = "sdpa"
    """The attention implementation that computes all of the family's features."""
    attention: str = "self_attn"
    head_norms: Mapping[str, str] | None = None
    """The modules that normalise every head's queries `q` and keys `k` between projection and rotation, if any."""
    norm_eps: str = "variance_epsilon"
    """The attribute of these norms that keeps them from dividing by zero."""
    score_cap: str | None = None
    """The attribute of the attention module that squashes scores before the softmax, if any."""
    modules: Mapping[Site, tuple[str, Side]] = field(default_factory=lambda: MODULES)
    ffn_inputs: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    """The projections whose rows write what the columns of site `ffn` read."""

    @property
    def weights(self) -> Mapping[Site, tuple[tuple[str, Axis], ...]]:
        """Site → the matrices of a decoder layer that hold its neurons' weights, and how they lie in them."""
        own: dict[Site, tuple[tuple[str, Axis], ...]] = {
            site: ((path, "column" if side == "input" else "row"),) for site, (path, side) in self.modules.items()
        }
        inputs: list[tuple[str, Axis]] = [(path, "row") for path in self.ffn_inputs]
        own["ffn"] = (*inputs, *own["ffn"])
        return own

    def widths(self, model: Any) -> dict[Site, int]:
        """How many neurons a layer has at each site, read from the modules themselves."""
        first = self.part(model, self.layers)[0]
        features = {"input": "in_features", "output": "out_features"}
        return {site: getattr(self.part(first, path), features[side]) for site, (path, side) in self.modules.items()}

    def depth(self, model: Any) -> int:
        """The number of decoder layers."""
        return len(self.part(model, self.layers))

    def part(self, root: Any, path: str) -> Any:
        """The module at a path of the row. Raises ModelError where there is none."""
        try:
            return root.get_submodule(path)
        except AttributeError as error:
            hint = "The row of the family names another; print the model to see what it has."
            raise ModelError(f"There is no module {path!r} in a model of the family {self.name!r}.", hint) from error


BUILT_IN = (
    Family(name="llama"),
    Family(name="qwen2"),
    Family(name="qwen3", head_norms={"q": "self_attn.q_norm", "k": "self_attn.k_norm"}),
    Family(name="mistral"),
    Family(name="gemma2", score_cap="attn_logit_softcapping", implementation="eager"),
)
FAMILIES: dict[str, Family] = {family.name: family for family in BUILT_IN}


def register_family(name: str, **row: Any) -> Family:
    """Adds a model family to the table; a model of it is studied once the doctor has passed it.

    Args:
        name: the `model_type` of config.json.
        row: the fields of `Family` in which it differs from Llama.

    Raises:
        ModelError: a family that ssn-probe has, or a field that a family does not have.
    """
    if name in {family.name for family in BUILT_IN}:
        raise ModelError(f"The family {name!r} comes with ssn-probe.", "Its row cannot be replaced: leave it out.")
    known = tuple(one.name for one in fields(Family) if one.name != "name")
    for field_name in row:
        if field_name not in known:
            hint = f"{nearest(field_name, known)} Fields: {', '.join(known)}."
            raise ModelError(f"A family has no field {field_name!r}.", hint)
    family = Family(name=name, **row)
    if set(family.modules) != set(SITES):
        hint = f"Give a module and its side for each of {', '.join(SITES)}."
        raise ModelError(f"The family {name!r} has modules of the sites {', '.join(family.modules)}.", hint)
    FAMILIES[name] = replace(family, modules={site: family.modules[site] for site in SITES})
    return FAMILIES[name]


def family_of(config: Any) -> Family:
    """The row of the family that a Hugging Face config, what its file holds, or its `model_type` names.

    Raises:
        ModelError: a family that is not in the table: why, and those that are.
    """
    held = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    name = config if isinstance(config, str) else held.get("model_type", getattr(config, "model_type", None))
    if isinstance(name, str) and name in FAMILIES:
        return FAMILIES[name]
    raise unsupported(name, held, FAMILIES)


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
