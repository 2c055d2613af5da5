"""Neurons that a linear probe leans on, and clusters of neurons that do the same: the two halves of NeST."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import KEYS, NeuronSet
from ssn_probe.neurons.activation_clusters import activation_clusters
from ssn_probe.neurons.linear_probe import in_deviations, probe_weights
from ssn_probe.neurons.neuron_set import SCHEMA
from ssn_probe.spec import NeST, ProbedNeurons, SafetyNeurons
from ssn_probe.study.importance import CONTRASTED, distinct_sites, effects_at
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.edits import Neuron


def probed(bench: Workbench, node: ProbedNeurons) -> NeuronSet:
    """The set that `ProbedNeurons` stands for; the score of a neuron is its weight in standard deviations.

    Raises:
        RecipeError: other labels than those that the prompts have.
        DataError: no neuron of a language is above the threshold.
    """
    if node.scored.labels is not None:
        raise RecipeError("ProbedNeurons have no null: a probe is fitted to the labels themselves", "Leave it out.")
    languages = bench.data[node.scored.prompts].languages
    rows = [row for language in languages for row in _above(bench, node, language)]
    frame = pl.DataFrame(rows, schema=[*KEYS, "score"], orient="row", schema_overrides=SCHEMA)
    without = sorted(set(languages) - set(frame["language"]))
    if without:
        hint = "Lower the threshold, or give more prompts."
        raise DataError(f"no neuron of {', '.join(without)} has a weight above {node.threshold:g}", hint)
    return NeuronSet(frame.sort(KEYS), languages)


def _above(bench: Workbench, node: ProbedNeurons, language: str) -> list[tuple[str, int, str, int, float]]:
    found = []
    for layer in range(bench.subject.n_layers):
        for site in distinct_sites(bench, node.scored):
            sides = [effects_at(bench, node.scored, language, context, layer, site) for context in CONTRASTED]
            harmful = np.repeat([True, False], [len(side) for side in sides])
            weights = probe_weights(np.concatenate(sides).astype(np.float64), harmful, node.penalty)
            deviations = in_deviations(weights)
            chosen = np.flatnonzero(deviations > node.threshold)
            found += [(language, layer, site, int(index), float(deviations[index])) for index in chosen]
    return found


def clusters_of(bench: Workbench, node: NeST, neurons: Sequence[Neuron]) -> dict[Neuron, int]:
    """The cluster of every neuron, counted in its layer.

    Raises RecipeError for neurons that the probe did not read, and for more clusters than a layer has neurons.
    """
    groups: dict[tuple[int, str], list[int]] = {}
    for layer, site, index in neurons:
        groups.setdefault((layer, site), []).append(index)
    read = distinct_sites(bench, node.profiled)
    if others := sorted({site for _, site in groups if site not in read}):
        raise RecipeError(f"the probe of NeST has not read {', '.join(others)}", f"It read {', '.join(read)}.")
    found: dict[Neuron, int] = {}
    for (layer, site), indices in groups.items():
        profiles = _profiles(bench, node.profiled, layer, site)[indices]
        try:
            options = {"count": node.clusters, "most": node.most, "seed": node.training.seed}
            clusters = activation_clusters(profiles, **options)
        except RecipeError as error:
            raise RecipeError(f"in layer {layer} {error.message}", error.hint) from error
        found |= {(layer, site, index): int(own) for index, own in zip(indices, clusters, strict=True)}
    return found


def _profiles(bench: Workbench, node: SafetyNeurons, layer: int, site: str) -> np.ndarray:
    """What every neuron of a place does on the prompts of the anchor, or of all languages: [neuron, prompt]."""
    languages = bench.data[node.prompts].languages
    read = (bench.anchor,) if bench.anchor in languages else languages
    sides = [
        effects_at(bench, node, language, context, layer, site)
        for language in read
        if language is not None
        for context in CONTRASTED
    ]
    return np.concatenate(sides).T.astype(np.float64)
