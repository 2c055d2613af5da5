"""A share that an imperfect classifier measured, corrected for the errors that it makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from ssn_probe.stats.intervals import normal_quantile


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """A corrected share with its interval; `clipped`: it lay outside 0 to 1. None: nothing can be said, and `why`."""

    value: float | None
    low: float | None = None
    high: float | None = None
    clipped: bool = False
    why: str = ""


def rogan_gladen(
    share: float, n: float, right: tuple[int, int], wrong: tuple[int, int], confidence: float = 0.95
) -> Corrected:
    """The true share behind a measured one.

    `share` of `n` independent responses was called positive. `right`: of so many labelled positive, so many were called
    so (sensitivity); `wrong`: of so many labelled negative, so many were called negative (specificity), each as
    (called, labelled). (p + Sp − 1) / (Se + Sp − 1): Rogan & Gladen 1978, Am. J. Epidemiol. 107:71. The interval counts
    the uncertainty of all three: Lang & Reiczigel 2014, Prev. Vet. Med. 113:13. Both are clipped to 0 to 1.
    """
    (hits, positive), (passes, negative) = right, wrong
    if not positive or not negative or not n:
        return Corrected(value=None, why="only one kind is labelled")
    sensitivity, specificity = hits / positive, passes / negative
    if sensitivity + specificity <= 1:
        return Corrected(value=None, why="no better than chance")
    value = (share + specificity - 1) / (sensitivity + specificity - 1)
    low, high = _lang_reiczigel(share, n, (sensitivity, positive), (specificity, negative), normal_quantile(confidence))
    return Corrected(
        value=_within(value), low=_within(min(low, value)), high=_within(max(high, value)), clipped=not 0 <= value <= 1
    )


def mean_of(shares: Sequence[Corrected]) -> Corrected:
    """The mean of corrected shares of several groups.

    Its interval is the mean of their ends: right where the errors of all groups go together, as those of translations
    may, and too wide elsewhere, since the spread of a mean is at most the mean of the spreads.
    """
    values, lows, highs = ([getattr(share, name) for share in shares] for name in ("value", "low", "high"))
    if not shares or None in (*values, *lows, *highs):
        return Corrected(value=None, why="not in all languages")
    value, low, high = (sum(each) / len(shares) for each in (values, lows, highs))
    return Corrected(value=value, low=low, high=high, clipped=any(share.clipped for share in shares))


def _lang_reiczigel(
    share: float, n: float, right: tuple[float, int], wrong: tuple[float, int], z: float
) -> tuple[float, float]:
    """Their equation: pseudo-counts for all three shares, a shift of the centre, and a normal interval around it."""
    n_share, n_right, n_wrong = n + z * z, right[1] + 2, wrong[1] + 2
    share = (n * share + z * z / 2) / n_share
    sensitivity, specificity = (right[1] * right[0] + 1) / n_right, (wrong[1] * wrong[0] + 1) / n_wrong
    gain = sensitivity + specificity - 1
    if gain <= 0:
        return 0.0, 1.0
    centre = (share + specificity - 1) / gain
    noise = sensitivity * (1 - sensitivity) / n_right, specificity * (1 - specificity) / n_wrong
    shift = 2 * z * z * (centre * noise[0] - (1 - centre) * noise[1])
    spread = share * (1 - share) / n_share + centre**2 * noise[0] + (1 - centre) ** 2 * noise[1]
    reach = z * sqrt(spread) / gain
    return centre + shift - reach, centre + shift + reach


def _within(value: float) -> float:
    return min(1.0, max(0.0, value))
