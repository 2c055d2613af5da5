"""The test that belongs to an interval: at which level does it just leave out zero?"""

from collections.abc import Callable
from math import exp, log

from ssn_probe.stats.intervals import Estimate

LEAST = 1e-6
"""No smaller p is given: no interval of prompts holds so far out."""


def interval_p(estimate: Callable[[float], Estimate]) -> float | None:
    """How surprising is a difference if there were none, two-sided: 1 less the highest confidence that leaves out zero.

    `estimate(confidence)` gives the difference with its interval at that confidence. So p ≤ .05 exactly where the 95 %
    interval leaves out zero, and p is as good as the interval is. At least `LEAST`. None where the interval has no
    width, because the spread is unknown.
    """
    usual = estimate(0.95)
    if usual.low == usual.high:
        return None

    def leaves_out(level: float) -> bool:
        found = estimate(1 - level)
        return found.low > 0 or found.high < 0

    low, high = LEAST, 1 - LEAST
    if leaves_out(low):
        return LEAST
    if not leaves_out(high):
        return 1.0
    while high / low > 1.0001:
        middle = exp((log(low) + log(high)) / 2)
        low, high = (low, middle) if leaves_out(middle) else (middle, high)
    return high
