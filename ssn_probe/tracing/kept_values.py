"""Effects and sums of activations that lie on a shelf, as numpy arrays: whoever finds all there imports no torch.

The numbers are those that torch gives of the same values: bit for bit, where a layer has a multiple of 16 neurons.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssn_probe.neurons import SITES, Site
from ssn_probe.tracing.batching import Part, gather_array

Neuron = tuple[int, Site, int]
"""Layer, site, index."""
TOGETHER = 16
"""Terms that are added one after the other; then their sums are, so that rounding grows slowly with the prompts."""


def place(parts: Sequence[Part], layer: int, site: str) -> np.ndarray:
    """The effects at one layer and site, float32 [prompt, neuron], prompts in their order, without reading others."""
    shares = [
        part.array_at(f"values.{site}", layer).astype(np.float32) * part.array_at(f"scale.{site}", layer)[:, None]
        for part in parts
    ]
    effects = np.empty((sum(map(len, shares)), shares[0].shape[1]), np.float32)
    for part, share in zip(parts, shares, strict=True):
        effects[list(part.rows)] = share
    return effects


def mean_effects(parts: Sequence[Part], site: str) -> np.ndarray:
    """The importance of every neuron of a site, float64 [layer, neuron]: its mean effect over all prompts."""
    values, scale = (in_order(parts, f"{kind}.{site}") for kind in ("values", "scale"))
    return added_up(len(values), lambda some: values[some].astype(np.float32) * scale[some, :, None]) / len(values)


def in_order(parts: Sequence[Part], name: str) -> np.ndarray:
    """The values of all prompts of a shelf that has every one of them, at least one, in their order."""
    first = parts[0].array(name)
    whole = np.empty((sum(len(part.rows) for part in parts), *first.shape[1:]), first.dtype)
    return gather_array(parts, name, whole)


def mean_activations_of(parts: Sequence[Part]) -> dict[Site, np.ndarray]:
    """Site → mean activation, float64 [layer, neuron]: batches' sums over their tokens, by the number of all tokens."""
    tokens = sum(int(part.array("count")) for part in parts)

    def read(site: str) -> Callable[[slice], np.ndarray]:
        return lambda some: np.stack([part.array(site) for part in parts[some]])

    return {site: added_up(len(parts), read(site)) / tokens for site in SITES}


def added_up(count: int, read: Callable[[slice], np.ndarray]) -> np.ndarray:
    """The sum in double precision over `count` terms, at least one, of what `read` gives of some of them [term, …].

    Added up in the order in which torch adds along the first of several dimensions.
    """
    whole = count - count % TOGETHER
    total = np.zeros(()) if whole == count else read(slice(whole, count)).sum(axis=0, dtype=np.float64)
    sums, sums_of_sums = np.zeros(()), np.zeros(())
    for number, start in enumerate(range(0, whole, TOGETHER), start=1):
        sums = sums + read(slice(start, start + TOGETHER)).sum(axis=0, dtype=np.float64)
        if number % TOGETHER == 0:
            sums, sums_of_sums = np.zeros(()), sums_of_sums + sums
    return total + sums + sums_of_sums


def highest(means: Mapping[Any, Any], share: float) -> list[Neuron]:
    """The neurons that are highest in their layer and site, ceil(share · n) at most of n, in forward order.

    means: {site: [layer, neuron]}. A mean of zero is never taken; ties go to the lower index.
    """
    found: list[Neuron] = []
    for site, values in means.items():
        for layer, row in enumerate(np.asarray(values)):
            count = math.ceil(share * len(row) - 1e-9)
            taken = np.argsort(-row, kind="stable")[:count]
            found += [(layer, site, index) for index in taken.tolist() if row[index] > 0]
    return sorted(found, key=lambda neuron: (neuron[0], SITES.index(neuron[1]), neuron[2]))
