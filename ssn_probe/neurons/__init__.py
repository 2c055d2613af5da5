"""Which neurons, in which language: sets, their algebra, files, selection, controls and overlaps, in polars."""

from ssn_probe.neurons.neuron_file import read_neurons
from ssn_probe.neurons.neuron_set import (
    EVERY,
    KEYS,
    LANGUAGE,
    NEURON,
    SCHEMA,
    SITES,
    NeuronSet,
    Site,
    checked_site,
    neuron_set,
)

__all__ = [
    "EVERY",
    "KEYS",
    "LANGUAGE",
    "NEURON",
    "SCHEMA",
    "SITES",
    "NeuronSet",
    "Site",
    "checked_site",
    "neuron_set",
    "read_neurons",
]
