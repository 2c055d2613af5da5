"""All neurons, one by one, and where the effects of some belong among those of all."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.model.subject import Subject
from ssn_probe.neurons import Site
from ssn_probe.tracing.kept_values import Neuron


def all_neurons(subject: Subject, sites: Iterable[Site]) -> list[Neuron]:
    """Every neuron of some sites, in forward order."""
    layers, wanted = range(subject.n_layers), list(sites)
    return [(layer, site, index) for layer in layers for site in wanted for index in range(subject.widths[site])]


def placed(
    subject: Subject, sites: Iterable[Site], neurons: Sequence[Neuron], effects: Float[Tensor, "prompt ablated"]
) -> dict[str, Float[Tensor, "prompt layer neuron"]]:
    """The effects of some neurons where they belong among all, which have 0."""
    found: dict[str, Tensor] = {}
    for site in sites:
        here = [row for row, (_, place, _) in enumerate(neurons) if place == site]
        found[site] = torch.zeros(effects.shape[0], subject.n_layers, subject.widths[site], dtype=torch.float64)
        layers, indices = [neurons[row][0] for row in here], [neurons[row][2] for row in here]
        found[site][:, layers, indices] = effects[:, here].to(torch.float64)
    return found


def silenced(neurons: Sequence[Neuron]) -> dict[tuple[int, Site], tuple[list[int], list[int]]]:
    """(layer, site) → rows of the batch and indices: row i + 1 runs without neuron i, row 0 as it is."""
    silenced: dict[tuple[int, Site], tuple[list[int], list[int]]] = {}
    for row, (layer, site, index) in enumerate(neurons, start=1):
        rows, indices = silenced.setdefault((layer, site), ([], []))
        rows.append(row)
        indices.append(index)
    return silenced
