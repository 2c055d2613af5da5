"""What config.json asks for, judged before a module is built: what would load other weights, code or layers is refused.

A config may name other files to read, wrap the weights in a quantiser, replace modules, or ask for more layers than
any machine holds. transformers follows it without a word.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.families import BUILT_IN, Family, family_of
from ssn_probe.model.foreign_adapters import ADAPTER, MERGE
from ssn_probe.model.remedies import newer_transformers
from ssn_probe.model.text_config import NESTED, is_beside, parts, raw_text_config, text_config
from ssn_probe.model.weight_files import Stored

MOST = {
    "num_hidden_layers": 10_000,
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "head_dim"), 1_000_000),
    **dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 100_000_000),
    "num_labels": 1_000_000,
}
"""The numbers of a config that decide how much is built → the most that is taken for meant."""
ELSEWHERE = {
    "configuration_files": "other configuration files",
    "transformers_weights": "another file of weights",
    "fusion_config": "modules that are fused when it is loaded",
    "per_layer_config": "settings of single layers, which would differ from the others",
}
"""What makes transformers read or build something else than the folder shows → in words."""
FIXED = {"is_causal": True, "is_encoder_decoder": False, "return_dict": True, "use_bidirectional_attention": False}
"""What a config must say, if it says it: a decoder that does not look ahead, whose outputs have names."""
LAYER_KINDS = {"full_attention", "sliding_attention"}
"""The kinds of layers that the families of the table have."""
PLACED = ("name", "layers", "embedding", "norm", "head", "loader", "query_growth")
"""The fields of a row that say where a model has its text model, or that are read off the config."""
FLOATS = ("F64", "F32", "F16", "BF16")
HARMLESS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids|masked_bias|attn\.bias)$")
"""Constants that old checkpoints kept beside the weights; the model computes them itself."""
QUANTISED = re.compile(
    r"(^|[._])(weight_scale(_inv|_2)?|input_scale|weight_packed|weight_shape|weight_zero_point|qweight|qzeros|scales|"
    r"g_idx|absmax|quant_map|quant_state\.\S+|SCB|weight_format|\w+_blocks|\w+_scales|qdata|scale)$"
)
"""Names that quantisers give to what they keep beside, or in place of, a weight."""
UNQUANTISED = (
    "Quantised weights are not studied: their numbers are not those of the model's neurons. Give the unquantised "
    "checkpoint (often the same name with -BF16, or without -FP8, -GPTQ, -AWQ or -bnb-4bit), or save a dequantised "
    "copy with transformers and study that as a model of its own."
)
MARKED = (
    "If its weights are plain numbers, as transformers saves a GGUF file that it has read, remove quantization_config "
    "from config.json and study it as a model of its own: it is not the model from which the GGUF file was made."
)


def check_config(where: str, raw: Mapping[str, Any]) -> None:
    """Raises ModelError for a raw config that asks for what is not studied, or for more than any model has."""
    for before, part in parts(raw):
        _check_part(where, before, part)
    _check_architectures(where, raw)
    own, kind = _own_class(raw), raw.get("model_type")
    if own is not None and own.rpartition(".")[2] not in {name for family, name in _classes() if family == kind}:
        raise ModelError(
            f"{where!r} comes with code of its own for the model (auto_map in config.json: {own}), which is never run.",
            f"If transformers' own {kind} is the same model, remove auto_map from config.json.",
        )


def _check_part(where: str, before: str, part: Mapping[str, Any]) -> None:
    """Of a whole config or of one nested in it, whose fields stand behind `before`."""
    for name in ("quantization_config", "compression_config"):
        if part.get(name) is not None:
            about = part[name] if isinstance(part[name], dict) else {}
            method = about.get("quant_method") or name
            hint = MARKED if method == "gguf" else UNQUANTISED
            raise ModelError(f"{where!r} is a quantised checkpoint ({method}, by its config.json).", hint)
    for name, what in ELSEWHERE.items():
        if part.get(name) is not None:
            raise ModelError(
                f"config.json of {where!r} names {what} ({before}{name}).",
                f"Remove {name} from it, if what is in the folder is the model.",
            )
    for name, value in FIXED.items() if before in ("", f"{NESTED}.") else ():
        if part.get(name) is not None and part[name] is not value:
            raise ModelError(
                f"config.json of {where!r} has {before}{name} {part[name]!r:.80}.",
                f"Models whose {name} is not {str(value).lower()} are not studied: get the model's own config.json.",
            )
    for name, most in MOST.items():
        value = part.get(name)
        if isinstance(value, int) and not 0 < value <= most:
            raise ModelError(
                f"config.json of {where!r} has {before}{name} {value}.",
                f"A model has 1 to {most:,}: get its own config.json.",
            )


def check_text_config(where: str, config: Any) -> None:
    """Raises ModelError where a config nests what transformers does not take for the config of a text model."""
    from transformers import PreTrainedConfig

    if not isinstance(text_config(config), PreTrainedConfig):
        raise ModelError(
            f"config.json of {where!r} nests a model (text_config, decoder or generator), which models of the family "
            f"{config.model_type!r} do not have.",
            "Get the model's own config.json.",
        )


def check_text_family(where: str, raw: Mapping[str, Any], family: Family) -> None:
    """Raises ModelError where the text model of a nested config is not of a family that the row describes."""
    text = raw_text_config(raw)
    if text is raw or "model_type" not in text or family not in BUILT_IN:  # the doctor proves other rows
        return
    row = family_of(text)
    if replace(row, **{name: getattr(family, name) for name in PLACED}) != family:
        raise ModelError(
            f"The text model of {where!r} is of the family {row.name!r}, which a {family.name} model does not have.",
            "Models that put a decoder of another family into this one are not studied.",
        )


def check_layer_kinds(where: str, raw: Mapping[str, Any], family: Family) -> None:
    """Raises ModelError where a config names a kind of layers that the family does not have."""
    kinds = raw_text_config(raw).get("layer_types")
    if isinstance(kinds, list) and family in BUILT_IN and (odd := sorted({*map(str, kinds)} - LAYER_KINDS)):
        raise ModelError(
            f"config.json of {where!r} has layers of the kind {odd[0]!r:.80} (layer_types).",
            f"Layers of the family {family.name!r} are {' or '.join(sorted(LAYER_KINDS))}: get the model's own "
            "config.json.",
        )


def own_code_notes(config: Any) -> Iterator[str]:
    """What becomes of code that comes with a checkpoint for a class that transformers has, too (as Phi-3 has it)."""
    if (own := _own_class(vars(config))) is not None:
        yield (
            f"the checkpoint comes with code of its own for the model ({own}), which is never run: transformers' class "
            "of that name is studied"
        )


def _own_class(raw: Mapping[str, Any]) -> str | None:
    """The class that a checkpoint has code of its own for, as its config names it."""
    own = raw.get("auto_map")
    named = own.get("AutoModelForCausalLM") if isinstance(own, Mapping) else None
    return None if named is None else str(named)


def _classes() -> tuple[tuple[str, str], ...]:
    """Families and the names of their classes in transformers that continue texts."""
    from transformers.models.auto import modeling_auto as auto

    names = (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    return tuple(pair for one in names for pair in one.items())


def _check_architectures(where: str, raw: Mapping[str, Any]) -> None:
    """Raises ModelError where config.json names the class of another family than its `model_type`."""
    kind, stated = raw.get("model_type"), raw.get("architectures")
    named = [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []
    homes = sorted({family for family, name in _classes() if name in named})
    if homes and kind not in homes:
        raise ModelError(
            f"config.json of {where!r} contradicts itself: its model_type is {kind}, and its architectures "
            f"({', '.join(named)}) are of {' or '.join(homes)}.",
            "One of the two is wrong, and the same weights may load as either: get the model's own config.json.",
        )


def check_depth(where: str, asked: Any, names: Iterable[str], family: Family) -> None:
    """Raises ModelError where a config asks for another number of layers than the weights have."""
    pattern = re.compile(rf"(?:^|\.){re.escape(family.layers.rpartition('.')[2])}\.(\d+)\.")
    own = [name for name in names if not is_beside(name)]
    held = {int(found[1]) for found in map(pattern.search, own) if found}
    if held and isinstance(asked, int) and held != set(range(asked)):
        have = f"0 to {max(held)}" if held == set(range(max(held) + 1)) else f"{len(held)}, up to {max(held)}"
        raise ModelError(
            f"config.json of {where!r} asks for {asked} layers, and its weights are of the layers {have}.",
            "The config or the weights are of another model: get both from the same place.",
        )


def check_stored(where: str, stored: Mapping[str, Stored], outline: Any) -> None:
    """Raises ModelError where the weights of the files are not those that the outline of the module asks for.

    Files are asked for kinds of numbers and shapes; what is missing, or too many, transformers reports once it has
    renamed what it renames.
    """
    weights = {name: tensor for name, tensor in stored.items() if not HARMLESS.search(name)}
    asked = {_plain(name): tuple(weight.shape) for name, weight in outline.state_dict().items()}
    marked = [name for name in weights if ADAPTER.search(name) or QUANTISED.search(name)]
    check_names(where, [name for name in marked if _plain(name) not in asked], outline)
    for name, tensor in weights.items():
        if tensor.dtype not in FLOATS:
            raise ModelError(f"The weight {name} of {where!r} is stored as {tensor.dtype}.", UNQUANTISED)
    for name, tensor in weights.items():
        shape = asked.get(_plain(name))
        if shape is not None and shape != tensor.shape:
            raise ModelError(
                f"The weights of {where!r} cannot be loaded: {name} has the shape {tensor.shape}, and config.json asks "
                f"for {shape}.",
                "The config or the weights are of another model: get both from the same place.",
            )


def _plain(name: str) -> str:
    """The name of a weight without the parts that transformers leaves out, adds or moves when it reads a file."""
    return ".".join(part for part in name.split(".") if part not in ("model", "language_model"))


def check_names(where: str, unexpected: Iterable[str], outline: Any) -> None:
    """Raises ModelError for weights that the model has no place for, and says what they are."""
    names = sorted(name for name in unexpected if not HARMLESS.search(name))
    if not names:
        return
    first, count = names[0], len(names)
    message = f"The checkpoint {where!r} holds {count} weights that the model has no place for, such as {first}"
    parent, _, last = first.rpartition(".")
    if ADAPTER.search(f".{first}."):
        raise ModelError(f"{message}: they are an adapter's.", MERGE)
    if QUANTISED.search(first):
        raise ModelError(f"{message}: they are a quantiser's.", UNQUANTISED)
    kinds = {type(part).__name__ for path, part in outline.named_modules() if path == parent}
    what = f": its config switches biases of {parent} off" if last == "bias" and kinds else ""
    raise ModelError(
        f"{message}{what}.",
        "Without them it is another model. Get the config that belongs to the weights, "
        f"or the weights that belong to the config. {newer_transformers(where)}".strip(),
    )
