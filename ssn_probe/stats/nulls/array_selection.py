"""Top-p selection on arrays, for many labellings of the same prompts at once: `select_neurons` for each of them.

A test compares the two implementations: the same rules, the same order of ties, the same `k`.
"""

from dataclasses import dataclass

import numpy as np

from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.prompt_blocks import Blocks
from ssn_probe.stats.nulls.prompt_effects import Group

LABELS = ("harmful", "harmless")


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Which prompts count as harmful and which as harmless: bool [sample, prompt] each; no prompt counts as both.

    With `blocks`, the means of the samples in `weighted` (bool [sample], None: of all) are weighted by them.
    """

    harmful: np.ndarray
    harmless: np.ndarray
    blocks: Blocks | None = None
    weighted: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.harmful)

    def __getitem__(self, rows: slice) -> "Samples":
        weighted = None if self.weighted is None else self.weighted[rows]
        return Samples(harmful=self.harmful[rows], harmless=self.harmless[rows], blocks=self.blocks, weighted=weighted)

    def weights(self, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much every prompt counts in the harmful and in the harmless mean, float64 [sample, prompt] each.

        `present` bool [prompt]: 0 for the others. Weights add up to any number. Prompts of a block with h harmful and b
        harmless units share b/(h + b) per harmful unit and h/(h + b) per harmless one: h·b/(h + b) on either side.
        """
        harmful, harmless = ((side & present).astype(np.float64) for side in (self.harmful, self.harmless))
        if self.blocks is None:
            return harmful, harmless
        whole = np.ones(len(self), dtype=bool) if self.weighted is None else self.weighted
        found = self.blocks.weights(harmful[whole], harmless[whole])
        harmful[whole], harmless[whole] = found
        return harmful, harmless


def means(group: Group, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Mean effects in every sample: harmful and harmless, float64 [sample, language, neuron] each.

    Raises DataError where a language has no prompt of a label in some sample.
    """
    sides = [np.empty((len(samples), len(group.effects), len(group.index))) for _ in LABELS]
    for position, (language, effects) in enumerate(group.effects.items()):
        values = effects.astype(np.float64)
        for found, weights, name in zip(sides, samples.weights(group.present[language]), LABELS, strict=True):
            total = weights.sum(axis=1)
            check_present(total, language, name)
            # Sums of a few hundred float32 are nearly exact in float64: equal effects have equal means under every
            # labelling, and their difference is exactly 0.
            found[:, position] = weights @ values
            found[:, position] /= total[:, None]
    return sides[0], sides[1]


def check_present(total: np.ndarray, language: str, name: str) -> None:
    """Raises DataError where the weights of a label's prompts add up to nothing in some sample, [sample]."""
    if total.min() <= 0:
        raise DataError(
            f"{language} has no {name} prompt in some of the samples",
            f"Give {language} more prompts, or leave the language out.",
        )


def overlaps(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many neurons two packed masks share, [...] from [..., byte] (`np.packbits` along the last axis)."""
    return np.bitwise_count(left & right).sum(axis=-1, dtype=np.int64)
