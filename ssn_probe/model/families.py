"""Where each site lives in each model family: one table, which tracing, training and the doctor ask.

A row states what differs from Llama: where modules are, which of them hold several sites, the norm between projection
and rotation, how queries and keys are rotated and in which layers, a cap on scores. Bodies, training and the doctor
read these properties; by its name a family is known only to the forecast of memory (`memory.IN_SINGLE`) and to vLLM
(`vllm_engine.PROVED`). A family that is not in the table is refused: a wrong guess would silence the wrong weights
without a sound. A user adds a row with `register_family`; see docs/models.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin

from ssn_probe.errors import ModelError, nearest
from ssn_probe.model.refused_families import unsupported
from ssn_probe.neurons import SITES, Site

Side = Literal["input", "output"]
Axis = Literal["row", "column"]

MODULES: dict[Site, tuple[str, Side]] = {
    "q": ("self_attn.q_proj", "output"),
    "k": ("self_attn.k_proj", "output"),
    "v": ("self_attn.v_proj", "output"),
    "o": ("self_attn.o_proj", "input"),
    "ffn": ("mlp.down_proj", "input"),
}
"""Site → module of a decoder layer, and the side of it on which the neuron's activation is read and written.

q, k and v are read after the bias and before any norm or rotation; o and ffn are what the output projection is given.
"""


PARTS = ("q", "k", "v", "gate", "up")
"""What a module may hold one below the other."""


@dataclass(frozen=True)
class Matrix:
    """A matrix that holds a part of a site's neurons: a module, how they lie in it, and which part of a fused one."""

    path: str
    axis: Axis
    part: str | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """A row of the table; `name` is the `model_type` of config.json.

    Paths of `layers`, `embedding`, `norm` and `head` begin at the model's root, all others at a decoder layer. The
    attention module must have `head_dim`, `num_key_value_groups` and `scaling`, and be given `position_embeddings`.
    """

    name: str
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens"
    norm: str = "model.norm"
    head: str = "lm_head"
    loader: Literal["AutoModelForCausalLM", "AutoModelForImageTextToText"] = "AutoModelForCausalLM"
    """The class of transformers that loads it."""
    implementation: Literal["sdpa", "eager"] = "sdpa"
    """The attention implementation that computes all of the family's features."""
    attention: str = "self_attn"
    head_norms: Mapping[str, str] | None = None
    """The modules that normalise queries `q` and keys `k` between projection and rotation, if any."""
    norm_eps: str = "variance_epsilon"
    """The attribute of these norms that keeps them from dividing by zero."""
    norm_over: Literal["head", "all heads"] = "head"
    """What such a norm is taken over: the channels of one head, or of all heads together."""
    norm_centred: bool = False
    """Does it take away the mean first, as LayerNorm does and RMSNorm does not? Only over each head by itself."""
    norm_switch: str | None = None
    """The attribute of the attention module that says whether it has these norms, where that differs."""
    rotation: Literal["halves", "pairs", "pairs, angles in halves"] = "halves"
    """Which channels are turned together: i and i + half, or 2i and 2i + 1. The angles come in the same order, or in
    halves. Where there are fewer angles than channels, the last channels are not turned."""
    rotates_in_single: bool = False
    """Are queries and keys rotated in single precision, whatever the model's? It decides how much memory that takes."""
    rotates_if: tuple[str, ...] = ()
    """Attributes of the attention module of which one must be true, or false if `not ` precedes it, for the layer to
    rotate queries and keys. Empty: every layer does."""
    query_growth: bool = False
    """Do queries grow with their position (`llama_4_scaling_beta` of the rotary parameters)?"""
    score_cap: str | None = None
    """The attribute of the attention module that squashes scores before the softmax, if any."""
    modules: Mapping[Site, tuple[str, Side]] = field(default_factory=lambda: MODULES)
    ffn_inputs: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    """The projections whose rows write what the columns of site `ffn` read."""
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Modules that hold several parts one below the other: sites, or `gate` and `up`, in their order."""
    examples: tuple[str, ...] = field(default=(), compare=False)
    """Names on the hub of well-known models of the family."""

    @property
    def weights(self) -> Mapping[Site, tuple[Matrix, ...]]:
        """Site → the matrices of a decoder layer that hold its neurons' weights, and how they lie in them."""
        own: dict[Site, tuple[Matrix, ...]] = {
            site: (Matrix(path, "column" if side == "input" else "row", site if path in self.fused else None),)
            for site, (path, side) in self.modules.items()
        }
        inputs = [Matrix(path, "row", part) for path in self.ffn_inputs for part in self.fused.get(path, (None,))]
        own["ffn"] = (*inputs, *own["ffn"])
        return own

    def widths(self, model: Any) -> dict[Site, int]:
        """How many neurons a layer has at each site, read from the modules themselves."""
        first = self.part(model, self.layers)[0]
        features = {"input": "in_features", "output": "out_features"}
        return {
            site: self.bounds(first, path, site)[1] - self.bounds(first, path, site)[0]
            if path in self.fused
            else getattr(self.part(first, path), features[side])
            for site, (path, side) in self.modules.items()
        }

    def bounds(self, layer: Any, path: str, part: str) -> tuple[int, int]:
        """The first row of a part of a fused module of a layer, and the row after its last.

        Raises:
            ModelError: the parts are not together what the module has.
        """
        query = self.part(layer, self.modules["o"][0]).in_features
        key, inner = query // self.part(layer, self.attention).num_key_value_groups, self._inner(layer)
        sizes = {"q": query, "k": key, "v": key, "gate": inner, "up": inner}
        rows = self.part(layer, path).out_features
        if sum(sizes[one] for one in self.fused[path]) != rows:
            parts = " and ".join(f"{one} {sizes[one]}" for one in self.fused[path])
            hint = f"ssn-probe takes it for {parts}, in this order: it is a model of another shape, and not studied."
            raise ModelError(f"{path} of a model of the family {self.name!r} has {rows} rows.", hint)
        return self.span(path, part, sizes)

    def span(self, path: str, part: str, sizes: Mapping[str, int]) -> tuple[int, int]:
        """The same, from the number of rows of every part."""
        before = self.fused[path][: self.fused[path].index(part)]
        start = sum(sizes[one] for one in before)
        return start, start + sizes[part]

    def _inner(self, layer: Any) -> int:
        return self.part(layer, self.modules["ffn"][0]).in_features

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


