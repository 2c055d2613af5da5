"""Where a neuron's weights are, found by the names of the modules and not by the table of families, which is on trial.

A neuron of q, k or v is a row of its projection, with its bias; a neuron of o or ffn is a column of the projection
that reads it.
"""

from collections.abc import Mapping
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.text_config import is_beside, text_config

ROWS, COLUMNS = 0, 1

PROJECTIONS: Mapping[str, tuple[str, int]] = {
    "q": ("q_proj", ROWS),
    "k": ("k_proj", ROWS),
    "v": ("v_proj", ROWS),
    "o": ("o_proj", COLUMNS),
    "ffn": ("down_proj", COLUMNS),
}
FUSED = "qkv_proj"
"""Queries, keys and values one below the other, in the architectures that do not keep them apart."""


def projection(module: Any, layer: int, site: str) -> Any:
    """The linear map whose weights are the neurons of a site.

    Raises:
        ModelError: the layer has no module of that name, or several.
    """
    from torch.nn import ModuleList

    names, depth = [PROJECTIONS[site][0]], text_config(module.config).num_hidden_layers
    names += [FUSED] if site in "qkv" else []
    lists = [part for path, part in module.named_modules() if isinstance(part, ModuleList) and not is_beside(path)]
    decoder = next(part for part in lists if len(part) == depth)
    found = [part for path, part in decoder[layer].named_modules() if path.rpartition(".")[2] in names]
    if len(found) != 1:
        called = " or ".join(names)
        raise ModelError(
            f"Layer {layer} has {len(found)} modules called {called}, where the weights of site {site} would be.",
            "Nothing else shows what this site is, so a model with other names cannot be examined: leave the site out.",
        )
    return found[0]


def own_weights(module: Any, layer: int, site: str) -> list[tuple[Any, int]]:
    """The parameters that hold the neurons of a site, each with its dimension along which they lie."""
    found, (_, dimension) = projection(module, layer, site), PROJECTIONS[site]
    parts = [(found.weight, dimension)]
    parts += [(found.bias, 0)] if dimension == ROWS and found.bias is not None else []
    if dimension == COLUMNS or projection(module, layer, "q") is not projection(module, layer, "k"):
        return parts
    config = text_config(module.config)
    heads, keys = config.num_attention_heads, config.num_key_value_heads
    size = found.weight.shape[0] // (heads + 2 * keys)
    first, count = {"q": (0, heads), "k": (heads, keys), "v": (heads + keys, keys)}[site]
    return [(part.detach().narrow(0, first * size, count * size), 0) for part, _ in parts]


def width(module: Any, layer: int, site: str) -> int:
    """How many neurons a site has, by its weights."""
    weight, dimension = own_weights(module, layer, site)[0]
    return weight.shape[dimension]


def as_integers(values: Any) -> Any:
    """The bits of floating-point numbers, as integers in the same order but for the sign. Shares the memory."""
    import torch

    return values.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])


def same_bits(one: Any, other: Any) -> bool:
    """Are two tensors the same, bit for bit? NaN is equal to itself here."""
    import torch

    return torch.equal(as_integers(one.detach()), as_integers(other.detach()))
