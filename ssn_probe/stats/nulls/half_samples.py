"""Disjoint samples of the prompts: complementary halves, and smaller ones for the curve.

Units (`label_exchange.units`) are never split, so that near-copies of a prompt are always on the same side. Units of
harmful prompts, of harmless prompts and of both are divided separately; a prompt's translations follow its id.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.array_selection import LABELS, Samples
from ssn_probe.stats.nulls.label_exchange import draw_labels, exchange, units

LEAST = 2
"""The fewest units of each label in a sample: a single unit gives no useful mean."""

DROPPED = 3
"""The kind of a unit that takes no part."""

PARTS = (16, 8, 4)
"""The sizes of the curve's samples below the halves: a 16th, an 8th and a quarter of the prompts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplePlan:
    """All samples of a study of stability, and the rows of each kind; slices consist of whole pairs.

    `curve`: from the smallest samples to the halves. `observed` and `null` are halves of the prompts whose labels
    exchange, under the true labels and under each permutation; their means are weighted by blocks, as all are of
    prompts under exchanged labels.
    """

    samples: Samples
    halves: slice
    curve: tuple[slice, ...]
    observed: slice
    null: tuple[slice, ...]


def halves(prompts: pl.DataFrame, pairs: int = 50, seed: int = 0) -> Samples:
    """Complementary half-samples: rows 2i and 2i + 1 are disjoint and of as many units, [2 · pair, prompt].

    Of an odd number of units one is left out. Raises DataError for fewer than two units of each label per half.
    """
    unit = units(prompts)
    kinds = kinds_of(unit, prompts["harmful"].to_numpy())
    _check_enough(kinds)
    taken = disjoint(kinds, 2, pairs, np.random.default_rng(seed))
    return as_samples(taken, unit, prompts["harmful"].to_numpy())


def kinds_of(unit: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """The kind of every unit, [unit]: 0 harmless prompts, 1 harmful prompts, 2 both; a plan adds 3, DROPPED."""
    some, other = (np.bincount(unit, weights=side) > 0 for side in (harmful, ~harmful))
    return np.where(some & other, 2, some.astype(int))


def enough(kinds: np.ndarray, parts: int) -> bool:
    """Does a sample of 1/`parts` of the units have at least two of each label?"""
    harmless, harmful, both = (np.bincount(kinds, minlength=4)[:DROPPED] // parts).tolist()
    return min(harmless, harmful) + both >= LEAST


def disjoint(kinds: np.ndarray, parts: int, pairs: int, random: np.random.Generator) -> np.ndarray:
    """Pairs of disjoint samples, each with 1/`parts` (parts ≥ 2) of every kind of unit: bool [2 · pair, unit]."""
    taken = np.zeros((2 * pairs, len(kinds)), dtype=bool)
    for kind in np.unique(kinds[kinds != DROPPED]):
        members = np.flatnonzero(kinds == kind)
        size = len(members) // parts
        order = random.permuted(np.tile(members, (pairs, 1)), axis=1)
        for side in (0, 1):
            rows = np.arange(side, 2 * pairs, 2)[:, None]
            taken[rows, order[:, side * size : (side + 1) * size]] = True
    return taken


def as_samples(taken: np.ndarray, unit: np.ndarray, labels: np.ndarray) -> Samples:
    """Samples of prompts from samples of units: bool [sample, prompt]; `labels` bool [prompt] or [sample, prompt]."""
    chosen = taken[:, unit]
    return Samples(harmful=chosen & labels, harmless=chosen & ~labels)


def plan_samples(
    prompts: pl.DataFrame, present: np.ndarray, *, pairs: int, seed: int, permutations: int, null_pairs: int
) -> SamplePlan:
    """Halves, smaller samples for the curve, and halves under permuted labels. Raises DataError for too few prompts.

    There are no halves under permuted labels where the strata are so small that some half has no mean.
    `present` bool [language, prompt]: a size at which some sample lacks a language is left out of the curve.
    """
    random = np.random.default_rng([seed, 1])
    unit, harmful = units(prompts), prompts["harmful"].to_numpy()
    kinds = kinds_of(unit, harmful)
    small = [
        as_samples(disjoint(kinds, parts, pairs, random), unit, harmful) for parts in PARTS if enough(kinds, parts)
    ]
    smaller = [samples for samples in small if _everywhere(samples, present)]
    null = _permuted(prompts, unit, permutations, null_pairs, random) if permutations else []
    blocks = exchange(prompts).blocks if null or "block" in prompts.columns else None
    if null and not _everywhere(replace(_joined(null), blocks=blocks), present):
        null = []  # a half without a stratum that has both labels has no weighted means
    parts = [halves(prompts, pairs, seed), *smaller, *null]
    ends = np.cumsum([len(part) for part in parts]).tolist()
    rows = [slice(end - len(part), end) for part, end in zip(parts, ends, strict=True)]
    first_null = 1 + len(smaller)
    exchanged = "block" in prompts.columns
    return SamplePlan(
        samples=replace(
            _joined(parts),
            blocks=blocks,
            weighted=np.arange(ends[-1]) >= (0 if exchanged else rows[first_null - 1].stop),
        ),
        halves=rows[0],
        curve=(*rows[1:first_null], rows[0]),
        observed=rows[first_null] if null else slice(0, 0),
        null=tuple(rows[first_null + 1 :]),
    )


def _joined(parts: list[Samples]) -> Samples:
    """One after the other, of labels as they are."""
    sides = ([getattr(part, name) for part in parts] for name in LABELS)
    harmful, harmless = (np.concatenate(side) for side in sides)
    return Samples(harmful=harmful, harmless=harmless)


def _everywhere(samples: Samples, present: np.ndarray) -> bool:
    """Does every sample have prompts of both labels in every language?"""
    return all(side.sum(axis=1).min() > 0 for here in present for side in samples.weights(here))


def _permuted(
    prompts: pl.DataFrame, unit: np.ndarray, permutations: int, pairs: int, random: np.random.Generator
) -> list[Samples]:
    """Halves of the prompts whose labels exchange, under the true labels and under every permutation."""
    drawn, kept = draw_labels(prompts, permutations, int(random.integers(2**31)))
    here = np.bincount(unit, weights=kept) > 0
    found = []
    for labels in [prompts["harmful"].to_numpy(), *drawn]:
        kinds = np.where(here, kinds_of(unit, labels), DROPPED)
        _check_enough(kinds)
        found.append(as_samples(disjoint(kinds, 2, pairs, random), unit, labels))
    return found


def _check_enough(kinds: np.ndarray) -> None:
    if not enough(kinds, 2):
        raise DataError(
            "too few prompts for half-samples: each half needs 2 harmful and 2 harmless clusters",
            "Give more prompts, 200 a side, or smaller clusters.",
        )
