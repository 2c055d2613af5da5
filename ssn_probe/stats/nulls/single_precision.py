"""Which neurons a rule takes under many labellings, in single precision wherever that decides it.

A score is a weighted sum of a neuron's effects. In single precision it takes half the time, or less, and its error is
bounded: |fl(c·x) − c·x| ≤ γ·Σ|c||x| in whatever order n products are summed, γ = n·u/(1 − n·u), u = 2⁻²⁴ (Higham 2002,
equation 3.5). Where no neuron is so close to the threshold of its pool that the bound could move it across, the sample
is decided: the neurons taken are those that double precision takes. All others are left to double precision.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssn_probe.neurons.selection import places, selected

UNIT = 2.0**-24
"""Half the distance from 1 to the next number in single precision."""
FURTHER = 16
"""Roundings beside those of the sum: of a weight, of the bound and of what is added to it, of double precision."""
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), 1e37
"""The smallest number with all its digits, which a product may miss by; sums of effects below which none overflows."""
SCORES_BYTES = 2**20
"""What the scores of one label may take at a time, so that they are ranked before they leave the cache."""


@dataclass(frozen=True)
class Mix:
    """So much of the mean over harmful prompts, and so much of that over harmless ones."""

    harmful: float
    harmless: float

    def __sub__(self, other: "Mix") -> "Mix":
        return Mix(self.harmful - other.harmful, self.harmless - other.harmless)

    def __truediv__(self, parts: float) -> "Mix":
        return Mix(self.harmful / parts, self.harmless / parts)


HARMFUL, HARMLESS = Mix(1, 0), Mix(0, 1)


def weights_of(mix: Mix, harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
    """The weight of every prompt in a mix, float32 [sample, prompt], up to a positive factor per sample: at most 1.

    From the weights in the two means, float64 [sample, prompt] each, which add up to any number above 0.
    """
    found = harmful * (mix.harmful / harmful.sum(axis=1, keepdims=True))
    found += harmless * (mix.harmless / harmless.sum(axis=1, keepdims=True))
    largest = np.abs(found).max(axis=1, keepdims=True)
    return (found / np.where(largest > 0, largest, 1)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Screened:
    """The effects of a language, float32 [prompt, neuron], and by how much a sum of them may be wrong, [neuron].

    The weights of a sum are at most 1, so that one bound holds under every labelling.
    """

    effects: np.ndarray
    error: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        prompts = len(self.effects)
        unit = min(0.5, (prompts + FURTHER) * UNIT)
        size = np.abs(self.effects).sum(axis=0, dtype=np.float64)
        error = np.where(size > 0, size * unit / (1 - unit) + prompts * SMALLEST, 0)
        # An infinite bound decides nothing.
        object.__setattr__(self, "error", np.where(size < LARGEST, error, np.inf).astype(np.float32))

    def taken(self, rule: str, top: float, weights: dict[Mix, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The neurons that a rule takes, bool [sample, neuron], and the samples in which that is certain, [sample].

        `weights`: those of every mix that the rule ranks by.
        """
        certain = np.ones(len(next(iter(weights.values()))), dtype=bool)

        def in_top(mix: Mix) -> np.ndarray:
            chosen, sure = self._in_top(weights[mix], top)
            certain[~sure] = False
            return chosen

        return selected(rule, *_mixes(), in_top), certain

    def _in_top(self, weights: np.ndarray, top: float) -> tuple[np.ndarray, np.ndarray]:
        """Which scores are positive and among the largest, bool [sample, neuron]; in which samples that is certain."""
        samples, n = len(weights), self.effects.shape[1]
        chosen, certain = np.zeros((samples, n), dtype=bool), np.ones(samples, dtype=bool)
        k = places(n, top)
        if k <= 0:
            return chosen, certain
        if not np.isfinite(self.error).all():
            return chosen, ~certain
        size = max(1, SCORES_BYTES // (4 * n))
        buffers = [np.empty((min(size, samples), n), dtype=np.float32) for _ in range(2)]
        for first in range(0, samples, size):
            rows = slice(first, min(first + size, samples))
            score, least = (buffer[: rows.stop - first] for buffer in buffers)
            np.matmul(weights[rows], self.effects, out=score)
            np.subtract(score, self.error, out=least)
            least.partition(n - k, axis=-1)
            threshold = least[:, n - k, None]  # k neurons have this score or a larger one
            most = np.add(score, self.error, out=score)
            possible = np.greater_equal(most, np.maximum(threshold, SMALLEST), out=chosen[rows])
            # Of k neurons or fewer that may be in the top none competes with another: is every one's score positive?
            certain[rows] = np.count_nonzero(possible, axis=-1) <= k
            if (few := threshold[:, 0] <= 0).any():
                least_of_few = most[few] - 2 * self.error
                certain[rows][few] &= ~(possible[few] & (least_of_few <= 0)).any(axis=-1)
        return chosen, certain


def ranked_by(rule: str) -> list[Mix]:
    """What a rule ranks neurons by."""
    found: list[Mix] = []
    selected(rule, *_mixes(), lambda mix: [found.append(mix), np.ones(1, dtype=bool)][1])
    return found


def _mixes() -> tuple[Any, Any]:
    """The two means, for functions of a rule that hold for numbers and for weights alike."""
    return HARMFUL, HARMLESS