NORMS = {"q": "self_attn.q_norm", "k": "self_attn.k_norm"}
GATE_AND_UP = {"mlp.gate_up_proj": ("gate", "up")}
NESTED: dict[str, Any] = {
    "layers": "model.language_model.layers",
    "embedding": "model.language_model.embed_tokens",
    "norm": "model.language_model.norm",
}
"""Where the language model of a model for texts and images is."""
GEMMA3: dict[str, Any] = {"head_norms": NORMS, "norm_eps": "eps"}
GLM: dict[str, Any] = {
    "rotation": "pairs, angles in halves",
    "ffn_inputs": ("mlp.gate_up_proj",),
    "fused": GATE_AND_UP,
}
BUILT_IN = (
    Family(name="llama", examples=("meta-llama/Llama-3.1-8B-Instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct")),
    Family(name="qwen2", examples=("Qwen/Qwen2.5-7B-Instruct",)),
    Family(name="qwen3", head_norms=NORMS, examples=("Qwen/Qwen3-8B",)),
    Family(name="mistral", examples=("mistralai/Mistral-7B-Instruct-v0.3",)),
    Family(
        name="gemma2", score_cap="attn_logit_softcapping", implementation="eager", examples=("google/gemma-2-9b-it",)
    ),
    Family(name="gemma3_text", **GEMMA3, examples=("google/gemma-3-1b-it",)),
    Family(name="gemma3", **NESTED, **GEMMA3, examples=("google/gemma-3-4b-it", "google/gemma-3-12b-it")),
    Family(
        name="olmo2",
        rotates_in_single=True,
        head_norms=NORMS,
        norm_over="all heads",
        examples=("allenai/OLMo-2-1124-7B-Instruct",),
    ),
    Family(
        name="olmo3",
        rotates_in_single=True,
        head_norms=NORMS,
        norm_over="all heads",
        examples=("allenai/Olmo-3-7B-Instruct",),
    ),
    Family(name="smollm3", rotates_if=("use_rope",), examples=("HuggingFaceTB/SmolLM3-3B",)),
    Family(name="granite", examples=("ibm-granite/granite-3.3-8b-instruct",)),
    Family(
        name="cohere",
        rotates_in_single=True,
        head_norms=NORMS,
        norm_centred=True,
        norm_switch="use_qk_norm",
        rotation="pairs",
        examples=("CohereLabs/aya-expanse-8b", "CohereLabs/c4ai-command-r-v01"),
    ),
    Family(
        name="cohere2",
        rotates_in_single=True,
        rotates_if=("sliding_window",),
        rotation="pairs",
        examples=("CohereLabs/c4ai-command-r7b-12-2024",),
    ),
    Family(name="ministral3", query_growth=True),
    Family(
        name="mistral3",
        **NESTED,
        loader="AutoModelForImageTextToText",
        query_growth=True,
        examples=("mistralai/Mistral-Small-3.1-24B-Instruct-2503",),
    ),
    Family(
        name="exaone4",
        head_norms=NORMS,
        rotates_if=("is_sliding", "not sliding_window"),
        examples=("LGAI-EXAONE/EXAONE-4.0-1.2B",),
    ),
    Family(name="seed_oss", examples=("ByteDance-Seed/Seed-OSS-36B-Instruct",)),
    Family(
        name="phi3",
        modules=MODULES | dict.fromkeys(("q", "k", "v"), ("self_attn.qkv_proj", "output")),
        ffn_inputs=("mlp.gate_up_proj",),
        fused={"self_attn.qkv_proj": ("q", "k", "v")} | GATE_AND_UP,
        examples=("microsoft/phi-4", "microsoft/Phi-3-mini-4k-instruct"),
    ),
    Family(name="glm", **GLM, examples=("zai-org/glm-4-9b-chat-hf",)),
    Family(name="glm4", **GLM, examples=("zai-org/GLM-4-9B-0414",)),
    Family(
        name="apertus", head_norms=NORMS, ffn_inputs=("mlp.up_proj",), examples=("swiss-ai/Apertus-8B-Instruct-2509",)
    ),
    Family(name="nemotron", ffn_inputs=("mlp.up_proj",), examples=("nvidia/Nemotron-Mini-4B-Instruct",)),
)
FAMILIES: dict[str, Family] = {family.name: family for family in BUILT_IN}


