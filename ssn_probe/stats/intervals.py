"""Intervals: Wilson and Newcombe in closed form, the cluster bootstrap where prompts are not independent.

Rates near 0 or 100 % are common in this field, and the closed forms remain valid there. The bootstrap does not: it has
no width when every cluster agrees. The callers in `estimates` then replace it and say so.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DEGENERATE = "degenerate bootstrap"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval.

    `n` counts the prompts (pairs, in a difference), `clusters` the independent groups among them. `method` is
    "wilson", "newcombe", "cluster bootstrap" or "degenerate bootstrap", which is no bootstrap interval (see
    `estimates`).
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    method: str

    @property
    def degenerate(self) -> bool:
        """Whether the bootstrap had no width and was replaced by another interval."""
        return self.method == DEGENERATE


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Within which limits does a rate lie, given this number of successes in n independent trials?

    Either count may be fractional (a rate on a number of clusters). Raises ValueError unless 0 ≤ successes ≤ n and
    n > 0. Score interval, (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n): Wilson 1927; Newcombe 1998, Stat. Med.
    17:857, method 3.
    """
    if not n > 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials: 0 ≤ successes ≤ trials and trials > 0 are needed")
    z, rate = normal_quantile(confidence), successes / n
    centre = rate + z * z / (2 * n)
    reach = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Both limits are exact at the ends; rounding would leave 1e-17 or 1 − 1e-16 there.
    low = 0.0 if successes == 0 else max(0.0, (centre - reach) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + reach) / scale)
    return low, high


def newcombe(both: float, first: float, second: float, neither: float, confidence: float = 0.95) -> tuple[float, float]:
    """Within which limits does the difference of two paired rates lie, rate 1 − rate 2?

    `both`, `first`, `second`, `neither`: pairs that succeed in both arms, in the first only, in the second only, in
    none (they may be fractional). The two Wilson intervals are joined with the correlation φ of the arms:
    θ − √(dl₁² − 2φ·dl₁·du₂ + du₂²) and θ + √(du₁² − 2φ·du₁·dl₂ + dl₂²), where dl and du are the distances from a rate
    down and up to its Wilson limits. φ is continuity-corrected when positive and 0 when a margin is empty: Newcombe
    1998, Stat. Med. 17:2635, method 10. Raises ValueError for a negative count or without pairs.
    """
    table = (both, first, second, neither)
    n = sum(table)
    if not n > 0 or min(table) < 0:
        raise ValueError(f"a paired table needs counts ≥ 0 and at least one pair, got {table}")
    rate_1, rate_2 = (both + first) / n, (both + second) / n
    low_1, high_1 = wilson(min(both + first, n), n, confidence)
    low_2, high_2 = wilson(min(both + second, n), n, confidence)
    phi = _corrected_phi(both, first, second, neither)
    down_1, up_1, down_2, up_2 = rate_1 - low_1, high_1 - rate_1, rate_2 - low_2, high_2 - rate_2
    below = down_1**2 - 2 * phi * down_1 * up_2 + up_2**2
    above = up_1**2 - 2 * phi * up_1 * down_2 + down_2**2
    difference = (first - second) / n
    return difference - sqrt(max(below, 0.0)), difference + sqrt(max(above, 0.0))


def _corrected_phi(both: float, first: float, second: float, neither: float) -> float:
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins <= 0:
        return 0.0
    excess = both * neither - first * second
    if excess > 0:
        excess = max(excess - (both + first + second + neither) / 2, 0.0)
    return excess / sqrt(margins)


def cluster_bootstrap(
    values: Array, clusters: NDArray[np.intp], groups: NDArray[np.intp], *, confidence: float, draws: int, seed: int
) -> tuple[float, float] | None:
    """Within which limits does a mean of group means lie when only clusters are independent?

    `values` [prompt], `clusters` and `groups` [prompt] codes from 0 (a group is a language; a plain rate has a single
    group). Every draw takes as many clusters as there are, with replacement and the same clusters in every group; a
    group's mean is the ratio of the summed values to the summed counts. None when the draws carry no information: a
    single cluster, clusters that all agree, or groups so small that most draws miss a group.

    Departure from the plain percentile interval: the tail is Φ(−√(C/(C−1))·t_{C−1}) for C clusters, which compensates
    the narrowness of few clusters (Hesterberg 2015, Am. Stat. 69:371, "expanded percentile") and approaches the plain
    interval as C grows. Simulated coverage of .95 at C = 8: plain .87, expanded .94; at a rate of 95 % both are still
    low (.91 expanded at C = 40).
    """
    from scipy.special import ndtr, stdtrit

    n_clusters, n_groups = int(clusters.max()) + 1, int(groups.max()) + 1
    if n_clusters == 1:
        return None
    cells, shape = clusters * n_groups + groups, (n_clusters, n_groups)
    sums = np.bincount(cells, weights=values, minlength=n_clusters * n_groups).reshape(shape)
    counts = np.bincount(cells, minlength=n_clusters * n_groups).reshape(shape).astype(float)
    equal = np.full(n_clusters, 1 / n_clusters)
    taken = np.random.default_rng(seed).multinomial(n_clusters, equal, size=draws).astype(float)  # [draw cluster]
    totals, sizes = taken @ sums, taken @ counts  # [draw group]
    # A draw that leaves a group without prompts has no average over the groups, and is left out.
    whole = (sizes > 0).all(axis=1)
    if whole.mean() < 0.5:
        return None
    means = (totals[whole] / sizes[whole]).mean(axis=1)
    quantile = stdtrit(n_clusters - 1, (1 - confidence) / 2)
    tail = float(ndtr(sqrt(n_clusters / (n_clusters - 1)) * quantile))
    low, high = (float(limit) for limit in np.quantile(means, [tail, 1 - tail]))
    return None if high - low <= 1e-9 * np.abs(values).max() else (low, high)


def normal_quantile(confidence: float) -> float:
    """z such that a standard normal lies within ±z with this probability. Raises ValueError outside (0, 1)."""
    from scipy.special import ndtri

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return float(ndtri((1 + confidence) / 2))
