"""Sets found anew under other labels, many at a time: a comparison takes a hundred, and effects are large to read.

The sets of `TOGETHER` successive draws are found in one sweep over the effects and kept in the cache. Which draws these
are depends on no one's wishes, so that a draw is the same set however many are asked for.
"""

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import polars as pl

from ssn_probe.neurons import EVERY, KEYS, NEURON, NeuronSet
from ssn_probe.spec import Exchanged, Labels, Placebo, SafetyNeurons
from ssn_probe.study.contrast_effects import prompt_effects
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.workbench import Workbench

if TYPE_CHECKING:
    from ssn_probe.stats.nulls.false_discoveries import Discoveries

TOGETHER = 25
"""Draws that are found in one sweep: the observed labels and 99 exchanges read all effects four times."""


def relabelled_set(bench: Workbench, node: SafetyNeurons) -> NeuronSet:
    """The neurons that a node takes under its labels, with their scores; a set may be empty."""
    rows = _found(bench, node).filter(pl.col("language") != EVERY)
    return NeuronSet(rows.select(*KEYS, "score"), bench.data[node.prompts].languages)


def relabelled_by_mean(bench: Workbench, node: SafetyNeurons) -> NeuronSet:
    """The same from the effect averaged over languages, language-free."""
    return NeuronSet(_found(bench, node).filter(language=EVERY).select(*KEYS, "score"), (EVERY,))


def relabelled_mean_score(bench: Workbench, node: SafetyNeurons) -> pl.DataFrame:
    """The score of the effect averaged over languages, of every neuron that any language takes."""
    rows = _found(bench, node).filter(pl.col("language") != EVERY).unique(NEURON, maintain_order=True)
    return rows.select(*NEURON, score="mean")


def discoveries_of(bench: Workbench, node: SafetyNeurons) -> "Discoveries":
    """Every neuron's q-value, under the node's labels."""
    from ssn_probe.stats.nulls.false_discoveries import Discoveries, discoveries

    effects, rate = prompt_effects(bench, node), node.fdr
    assert rate is not None
    inputs = bench.inputs("discoveries", evidence=effects.key, rate=rate)
    names = [field.name for field in fields(Discoveries)]
    return Discoveries(**bench.frames(inputs, names, lambda: vars(discoveries(effects, rate=rate))))


def _found(bench: Workbench, node: SafetyNeurons) -> pl.DataFrame:
    labels = node.labels
    assert labels is not None
    number = _number(labels)
    first = number - number % TOGETHER
    plain, numbers = replace(node, labels=None), range(first, first + TOGETHER)

    def compute() -> pl.DataFrame:
        evidence = prompt_effects(bench, plain).key
        chosen = resolved_key(plain, bench.subject.identity, bench.data)
        drawn = {"labels": type(labels).__name__, "seed": labels.seed, "first": first, "sets": TOGETHER}
        inputs = bench.inputs("label sets", evidence=evidence, chosen=chosen, **drawn)
        return bench.frames(inputs, ["sets"], lambda: {"sets": _swept(bench, node, numbers)})["sets"]

    key = ("label sets", plain, type(labels), labels.seed, first)
    return bench.remember(key, compute).filter(labels=number).drop("labels")


def _number(labels: Labels) -> int:
    assert isinstance(labels, Exchanged | Placebo)
    return labels.draw if isinstance(labels, Exchanged) else labels.split


def _numbered(labels: Labels, number: int) -> Labels:
    assert isinstance(labels, Exchanged | Placebo)
    return replace(labels, draw=number) if isinstance(labels, Exchanged) else replace(labels, split=number)


def _swept(bench: Workbench, node: SafetyNeurons, numbers: range) -> pl.DataFrame:
    from ssn_probe.stats.nulls.false_discoveries import null_bins
    from ssn_probe.stats.nulls.label_sets import discovered_under, ranked_under, stable_under
    from ssn_probe.stats.nulls.parallel_units import all_parallel

    assert node.labels is not None
    relabelled = {number: replace(node, labels=_numbered(node.labels, number)) for number in numbers}
    labelled = {number: prompt_effects(bench, one) for number, one in relabelled.items()}
    if node.fdr is not None:
        # Permuted labels are the observed ones permuted; where all prompts take part alike, their null is known.
        known = isinstance(node.labels, Exchanged) and all_parallel(prompt_effects(bench, replace(node, labels=None)))
        first = None if known else _numbered(node.labels, 0)
        null = null_bins(discoveries_of(bench, replace(node, labels=first)).null)
        return discovered_under(labelled, null, node.fdr)
    return ranked_under(labelled, node) if node.stable is None else stable_under(labelled, node, node.stable)
