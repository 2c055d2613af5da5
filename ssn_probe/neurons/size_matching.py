"""Sets of a given size by the same procedure: what a rule takes is enlarged, and the strongest are kept."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf

import numpy as np

from ssn_probe.neurons.neuron_set import NeuronSet, language_rows
from ssn_probe.spec import SafetyNeurons, SetExpression, Trains, WholeLayers
from ssn_probe.spec.neuron_sets import RULES
from ssn_probe.spec.node import Node, rewrite, walk

FACTORS = (1, 2, 4, 8, 16, 32)
"""How many times as many neurons a rule takes, until there are enough."""


def sizes_of(neurons: NeuronSet) -> dict[str, int]:
    """How many neurons every language has."""
    return dict.fromkeys(neurons.languages, 0) | dict(neurons.frame.group_by("language").len().iter_rows())


def matched(found: Callable[[int], NeuronSet], sizes: Mapping[str, int]) -> NeuronSet:
    """The set with as many neurons per language as in `sizes`: the strongest of the smallest set that has enough.

    `found`: a factor of `FACTORS` → the set of a rule that takes so many times as many neurons. Where even the last one
    has too few in a language, all of them are kept, and the set is smaller there. Languages without a size keep all.
    """
    for factor in FACTORS:
        neurons = found(factor)
        here = sizes_of(neurons)
        if all(here[language] >= sizes.get(language, 0) for language in here):
            break
    frame = neurons.in_order().frame
    score, kept = frame["score"].fill_null(-inf).to_numpy(), np.ones(frame.height, dtype=bool)
    for language, rows in language_rows(frame):
        strongest_first = np.argsort(-score[rows], kind="stable")
        kept[rows.start + strongest_first[sizes.get(language, frame.height) :]] = False
    return NeuronSet(frame.filter(kept), neurons.languages)


def enlarged(expression: SetExpression, factor: int) -> SetExpression | None:
    """The same expression, with rules that take `factor` times as many neurons; None where none decides on the size.

    `fdr` takes all that pass and can take no more, so the largest differences take its part, as many as the rule takes
    without it; with `stable`, more neurons are stable where more are taken from each half-sample.
    """
    if any(isinstance(node, WholeLayers) for node in walk(expression)):
        return None

    def changed(node: Node) -> Node:
        if not isinstance(node, SafetyNeurons):
            return node
        top = RULES[node.rule] if node.top is None else node.top
        return replace(node, top=min(1.0, top * factor), fdr=None)

    found = rewrite(expression, changed, leave=Trains)
    assert isinstance(found, SetExpression)
    return found
