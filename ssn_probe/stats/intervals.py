"""Intervals: Wilson and Newcombe in closed form, and the variance over clusters where prompts are not independent.

Rates near 0 or 100 % are common in this field, and the closed forms remain valid there. A variance over clusters does
not: it is zero when every cluster agrees. So the callers in `estimates` take from it no more than the number of prompts
that are worth as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
DEGENERATE = "degenerate"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval.

    `n` counts the prompts (pairs, in a difference), `clusters` the independent groups among them: of crossed clusters
    those of the column with the fewest, and `crossed` those of every column. `method` is "wilson", "newcombe",
    "clusters" or "degenerate" (see `estimates`).
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    method: str
    crossed: tuple[int, ...] = ()

    @property
    def degenerate(self) -> bool:
        """Whether the clusters had no spread, and the interval is another."""
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


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The variance of a mean of group means over clusters, and its degrees of freedom."""

    variance: float
    freedom: float


def cluster_jackknife(values: Array, clusters: Sequence[Codes], groups: Codes) -> Spread | None:
    """How much would a mean of group means vary with other clusters?

    `values` [prompt]; `clusters` one or several columns, each [prompt] codes from 0; `groups` [prompt] codes (a group
    is a language; a plain rate has a single group). One column: the jackknife that leaves out one cluster at a time.
    Several cross, and prompts that share a label of any are dependent: the variances over each column are added, less
    those over the combinations of two, plus those of three (Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat.
    29:238). With the jackknife, and never less than over one column alone (MacKinnon, Nielsen & Webb 2024, arXiv
    2406.08880), it holds with few clusters. A bootstrap that draws every column and multiplies the weights (Owen 2007,
    Ann. Appl. Stat. 1:386) counts the variance of the single prompt three times, which is most of it where few prompts
    share both labels.

    Degrees of freedom: those of Satterthwaite, 3·(Σd²)²/Σd⁴ − 1 over the changes d that leaving out a cluster makes,
    and at most the clusters less one; of the column with the fewest. They are few where few clusters decide. None where
    the clusters say nothing: one alone, all agree, or a group stands and falls with one.
    """
    found: dict[int, list[Spread]] = {}
    for size in range(1, len(clusters) + 1):
        for columns in combinations(clusters, size):
            one = _left_out(values, _together(columns), groups)
            if one is None:
                return None
            found.setdefault(size, []).append(one)
    total = sum((-1) ** (size + 1) * one.variance for size, each in found.items() for one in each)
    variance = max(total, *(one.variance for one in found[1]))
    if variance <= (1e-9 * np.abs(values).max()) ** 2:
        return None
    return Spread(variance=variance, freedom=min(one.freedom for one in found[1]))


def _left_out(values: Array, clusters: Codes, groups: Codes) -> Spread | None:
    shape = int(clusters.max()) + 1, int(groups.max()) + 1
    cells, size = clusters * shape[1] + groups, shape[0] * shape[1]
    sums = np.bincount(cells, weights=values, minlength=size).reshape(shape)  # [cluster group]
    counts = np.bincount(cells, minlength=size).reshape(shape)
    rest = counts.sum(axis=0) - counts
    if not rest.all():
        return None
    changes = ((sums.sum(axis=0) - sums) / rest).mean(axis=1) - (sums.sum(axis=0) / counts.sum(axis=0)).mean()
    squares, tail, most = float((changes**2).sum()), float((changes**4).sum()), shape[0] - 1.0
    says = squares > (1e-9 * np.abs(values).max()) ** 2
    freedom = min(most, 3 * squares**2 / tail - 1) if says else most
    return Spread(variance=most / shape[0] * squares, freedom=max(1.0, freedom))


def _together(columns: Sequence[Codes]) -> Codes:
    """Codes from 0 of what is equal in all columns."""
    joined = columns[0]
    for column in columns[1:]:
        joined = np.unique(joined * (int(column.max()) + 1) + column, return_inverse=True)[1]
    return joined


def normal_quantile(confidence: float) -> float:
    """z such that a standard normal lies within ±z with this probability. Raises ValueError outside (0, 1)."""
    from scipy.special import ndtri

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return float(ndtri((1 + confidence) / 2))


def t_quantile(confidence: float, freedom: float) -> float:
    """t such that Student's t with these degrees of freedom lies within ±t with this probability."""
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, (1 - confidence) / 2))
