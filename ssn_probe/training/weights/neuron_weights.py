"""Where the weights of a neuron are: which matrices, and which of their rows or columns.

One ffn neuron is a row of `gate_proj`, the same row of `up_proj` and the same column of `down_proj`; without a gate, a
row of `up_proj` and a column of `down_proj`. A neuron of q, k or v is a row of its projection (for k and v counted over
key-value heads), one of o a column of `o_proj`. Where a module holds several of these projections, its rows begin with
those of the first: the rows and columns of different neurons never overlap.

Biases, which Qwen2 has on q, k and v, stay frozen: the paper's mask covers rows and columns of weight matrices.
Embeddings and output head are no neuron's weights, whether they are tied or not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssn_probe.errors import ModelError, RecipeError
from ssn_probe.model.families import FAMILIES, Axis, Matrix, check_neurons, family_of
from ssn_probe.neurons import NeuronSet, checked_site
from ssn_probe.spec import SITES, Site

Neuron = tuple[int, str, int]
"""(layer, site, index)."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Rows or columns of one matrix: `module` is the path of the linear layer from the model's root.

    `indices` are those of the neurons, which count from the beginning of `part`, where the module holds several.
    """

    module: str
    layer: int
    site: Site
    axis: Axis
    indices: tuple[int, ...]
    part: str | None = field(default=None, repr=False)  # checkpoints name their training by the rest

    @property
    def name(self) -> str:
        """The module, and which part of it: no two places of a change have the same."""
        return self.module if self.part is None else f"{self.module}/{self.part}"


def rows_of(neurons: NeuronSet, language: str | None = None) -> list[Neuron]:
    """The neurons to train, from a language-free set or from one language's rows of a set per language.

    Raises:
        RecipeError: a set per language without a language, one that the set lacks, or no neuron at all.
    """
    if language is None and not neurons.language_free:
        raise RecipeError(
            f"the set has different neurons for {', '.join(neurons.languages)}, but training changes one model",
            "Use those of one language, .of('en'), or of all languages together, .union().",
        )
    rows = neurons.neurons(language or "*").select("layer", "site", "index").rows()
    if not rows:
        raise RecipeError("the set of neurons to train is empty", "Raise top, or subtract less from it.")
    return rows


def places_of(module: Any, neurons: Iterable[Neuron]) -> tuple[Place, ...]:
    """The rows and columns that belong to the neurons, one place per projection, in order of layer and site.

    Raises:
        RecipeError: no neuron, or an unknown site.
        ModelError: a neuron that the model does not have, a family that is not supported, or weights that are not
            floating-point matrices.
    """
    wanted, family = list(neurons), family_of(module.config)
    if not wanted:
        raise RecipeError("the set of neurons to train is empty", "Give at least one (layer, site, index).")
    check_neurons(wanted, n_layers=family.depth(module), widths=family.widths(module))
    groups: dict[tuple[int, Site], set[int]] = {}
    for layer, site, index in wanted:
        groups.setdefault((layer, checked_site(site)), set()).add(index)
    order = sorted(groups, key=lambda group: (group[0], SITES.index(group[1])))
    return tuple(
        _checked(
            module,
            Place(
                module=f"{family.layers}.{layer}.{matrix.path}",
                layer=layer,
                site=site,
                axis=matrix.axis,
                indices=tuple(sorted(groups[layer, site])),
                part=matrix.part,
            ),
        )
        for layer, site in order
        for matrix in family.weights[site]
    )


def matrices_at(site: Site, layer: int, module: str) -> list[Matrix]:
    """What a module of a layer may hold of a site in any family, by its path from the model's root."""
    every = (matrix for family in FAMILIES.values() for matrix in family.weights[site])
    return [matrix for matrix in every if module.endswith(f".{layer}.{matrix.path}")]


def neurons_of(places: Iterable[Place]) -> list[Neuron]:
    """(layer, site, index) of every neuron of the places, each once: an ffn neuron has places in several matrices."""
    return list(dict.fromkeys((place.layer, place.site, index) for place in places for index in place.indices))


def _checked(module: Any, place: Place) -> Place:
    weight = module.get_submodule(place.module).weight
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ModelError(
            f"The weights of {place.module} are {weight.dtype} of shape {tuple(weight.shape)}, and cannot be trained.",
            "Load the model unquantised, in float32 or bfloat16.",
        )
    return place


def weight_of(module: Any, place: Place) -> Tensor:
    """The matrix, [output, input]; gathered if the model is sharded (then every process must call this)."""
    weight = module.get_submodule(place.module).weight
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def span_of(module: Any, place: Place) -> tuple[int, int]:
    """The first row (or column) of a matrix in which a place's neurons may lie, and the one after the last."""
    if place.part is None:
        return 0, module.get_submodule(place.module).weight.shape[0 if place.axis == "row" else 1]
    family = family_of(module.config)
    above = f"{family.layers}.{place.layer}"
    return family.bounds(family.part(module, above), place.module.removeprefix(f"{above}."), place.part)


def numbers_of(module: Any, place: Place, device: Any) -> Int[Tensor, " neuron"]:
    """The numbers of the rows (or columns) of a place in its matrix."""
    return torch.tensor(place.indices, device=device) + span_of(module, place)[0]


def read_rows(module: Any, place: Place) -> Float[Tensor, "neuron width"]:
    """The weights of each neuron of the place: its row, or its column laid down as a row. A copy."""
    weight = weight_of(module, place)
    chosen = numbers_of(module, place, weight.device)
    with torch.no_grad():
        return weight[chosen].clone() if place.axis == "row" else weight[:, chosen].T.contiguous()


def write_rows(module: Any, place: Place, rows: Float[Tensor, "neuron width"]) -> None:
    """Writes rows as `read_rows` gives them, in place."""
    weight = weight_of(module, place)
    chosen, rows = numbers_of(module, place, weight.device), rows.to(weight)
    with torch.no_grad():
        if place.axis == "row":
            weight[chosen] = rows
        else:
            weight[:, chosen] = rows.T
