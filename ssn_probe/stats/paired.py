"""An arm against the baseline on the same prompts: the exact test, its adjustment, and the change it could show.

McNemar's test has the *prompt* as its unit. It says whether an intervention changes outcomes on prompts like these, and
nothing about whether other neurons would have done the same: the rank test answers that (`controls`).
"""

from collections.abc import Sequence
from math import ceil, log2

import numpy as np
from numpy.typing import ArrayLike

from ssn_probe.stats.intervals import Array, Estimate, normal_quantile


def mcnemar(arm: ArrayLike, baseline: ArrayLike) -> float | None:
    """How surprising are these changes if the arm were as likely to turn a failure into a success as the reverse?

    `arm`, `baseline` [prompt], 0/1 or bool, row by row the same prompt; prompts must be independent (single-prompt
    clusters). Two-sided exact binomial on the discordant pairs, so it never exceeds its level: McNemar 1947,
    Psychometrika 12:153. 1 without a discordant pair, None without prompts. Raises ValueError for values other than 0
    and 1 or lengths that differ.
    """
    after, before = _outcomes(arm, "arm"), _outcomes(baseline, "baseline")
    if after.shape != before.shape:
        raise ValueError(f"the arm has {len(after)} prompts, the baseline {len(before)}: they must be the same prompts")
    if not len(after):
        return None
    gained, lost = int((after > before).sum()), int((after < before).sum())
    if not gained + lost:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5).pvalue)


def _outcomes(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not np.isin(array, (0.0, 1.0)).all():
        raise ValueError(f"{name} must be a row of 0 and 1: leave out what was not judged beforehand")
    return array


def fewest_discordant(alpha: float = 0.05) -> int:
    """How many prompts must change, all in the same direction, for McNemar's test to reach `alpha`? 2·½ᵈ ≤ α."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    return ceil(1 - log2(alpha))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """The p-values of one family, adjusted so that any false rejection among them is as rare as in a single test.

    Step-down: the k-th smallest of m is multiplied by m − k + 1, and never below its predecessor (Holm 1979, Scand. J.
    Stat. 6:65). None (not tested) stays None and does not count among the m. Raises ValueError for values
    outside [0, 1].
    """
    tested = [(p, place) for place, p in enumerate(ps) if p is not None]
    if not all(0 <= p <= 1 for p, _ in tested):
        raise ValueError(f"p-values must lie between 0 and 1, got {[p for p, _ in tested]}")
    adjusted: list[float | None] = [None] * len(ps)
    reached = 0.0
    for rank, (p, place) in enumerate(sorted(tested)):
        reached = max(reached, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = reached
    return adjusted


def detectable(
    difference: Estimate, *, power: float = 0.8, alpha: float = 0.05, confidence: float = 0.95
) -> float | None:
    """What is the smallest true change that this comparison, as it came out, would have shown?

    `difference` is the measured paired difference with its interval at `confidence`. Its standard error, half the width
    over z, reflects the clusters and the discordance of the sample; the answer is (z_{1−α/2} + z_power)·SE, by default
    2.80 SE, in the unit of the difference and in either direction. It depends on the spread and not on the measured
    value, so it is no "observed power" (Hoenig & Heisey 2001, Am. Stat. 55:19). Where arm and baseline agree on nearly
    every prompt the spread is small because little happened: then it is a lower bound, and `smallest_detectable` is the
    figure to plan with. None where the interval has no width, because the spread is unknown.
    """
    if not 0 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"power and alpha must lie between 0 and 1, got {power} and {alpha}")
    from scipy.special import ndtri

    width = difference.high - difference.low
    error = width / (2 * normal_quantile(confidence))
    return (normal_quantile(1 - alpha) + float(ndtri(power))) * error if width > 0 else None
