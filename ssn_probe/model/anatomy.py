"""Is a loaded module the model that its family's row describes? Every layer is compared, not only the first.

transformers puts adapters and quantisers into a model without a word, other libraries hang hooks on it: what is read
and written then is not what the row names.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.config_file import UNQUANTISED
from ssn_probe.model.families import BUILT_IN, Family
from ssn_probe.model.text_config import text_config
from ssn_probe.neurons import SITES, Site

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
BESIDES = {"forward", "_hf_hook"}
"""What transformers and accelerate put into the modules of a model that they spread over devices."""
QUANTISERS = (
    *(
        "bitsandbytes.",
        "auto_gptq.",
        "gptqmodel.",
        "awq.",
        "hqq.",
        "optimum.quanto.",
        "compressed_tensors.",
        "torchao.",
    ),
    "transformers.integrations.",
)
"""Where the modules are from that hold quantised weights; those that transformers itself has are in the last."""
PLAIN = "Give the checkpoint of the plain model, as `save_pretrained` writes it."
NEW_SHAPE = (
    "It is a model of another shape under a known name, and not studied: a further gate, adapter or expert would act "
    "on what ssn-probe reads and writes. If the model is right, a newer ssn-probe may know it; see `ssn-probe models`."
)
ROW = "The family's row describes another model: see docs/extend/family.md."


def check_anatomy(module: Any, family: Family, *, spread: bool = False) -> None:
    """Compare a module, which may be on the meta device, with the row of its family.

    spread: the module was loaded over several devices, with what moves values between them hung on it.

    Raises:
        ModelError: something was put into or around the model, a layer is not like the others, or a module is not
            what the row names.
    """
    for path, part in module.named_modules():
        _check_untouched(path, part, spread)
    layers = family.part(module, family.layers)
    if not isinstance(layers, _list_type()) or len(layers) == 0:
        raise ModelError(f"{family.layers} of the model is no list of layers but {type(layers).__name__}.", ROW)
    depth = getattr(text_config(module.config), "num_hidden_layers", len(layers))
    if len(layers) != depth:
        raise ModelError(f"The model has {len(layers)} layers, and its config says {depth}.", PLAIN)
    family.part(module, family.norm)
    _check_vocabulary(module, family)
    first = _shapes(layers[0], family, 0)
    _check_widths(module, family, first)
    for number, layer in enumerate(layers):
        if type(layer) is not type(layers[0]):
            kinds = f"{type(layer).__name__}, layer 0 a {type(layers[0]).__name__}"
            raise ModelError(f"Layer {number} is a {kinds}.", "Models with layers of several kinds are not studied.")
        shapes = _shapes(layer, family, number)
        if family in BUILT_IN:  # the doctor proves the others
            _check_parts(layer, family, number, shapes)
        for path, shape in shapes.items():
            if shape != first[path]:
                raise ModelError(
                    f"{path} has the shape {shape} in layer {number}, and {first[path]} in layer 0.",
                    "Models with layers of several widths are not studied.",
                )


def check_finite(module: Any) -> None:
    """Raises ModelError for a weight that is not a finite number; a pass over all weights, without a copy."""
    import torch

    for name, weight in module.named_parameters():
        if weight.is_meta:  # accelerate brings it from the processor's memory or the disk when it is needed
            continue
        own = weight.to_local() if hasattr(weight, "to_local") else weight  # this process's part
        if own.numel() and not all(bool(torch.isfinite(end)) for end in torch.aminmax(own.detach())):
            dtype = str(weight.dtype).removeprefix("torch.")
            large = "They may be too large for float16: load the model with `--dtype float32` or bfloat16. If not: "
            raise ModelError(
                f"The weight {name} has values that are NaN or infinite in {dtype}.",
                f"{large if dtype == 'float16' else ''}The checkpoint is damaged; get it again.",
            )


def _check_untouched(path: str, part: Any, spread: bool) -> None:
    kind = f"{path or 'The model'} is a {type(part).__name__}"
    if type(part).__module__.partition(".")[0] == "peft" or getattr(part, "_hf_peft_config_loaded", False):
        raise ModelError(f"{kind} with an adapter in it.", "Merge it first (`merge_and_unload` of peft), or remove it.")
    if getattr(part, "hf_quantizer", None) is not None or type(part).__module__.startswith(QUANTISERS):
        raise ModelError(f"{kind} with quantised weights.", UNQUANTISED)
    if hasattr(part, "parametrizations"):
        raise ModelError(f"{kind} whose weights are computed from others (parametrizations).", PLAIN)
    if any(getattr(part, hooks, None) for hooks in HOOKS) or (not spread and BESIDES & vars(part).keys()):
        raise ModelError(f"{kind} that something else has been hooked on.", PLAIN)
    for name, weight in part.named_parameters(recurse=False):
        if not weight.is_floating_point() or weight.element_size() < 2:
            raise ModelError(f"The weight {path}.{name} is stored as {weight.dtype}.", UNQUANTISED)
        if type(weight).__name__ not in ("Parameter", "DTensor"):
            raise ModelError(f"The weight {path}.{name} is no plain tensor but {type(weight).__name__}.", UNQUANTISED)


def _check_vocabulary(module: Any, family: Family) -> None:
    rows = {path: family.part(module, path).weight.shape[0] for path in (family.embedding, family.head)}
    rows["config.json"] = getattr(text_config(module.config), "vocab_size", rows[family.head])
    if len(set(rows.values())) != 1:
        found = ", ".join(f"{path} {count}" for path, count in rows.items())
        raise ModelError(f"The sizes of the vocabulary do not agree: {found}.", "Get the model's own config.json.")
    tied = getattr(module.config, "tie_word_embeddings", False)
    if tied and family.part(module, family.head).weight is not family.part(module, family.embedding).weight:
        raise ModelError(
            f"config.json ties {family.head} to {family.embedding} (tie_word_embeddings), and the checkpoint has other "
            "values for each.",
            "Set tie_word_embeddings to false in config.json if the checkpoint's head is meant, or remove it from the "
            "weights.",
        )


def _check_parts(layer: Any, family: Family, number: int, projections: Iterable[str]) -> None:
    """Has a layer no weights but those of the row's projections, their norms, and norms of the layer's own?"""
    known = {*projections, *(family.head_norms or {}).values()}
    for path, part in layer.named_modules():
        own = [name for name, _ in part.named_parameters(recurse=False)]
        is_norm = path and "." not in path and "norm" in path
        if own and path not in known and not is_norm and type(part).__module__ != "transformers.activations":
            name = f"{path}.{own[0]}".lstrip(".")
            raise ModelError(
                f"Layer {number} has the weight {name} ({type(part).__name__}), which models of the family "
                f"{family.name!r} do not have as ssn-probe knows them.",
                NEW_SHAPE,
            )


def _check_widths(module: Any, family: Family, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Are projections as wide as the heads that attention makes of them, and is the MLP as wide as what it is given?"""
    attention = family.part(family.part(module, family.layers)[0], family.attention)
    widths, size, groups = family.widths(module), attention.head_dim, attention.num_key_value_groups
    heads = getattr(text_config(module.config), "num_attention_heads", widths["o"] // size)
    query, key = heads * size, heads // groups * size
    asked: dict[Site, int] = {"q": query, "k": key, "v": key, "o": query}
    for site, width in asked.items():
        if (found := widths[site]) != width:
            raise ModelError(
                f"Site {site} of a model of the family {family.name!r} has {found} neurons in a layer, where "
                f"{heads} heads of {size} channels, {groups} to each key, ask for {width}.",
                NEW_SHAPE,
            )
    for path in family.ffn_inputs:
        if path not in family.fused and shapes[path][0] != widths["ffn"]:
            raise ModelError(
                f"{path} of a model of the family {family.name!r} gives {shapes[path][0]} channels, of which "
                f"{family.modules['ffn'][0]} reads {widths['ffn']}.",
                NEW_SHAPE,
            )


def _shapes(layer: Any, family: Family, number: int) -> dict[str, tuple[int, ...]]:
    """The shape of every projection of a layer that the row names; other named modules are there."""
    normed = family.norm_switch is None or getattr(family.part(layer, family.attention), family.norm_switch)
    for path in (family.attention, *((family.head_norms or {}) if normed else {}).values()):
        family.part(layer, path)
    own = {matrix.path for site in SITES for matrix in family.weights[site]}
    return {path: _linear(family.part(layer, path), path, number, family) for path in sorted(own)}


def _linear(part: Any, path: str, number: int, family: Family) -> tuple[int, ...]:
    from torch.nn import Linear

    fits = type(part) is Linear if family in BUILT_IN else isinstance(part, Linear)
    if not fits or tuple(part.weight.shape) != (part.out_features, part.in_features):
        kind = f"{type(part).__module__}.{type(part).__name__}"
        raise ModelError(f"{path} of layer {number} is a {kind} and not a plain torch.nn.Linear.", PLAIN)
    return tuple(part.weight.shape)


def _list_type() -> Any:
    from torch.nn import ModuleList, Sequential

    return (ModuleList, Sequential)
