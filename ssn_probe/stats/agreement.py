"""Do two judges agree beyond chance?"""

from collections.abc import Sequence
from dataclasses import dataclass

from ssn_probe.stats.intervals import wilson


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Cohen's kappa with its interval, the share on which both agree, and on how many; kappa None: undefined."""

    n: int
    clusters: int
    observed: float | None
    kappa: float | None
    low: float | None
    high: float | None


def agreement(
    first: Sequence[str], second: Sequence[str], clusters: Sequence[str], confidence: float = 0.95
) -> Agreement:
    """How far do two judges agree on the same responses, beyond what their own rates give by chance?

    `first`, `second` [response] verdicts, `clusters` [response] the prompt each response answers. κ = (p_o − p_e) /
    (1 − p_e): Cohen 1960, Educ. Psychol. Meas. 20:37. Undefined where both give one and the same verdict throughout.

    Departure: Cohen's own interval is the normal one of p_o with p_e held fixed, which has no width where all agree.
    Here p_o has Wilson's interval on the number of prompts, which counts the responses to a prompt once and is
    conservative; it ends at −1, below which κ cannot be.
    """
    if not len(first) == len(second) == len(clusters):
        raise ValueError("one verdict of each judge and one cluster per response are needed")
    n, groups = len(first), len(set(clusters))
    if not n:
        return Agreement(n=0, clusters=0, observed=None, kappa=None, low=None, high=None)
    observed = sum(one == other for one, other in zip(first, second, strict=True)) / n
    rates = [[list(side).count(verdict) / n for side in (first, second)] for verdict in {*first, *second}]
    chance = sum(one * other for one, other in rates)
    if chance > 1 - 1e-12:
        return Agreement(n=n, clusters=groups, observed=observed, kappa=None, low=None, high=None)
    low, high = wilson(observed * groups, groups, confidence)
    kappa, least, most = (max(-1.0, (share - chance) / (1 - chance)) for share in (observed, low, high))
    return Agreement(n=n, clusters=groups, observed=observed, kappa=kappa, low=least, high=most)
