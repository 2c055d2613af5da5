"""A contrast as a sum over exchangeable units, so that its permutation variance has a closed form.

With effects x less the mean of their block, the difference of means that is weighted by blocks (`prompt_blocks`) is
T = Σ_harmful x / Σ h·b/(h + b). Labels enter it linearly. Where a language lacks prompts, the permuted statistic is T
with the observed counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssn_probe.errors import DataError
from ssn_probe.neurons import EVERY
from ssn_probe.stats.nulls.label_exchange import Exchange
from ssn_probe.stats.nulls.prompt_effects import Group


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast:
    """A language's difference of means at a place.

    `score` [neuron]: the difference. `unit` float64 [unit, neuron]: what a unit adds to T beyond its expectation, when
    multiplied by its weight in `weights`. `sd` [neuron]: the exact permutation standard deviation; 0 where relabelling
    changes nothing.
    """

    language: str
    score: np.ndarray
    unit: np.ndarray
    sd: np.ndarray

    @property
    def standardised(self) -> np.ndarray:
        """`unit` over `sd`, float32 [unit, neuron]; 0 where sd is 0."""
        return np.divide(self.unit, self.sd, out=np.zeros_like(self.unit), where=self.sd > 0).astype(np.float32)


def contrasts(group: Group, plan: Exchange) -> Iterator[Contrast]:
    """The contrast of every language, then that of the effect averaged over languages, `"*"`."""
    total = np.zeros((len(plan.harmful), len(group.index)))
    for language in group.effects:
        shares = _shares(group, language, plan)
        total += shares
        yield contrast(language, shares, plan)
    yield contrast(EVERY, total / len(group.effects), plan)


def _shares(group: Group, language: str, plan: Exchange) -> np.ndarray:
    """What every prompt adds to T when it is harmful, float64 [prompt, neuron]; 0 for prompts that do not take part."""
    from scipy.sparse import csr_matrix

    share = plan.blocks.share * plan.kept * group.present[language]
    block = np.maximum(plan.blocks.code, 0)
    harmful, harmless = (np.bincount(block, share * side) for side in (plan.harmful, ~plan.harmful))
    counted = harmful + harmless
    total = (harmful * harmless / np.maximum(counted, 1e-9)).sum()
    if not total:
        counts = (int((side * (share > 0)).sum()) for side in (plan.harmful, ~plan.harmful))
        raise DataError(
            "{} has {} harmful and {} harmless prompts that exchange their labels".format(language, *counts),
            f"Give {language} more prompts, or leave the language out.",
        )
    effects = group.effects[language].astype(np.float64)
    inside = csr_matrix((share, (block, np.arange(len(block)))))
    # Sums of float32 are nearly exact in float64: equal effects leave exactly 0.
    centred = effects - (inside @ effects / np.maximum(counted, 1e-9)[:, None])[block]
    return centred * (share / total)[:, None]


def contrast(language: str, shares: np.ndarray, plan: Exchange) -> Contrast:
    """A contrast from what every prompt adds to T when it is harmful, [prompt, neuron]."""
    from scipy.sparse import csr_matrix

    n, units = len(plan.harmful), len(plan.mixed)
    sign = np.where(plan.mixed[plan.unit] & ~plan.harmful, -1.0, 1.0)
    # A unit that swaps adds its harmful or its harmless prompts to T: half the difference, with either sign.
    sign[plan.mixed[plan.unit]] /= 2
    unit = csr_matrix((sign, (plan.unit, np.arange(n))), shape=(units, n)) @ shares
    variance = (unit[plan.mixed] ** 2).sum(axis=0)
    for code in np.unique(plan.stratum[plan.stratum >= 0]):
        members = np.flatnonzero(plan.stratum == code)
        unit[members] -= unit[members].mean(axis=0)
        # Sampling without replacement from a finite population (Cochran 1977, theorem 2.2).
        size, marked = len(members), int(_label(plan, plan.harmful)[members].sum())
        variance += marked * (size - marked) / (size * (size - 1)) * (unit[members] ** 2).sum(axis=0)
    unit[(plan.stratum < 0) & ~plan.mixed] = 0
    sd = np.sqrt(variance)
    # A smaller value is the rounding error of a relabelling that changes nothing.
    sd[sd <= 1e-9 * np.abs(shares).max(axis=0)] = 0
    return Contrast(language=language, score=plan.harmful @ shares, unit=unit, sd=sd)


def weights(plan: Exchange, labels: np.ndarray) -> np.ndarray:
    """The factor of every unit under these labels, float32 [draw, unit] from bool [draw, prompt].

    Units of a stratum: 1 if harmful, 0 if harmless. Units that swap: 1 before, −1 after.
    """
    now = _label(plan, labels)
    return np.where(plan.mixed, np.where(now == _label(plan, plan.harmful), 1, -1), now).astype(np.float32)


def _label(plan: Exchange, labels: np.ndarray) -> np.ndarray:
    """The label of every unit's first prompt, [..., unit] from [..., prompt]."""
    return labels[..., np.unique(plan.unit, return_index=True)[1]]
