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


def projection(module: Any, layer: int, site: str) -> Any:
    """The linear map whose weights are the neurons of a site.

    Raises:
        ModelError: the layer has no module of that name, or several.
    """
    from torch.nn import ModuleList

    (name, _), depth = PROJECTIONS[site], text_config(module.config).num_hidden_layers
    lists = [part for path, part in module.named_modules() if isinstance(part, ModuleList) and not is_beside(path)]
    decoder = next(part for part in lists if len(part) == depth)
    found = [part for path, part in decoder[layer].named_modules() if path.rpartition(".")[2] == name]
    if len(found) != 1:
        raise ModelError(
            f"Layer {layer} has {len(found)} modules called {name}, where the weights of site {site} would be.",
            "Nothing else shows what this site is, so a model with other names cannot be examined: leave the site out.",
        )
    return found[0]


def own_weights(module: Any, layer: int, site: str) -> list[tuple[Any, int]]:
    """The parameters that hold the neurons of a site, each with its dimension along which they lie."""
    found, (_, dimension) = projection(module, layer, site), PROJECTIONS[site]
    bias = [(found.bias, 0)] if dimension == ROWS and found.bias is not None else []
    return [(found.weight, dimension), *bias]


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
