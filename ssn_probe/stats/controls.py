"""Does the set under test do more than the sets it is compared with, and how small an effect could have been shown?

The set is the unit: every set is run on the same prompts, so more prompts make each figure more precise but say
nothing about other sets. Five sets have four degrees of freedom, for every model and any number of prompts.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ssn_probe.stats.intervals import normal_quantile

MINIMUM_CONTROLS = 19
"""With fewer, no rank can reach p = .05."""


@dataclass(frozen=True, kw_only=True)
class ControlTest:
    """The rank of the observed figure among those of m compared sets.

    `p` is None with fewer than 19 controls, `control_mean` without any; `low` and `high` (where the next such set
    would fall) are None with fewer than two.
    """

    p: float | None
    m: int
    observed: float
    control_mean: float | None
    low: float | None
    high: float | None
    too_few: bool

    @property
    def note(self) -> str | None:
        """What a report says in place of p; None where there is a p."""
        return f"too few controls for a test ({self.m} of at least {MINIMUM_CONTROLS})" if self.too_few else None


def rank_test(
    observed: float,
    controls: ArrayLike,
    *,
    alternative: Literal["greater", "less"] = "greater",
    confidence: float = 0.95,
) -> ControlTest:
    """How often does a compared set do as much as the set under test?

    `controls` [compared set], each the same figure as `observed` (the average over languages).
    Every set is one observation, however many prompts it has. p = (1 + #{controls at least as extreme}) / (1 + m),
    one-sided and exact when the set under test is exchangeable with the compared sets; ties count against it (Phipson &
    Smyth 2010). Holm's adjustment over k such tests needs 20·k − 1 sets of each to reach .05.

    `low`, `high`: what another such set would do, mean ± t_{m−1}·s·√(1 + 1/m). This is a description that assumes
    normal controls: it may exceed [0, 1], and is liberal far in the tail. Raises ValueError for figures that are not
    finite.
    """
    if alternative not in ("greater", "less"):
        raise ValueError(f"alternative must be 'greater' or 'less', got {alternative!r}")
    given = np.asarray(controls, dtype=float)
    if given.ndim != 1 or not np.isfinite(given).all() or not np.isfinite(observed):
        raise ValueError("the observed figure and the controls must be finite, one per compared set")
    m, sign = len(given), 1 if alternative == "greater" else -1
    # Averages of the same counts differ in the last bit with the order of summation; a tie must stay a tie.
    slack = 1e-9 * max(abs(observed), float(np.abs(given).max(initial=0.0)))
    extreme = int((sign * (given - observed) >= -slack).sum())
    mean, low, high = float(given.mean()) if m else None, None, None
    if mean is not None and m >= 2:
        from scipy.special import stdtrit

        reach = float(stdtrit(m - 1, (1 + confidence) / 2)) * float(given.std(ddof=1)) * sqrt(1 + 1 / m)
        low, high = mean - reach, mean + reach
    return ControlTest(
        p=(1 + extreme) / (1 + m) if m >= MINIMUM_CONTROLS else None,
        m=m,
        observed=float(observed),
        control_mean=mean,
        low=low,
        high=high,
        too_few=m < MINIMUM_CONTROLS,
    )


def smallest_p(m: int) -> float:
    """What is the smallest p that a rank test among m sets can give? 1 / (1 + m)."""
    if m < 0:
        raise ValueError(f"the number of controls cannot be negative, got {m}")
    return 1 / (1 + m)


def smallest_detectable(
    n_clusters: int, baseline_rate: float, *, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """What is the smallest rise of a rate, on the same prompts in both arms, that this sample would have shown?

    The δ at which a two-sided McNemar test of level `alpha` with continuity correction rejects with this `power`:
    nδ − 1 = z_{1−α/2}·√(nψ) + z_power·√(n(ψ − δ²)), where n is the number of clusters, p the baseline rate and
    ψ = p(1−p−δ) + (p+δ)(1−p) the share of discordant pairs (Connor 1987, Biometrics 43:207, with Edwards'
    correction). Conservative for two reasons: it assumes independent arms, while arms on the same prompts agree more
    than that, and it counts the prompts of a cluster once. For a fall, give 1 − baseline_rate. None where even a rise
    to 100 % would not show.
    """
    if n_clusters < 1 or not 0 <= baseline_rate <= 1 or not 0 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"no such design: {n_clusters} clusters, rate {baseline_rate}, power {power}, alpha {alpha}")
    from scipy.optimize import brentq
    from scipy.special import ndtri

    z_alpha, z_power = normal_quantile(1 - alpha), float(ndtri(power))

    def surplus(rise: float) -> float:
        arm_rate = baseline_rate + rise
        discordant = baseline_rate * (1 - arm_rate) + arm_rate * (1 - baseline_rate)
        spread = max(discordant - rise**2, 0.0)
        return n_clusters * rise - 1 - z_alpha * sqrt(n_clusters * discordant) - z_power * sqrt(n_clusters * spread)

    # surplus is negative at 0 and convex in the rise, so there is one root or none.
    largest = 1 - baseline_rate
    return None if surplus(largest) < 0 else float(brentq(surplus, 0.0, largest))  # pyright: ignore[reportArgumentType]
