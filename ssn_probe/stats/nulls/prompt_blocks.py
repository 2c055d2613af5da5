"""Prompts that exchange labels among themselves, and means in which nothing but a label is contrasted.

A block (a minimal pair, or a stratum) with many harmful prompts would carry what is peculiar to it into a difference of
means, under every labelling. So means are weighted by blocks (Cochran 1954; Mantel & Haenszel 1959): a block with h
harmful and b harmless units counts h·b/(h + b) on both sides. What all prompts of a block have in common then drops out
of the difference, and its mean over exchanged labels is 0.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

PRECISION = 2.0**20
"""Weights are multiples of 1/PRECISION: products with float32 effects, and sums of them, are then nearly exact in
float64, so that equal effects have equal means under every labelling."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """`code` [prompt]: of its block, −1 for prompts in none; `share` [prompt]: of its unit that a prompt makes up."""

    code: np.ndarray
    share: np.ndarray

    def weights(self, harmful: np.ndarray, harmless: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weights of prompts that count as harmful or harmless, from 0 or 1: float64 [sample, prompt] each."""
        from scipy.sparse import csr_matrix

        inside = np.flatnonzero(self.code >= 0)
        blocks = int(self.code.max(initial=-1)) + 1
        member = csr_matrix((np.ones(len(inside)), (inside, self.code[inside])), shape=(len(self.code), blocks))
        sides = [side * self.share for side in (harmful, harmless)]
        counts = [side @ member for side in sides]  # units [sample, block]
        either = np.maximum(counts[0] + counts[1], 1 / PRECISION)
        other = [(counts[1] / either)[:, self.code], (counts[0] / either)[:, self.code]]
        found = [rounded(side * part * (self.code >= 0)) for side, part in zip(sides, other, strict=True)]
        return found[0], found[1]


def rounded(weights: np.ndarray) -> np.ndarray:
    return np.round(weights * PRECISION) / PRECISION


def blocks_of(prompts: pl.DataFrame) -> Blocks | None:
    """The blocks of prompts whose labels are exchanged (columns `block`, `share`); None for labels as they are."""
    if "block" not in prompts.columns:
        return None
    return Blocks(code=prompts["block"].to_numpy(), share=prompts["share"].to_numpy())