def register_family(name: str, **row: Any) -> Family:
    """Adds a model family to the table; a model of it is studied once the doctor has passed it.

    Args:
        name: the `model_type` of config.json.
        row: the fields of `Family` in which it differs from Llama.

    Raises:
        ModelError: a family that ssn-probe has, or a field or a value that a family does not have.
    """
    if name in {family.name for family in BUILT_IN}:
        raise ModelError(f"The family {name!r} comes with ssn-probe.", "Its row cannot be replaced: leave it out.")
    known = tuple(one.name for one in fields(Family) if one.name != "name")
    for field_name in row:
        if field_name not in known:
            hint = f"{nearest(field_name, known)} Fields: {', '.join(known)}."
            raise ModelError(f"A family has no field {field_name!r}.", hint)
    family = Family(name=name, **row)
    if family.norm_centred and family.norm_over != "head":
        hint = "Its effects of queries and keys are not known in closed form, so it cannot be studied."
        raise ModelError(f"The family {name!r} has norms over all heads that take away the mean.", hint)
    if set(family.modules) != set(SITES):
        hint = f"Give a module and its side for each of {', '.join(SITES)}."
        raise ModelError(f"The family {name!r} has modules of the sites {', '.join(family.modules)}.", hint)
    _check_values(family)
    FAMILIES[name] = replace(family, modules={site: family.modules[site] for site in SITES})
    return FAMILIES[name]


def _check_values(family: Family) -> None:
    """Raises ModelError for words that a row does not know, and a site that its joined module does not hold."""
    for one in fields(Family):
        value, allowed = getattr(family, one.name), get_args(one.type)
        if get_origin(one.type) is Literal and value not in allowed:
            raise ModelError(
                f"The {one.name} of the family {family.name!r} is {value!r}.", nearest(str(value), allowed)
            )
    for path, parts in family.fused.items():
        placed = {site for site, (place, _) in family.modules.items() if place == path}
        if set(parts) - set(PARTS) or placed - set(parts):
            hint = f"Give the parts of {', '.join(PARTS)} in their order, with every site whose module it is."
            raise ModelError(f"{path} of the family {family.name!r} holds {', '.join(parts)}.", hint)


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
