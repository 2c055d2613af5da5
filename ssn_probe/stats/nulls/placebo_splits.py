"""Harmless prompts against harmless prompts: many random halves that differ in nothing but chance.

What a set does that was found from such halves is what the method does without any difference. A single split would
show one of many figures, and a split by topic contrasts topics: so the halves are random, and balanced within topic and
length.
"""

from math import comb, log2

import numpy as np
import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.label_exchange import units

FEWEST_SPLITS = 19
"""The least number of sets that a set can be compared with at p ≤ .05."""


def placebo_split(prompts: pl.DataFrame, k: int, seed: int = 0) -> pl.DataFrame:
    """The harmless prompts, a random half of which takes the part of harmful ones (`harmful`): the k-th split.

    `prompts` as in `PromptEffects`, and optionally `topic` and `tokens`. In every topic × quarter of length the halves
    have as many units (equal clusters, or a common `pair_id`), or differ by one, and so they do in all. Nothing about
    harmful prompts has a part in it. `stratum` becomes what is balanced. Raises DataError where there are fewer than
    19 such splits.
    """
    rows = prompts.filter(~pl.col("harmful"))
    unit = units(rows) if rows.height else np.zeros(0, dtype=int)
    stratum = _strata(rows, unit)
    _check_enough(stratum)
    chosen = _halves(stratum, np.random.default_rng([seed, k]))
    names = pl.Series([str(code) for code in stratum[unit]])
    return rows.with_columns(harmful=pl.Series(chosen[unit]), stratum=names)


def _halves(stratum: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random half of the units of every stratum, bool [unit]; the odd ones of all strata are halved together."""
    order = np.lexsort([random.random(len(stratum)), stratum])
    last = np.append(np.diff(stratum[order]) > 0, True)
    odd = last & (np.bincount(stratum)[stratum[order]] % 2 == 1)
    order = order[np.argsort(odd, kind="stable")]
    flips = np.repeat(random.random((len(order) + 1) // 2) < 0.5, 2)[: len(order)]
    chosen = np.empty(len(order), dtype=bool)
    chosen[order] = (np.arange(len(order)) % 2 == 0) ^ flips  # one of every two neighbours
    return chosen


def _strata(rows: pl.DataFrame, unit: np.ndarray) -> np.ndarray:
    """The topic × quarter of length of every unit, [unit] codes; the topic is that of its first prompt."""
    topic = rows["topic"] if "topic" in rows.columns else rows["stratum"]
    tokens = rows["tokens"] if "tokens" in rows.columns else pl.zeros(rows.height, eager=True)
    found = (
        pl.DataFrame({"unit": unit, "topic": topic.fill_null(""), "tokens": tokens.cast(pl.Float64)})
        .group_by("unit", maintain_order=True)
        .agg(pl.col("topic").first(), pl.col("tokens").mean())
        .sort("unit")
    )
    named = found.select("topic", quarter=pl.Series(length_classes(found["tokens"].to_numpy())))
    return named.select(pl.struct("topic", "quarter").rank("dense")).to_series().to_numpy() - 1


def length_classes(lengths: np.ndarray, classes: int = 4) -> np.ndarray:
    """The quarter of every length (half, …), codes from 0; equal lengths are in one class."""
    if not len(lengths):
        return np.zeros(0, dtype=int)
    edges = np.unique(np.quantile(lengths, np.arange(1, classes) / classes))
    return np.searchsorted(edges, lengths, side="left")


def _check_enough(stratum: np.ndarray) -> None:
    sizes = np.bincount(stratum)
    odd = int((sizes % 2).sum())
    # A stratum of an odd size gives one more unit to either half, the next such stratum to the other one.
    splits = sum(log2(comb(size, size // 2)) for size in sizes.tolist()) + (odd + 1) // 2
    if len(stratum) < 2 or splits < log2(FEWEST_SPLITS) - 1e-9:
        raise DataError(
            f"the harmless identify prompts have too few balanced splits for a placebo: {len(stratum)} prompts "
            f"(clusters of prompts) have {round(2**splits) if len(stratum) > 1 else 0}, and {FEWEST_SPLITS} are needed",
            "Give more harmless prompts, or more of each topic.",
        )
