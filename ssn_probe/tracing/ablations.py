"""Effects by ablation: the model runs once without each neuron, many neurons in one pass."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import Site
from ssn_probe.tracing.batching import BatchSize, fitted
from ssn_probe.tracing.execution import run_body
from ssn_probe.tracing.kept_values import Neuron


def all_neurons(subject: Subject, sites: Iterable[Site]) -> list[Neuron]:
    """Every neuron of some sites, in forward order."""
    layers, wanted = range(subject.n_layers), list(sites)
    return [(layer, site, index) for layer in layers for site in wanted for index in range(subject.widths[site])]


def placed(
    subject: Subject, sites: Iterable[Site], neurons: Sequence[Neuron], effects: Float[Tensor, "ablated prompt"]
) -> dict[str, Float[Tensor, "prompt layer neuron"]]:
    """The effects of some neurons where they belong among all, which have 0."""
    found: dict[str, Tensor] = {}
    for site in sites:
        here = [row for row, (_, place, _) in enumerate(neurons) if place == site]
        found[site] = torch.zeros(effects.shape[1], subject.n_layers, subject.widths[site], dtype=torch.float64)
        layers, indices = [neurons[row][0] for row in here], [neurons[row][2] for row in here]
        found[site][:, layers, indices] = effects[here].T.to(torch.float64)
    return found


def moved_states(
    subject: Subject, prompt: Sequence[int], places: Any, position: str, size: BatchSize
) -> dict[str, Float[Tensor, "prompt layer neuron"]]:
    """How far the final state of one prompt moves without each neuron, `size` neurons a forward pass."""
    from ssn_probe.tracing.bodies.ablation import trace_ablations

    neurons = all_neurons(subject, places["sites"])
    found: list[Tensor] = []
    start = 0
    while start < len(neurons):

        def attempt(together: int) -> Tensor:
            chosen = neurons[start : start + together]  # noqa: B023 (called at once)
            inputs = whole_inputs(subject, [prompt] * (len(chosen) + 1))
            return run_body(subject, trace_ablations, inputs, places, silenced(chosen), position)

        found.append(fitted(size, attempt).cpu())
        start += len(found[-1])
    return placed(subject, places["sites"], neurons, torch.cat(found)[:, None])


def silenced(neurons: Sequence[Neuron]) -> dict[tuple[int, Site], tuple[list[int], list[int]]]:
    """(layer, site) → rows of the batch and indices: row i + 1 runs without neuron i, row 0 as it is."""
    silenced: dict[tuple[int, Site], tuple[list[int], list[int]]] = {}
    for row, (layer, site, index) in enumerate(neurons, start=1):
        rows, indices = silenced.setdefault((layer, site), ([], []))
        rows.append(row)
        indices.append(index)
    return silenced
