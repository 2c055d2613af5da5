"""Figures over several models that were trained alike: the model is the unit, and its prompts only measure it."""

import math
from collections.abc import Sequence

from ssn_probe.stats.intervals import Estimate


def share_of_models(holds: Sequence[bool], confidence: float = 0.95) -> Estimate:
    """In which share of such models something holds, with the exact interval of Clopper and Pearson (1934).

    At least one model is needed.
    """
    from scipy.stats import binomtest

    count, n = sum(holds), len(holds)
    low, high = binomtest(count, n).proportion_ci(confidence, method="exact")
    return Estimate(value=count / n, low=float(low), high=float(high), n=n, clusters=n, method="clopper-pearson")


def mean_over_models(values: Sequence[float], confidence: float = 0.95) -> Estimate | None:
    """The mean of such models with Student's interval; None for fewer than two, which show no spread."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = float(t.ppf((1 + confidence) / 2, n - 1)) * error
    return Estimate(value=mean, low=mean - reach, high=mean + reach, n=n, clusters=n, method="student")
