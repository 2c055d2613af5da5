"""How far drawn sets are from the set that they are drawn for."""

from collections.abc import Iterable

import numpy as np

from ssn_probe.neurons import NeuronSet


def differing(neurons: NeuronSet, drawn: Iterable[NeuronSet]) -> float:
    """How many of a set's neurons the drawn sets lack on average; with 0, nothing can be compared with them."""
    return float(np.mean([len(neurons - other) for other in drawn]))
