"""Every set under every labelling, pool group by pool group: for the permutation null and for the half-samples."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from ssn_probe.errors import RecipeError
from ssn_probe.neurons import EVERY
from ssn_probe.spec import SafetyNeurons, SetExpression, Shared
from ssn_probe.spec.node import walk
from ssn_probe.stats.nulls.array_selection import Samples, Taken, taken
from ssn_probe.stats.nulls.mask_algebra import MaskAlgebra, MaskSet, asked_of, chooser
from ssn_probe.stats.nulls.prompt_effects import Group, PromptEffects, groups

BLOCK_BYTES = 2**26
"""What the masks of one set may take at a time."""

Visit = Callable[[str, slice, MaskSet], None]
"""Called with a set's name, the samples (from an even one on) and the set's masks in a pool group."""


def sweep(
    effects: PromptEffects, sets: Mapping[str, SetExpression], samples: Samples, *, anchor: str | None, visit: Visit
) -> None:
    """Evaluate every set in every sample. Raises RecipeError for a set without a null, and what `means` raises."""
    choosers = _choosers(sets)
    for pool in sorted({node.pool for node in choosers.values()}):
        here = {name: sets[name] for name, node in choosers.items() if node.pool == pool}
        asked = asked_of(here.values())
        for group in groups(effects, pool):
            for rows in blocks(len(samples), group):
                some = samples if rows == slice(0, len(samples)) else samples[rows]  # that keeps its weights
                algebra = _algebra(effects, group, anchor, taken(group, some, asked))
                for name, expression in here.items():
                    visit(name, rows, algebra.evaluate(expression))


def first_of_equal(sets: Mapping[str, SetExpression]) -> dict[str, str]:
    """Of every set the first that is the same expression: several arms may do different things to one set."""
    first: dict[SetExpression, str] = {}
    return {name: first.setdefault(expression, name) for name, expression in sets.items()}


def named_alike(found: pl.DataFrame, first: Mapping[str, str]) -> pl.DataFrame:
    """The rows of every set, whose first equal one has them in `found` (column `set`)."""
    rows = [found.filter(set=one).with_columns(set=pl.lit(name)) for name, one in first.items()]
    return pl.concat(rows) if rows else found


def languages_of(effects: PromptEffects, expression: SetExpression, anchor: str | None) -> tuple[str, ...]:
    """The languages that a set has, `("*",)` when it is language-free, without reading an effect."""
    chooser(expression)
    site = np.array([effects.places[0][1]])
    group = Group(effects={}, present={}, layers=np.zeros(1, int), sites=site, index=np.zeros(1, int))
    nothing = Taken(own=np.zeros((1, len(effects.languages), 1), bool), mean=np.zeros((1, 1, 1), bool))
    return _algebra(effects, group, anchor, {chooser(expression): nothing}).evaluate(expression).languages


def combines_languages(effects: PromptEffects, expression: SetExpression, anchor: str | None) -> bool:
    """Is a set made of what several languages have, so that their labels must be exchanged together?"""
    shared = any(isinstance(inner, Shared) for inner in walk(expression))
    return shared or languages_of(effects, expression, anchor) == (EVERY,)


def _choosers(sets: Mapping[str, SetExpression]) -> dict[str, SafetyNeurons]:
    found = {name: chooser(expression) for name, expression in sets.items()}
    # The fields that only turn effects into a set may differ; the effects themselves may not.
    contrasts = {replace(node, rule="difference", top=None, pool="site") for node in found.values()}
    if len(contrasts) > 1:
        raise RecipeError(
            "the sets contrast different prompts, effects or sites, so they have no null in common",
            "Ask for the null of each set by itself.",
        )
    return found


def blocks(samples: int, group: Group) -> Iterator[slice]:
    """As many samples at a time as fit into memory."""
    # An even number: pairs of half-samples stay together.
    size = 2 * max(1, BLOCK_BYTES // (2 * len(group.effects) * len(group.index)))
    for first in range(0, samples, size):
        yield slice(first, min(first + size, samples))


def _algebra(
    effects: PromptEffects, group: Group, anchor: str | None, found: Mapping[SafetyNeurons, Taken]
) -> MaskAlgebra:
    return MaskAlgebra(taken=found, languages=effects.languages, group=group, anchor=anchor)
