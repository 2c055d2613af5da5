"""Every set under every labelling, pool group by pool group: the loop that the permutation and the halves share."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from ssn_probe.errors import RecipeError
from ssn_probe.spec import SafetyNeurons, SetExpression
from ssn_probe.stats.nulls.array_selection import Samples, means
from ssn_probe.stats.nulls.mask_algebra import Masked, Means, chooser, evaluate
from ssn_probe.stats.nulls.prompt_effects import Evidence, Group, groups

BLOCK_BYTES = 2**26
"""What the means of one context may take at a time; selecting holds five to eight times as much."""

Visit = Callable[[str, slice, Group, Masked], None]
"""Called with a set's name, the samples (from an even one on), the pool group and the set's mask there."""


def sweep(
    evidence: Evidence, sets: Mapping[str, SetExpression], samples: Samples, *, anchor: str | None, visit: Visit
) -> None:
    """Evaluate every set in every sample. Raises RecipeError for a set without a null, and what `means` raises."""
    choosers = _choosers(sets)
    for pool in sorted({node.pool for node in choosers.values()}):
        here = {name: sets[name] for name, node in choosers.items() if node.pool == pool}
        for group in groups(evidence, pool):
            for rows in _blocks(len(samples), group):
                found = _means(evidence, group, samples[rows], anchor)
                for name, expression in here.items():
                    visit(name, rows, group, evaluate(expression, found))


def languages_of(evidence: Evidence, expression: SetExpression, anchor: str | None) -> tuple[str, ...]:
    """The languages that a set has, `("*",)` when it is language-free, without reading an effect."""
    chooser(expression)
    nothing = np.zeros((1, len(evidence.languages), 1))
    shape = {"layers": np.zeros(1, dtype=int), "sites": np.array([evidence.places[0][1]])}
    empty = Means(harmful=nothing, harmless=nothing, languages=evidence.languages, anchor=anchor, **shape)
    return evaluate(expression, empty).languages


def _choosers(sets: Mapping[str, SetExpression]) -> dict[str, SafetyNeurons]:
    found = {name: chooser(expression) for name, expression in sets.items()}
    # What only turns effects into a set may differ; the effects themselves may not.
    traces = {replace(node, rule="difference", top=None, pool="site") for node in found.values()}
    if len(traces) > 1:
        raise RecipeError(
            "the sets contrast different prompts, effects or sites: one evidence cannot speak for all of them",
            "Ask for their nulls one by one.",
        )
    return found


def _blocks(samples: int, group: Group) -> Iterator[slice]:
    # An even number: pairs of half-samples stay together.
    size = 2 * max(1, BLOCK_BYTES // (16 * len(group.effects) * len(group.index)))
    for first in range(0, samples, size):
        yield slice(first, min(first + size, samples))


def _means(evidence: Evidence, group: Group, samples: Samples, anchor: str | None) -> Means:
    harmful, harmless = means(group, samples)
    return Means(
        harmful=harmful,
        harmless=harmless,
        languages=evidence.languages,
        layers=group.layers,
        sites=group.sites,
        anchor=anchor,
    )
