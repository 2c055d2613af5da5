"""Which neurons' estimates leave open on which side of a threshold they are, told from errors that were seen.

What a rule ranks by is a weighted sum of a neuron's mean effects on two groups of prompts. Where a neuron has been
ablated on some prompts, the others have its estimate times a factor, how far it was off there (a control variate). Such
a mean is wrong by what the factor is uncertain, and by what each prompt has for itself. Both are known of the neurons
that have been measured, and those of the same layer and site are taken to be like them; neurons with a large local
effect (`liable`) are taken to be like one another, wherever they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssn_probe.tracing.kept_values import Neuron

ALIKE, APART = 0.02, 0.11
"""Standard errors of estimates, relative to themselves, before any is known: of a neuron on all prompts (and as much
again of it on one group), and of each prompt for itself."""
LARGE, HIGHEST, LOWEST = 0.3, 4.0, 0.3
"""The same on all prompts for liable neurons; their effect may be more than the estimate by `HIGHEST` of it at most, or
less by `LOWEST`."""
CALIBRATED, FEW, TO_CALIBRATE, OWN = 8, 5, 20, 4
"""A neuron measured on so many prompts says how wrong estimates are on all alike. So many neurons of all, and of the
first guess, are added to those of a class, and so many prompts of the class to those of a neuron."""
ODD = 3.0
"""Standard errors off from which a neuron is not like others: its own factor counts as it is."""

Contrasts = Sequence[tuple[float, float]]
"""Weights of the mean effects on either group of prompts, for every score that a labelling may rank by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The neurons that may be ablated, pool after pool, with what their estimates add up to.

    `pools`: the columns of each pool, and how many neurons a rule takes there. `classes`: neurons with one number are
    taken to have errors alike. `estimates` [prompt, neuron], prompts in the order in which neurons are measured,
    `groups` their weights in the mean of either group, [group, prompt].
    """

    names: list[Neuron]
    pools: Sequence[tuple[slice, int]]
    classes: np.ndarray
    liable: np.ndarray
    estimates: np.ndarray
    groups: np.ndarray

    def means(self) -> np.ndarray:
        """Mean estimates over each group, [group, neuron]."""
        return self.groups @ self.estimates


class Measured:
    """What ablation has shown so far of every candidate: how many `prompts` it ran on, their effects, and their sums
    over each group, weighted as means are: [group, neuron]."""

    def __init__(self, candidates: Candidates) -> None:
        n = len(candidates.names)
        self.candidates = candidates
        self.prompts = np.zeros(n, dtype=np.int64)
        self.effects: dict[int, np.ndarray] = {}
        self.exact, self.estimated, self.sizes, self.signed, self.squares = np.zeros((5, 2, n))
        self.products = np.zeros((3, n))
        """Σ exact², Σ exact · estimate and Σ estimate² over the prompts."""

    def add(self, columns: np.ndarray, rows: np.ndarray, exact: np.ndarray) -> None:
        """Takes in the exact effects [prompt, neuron] of some candidates, on the next prompts in order."""
        e, weights = (
            self.candidates.estimates[np.ix_(rows, columns)].astype(np.float64),
            self.candidates.groups[:, rows],
        )
        self.exact[:, columns] += weights @ exact
        self.signed[:, columns] += weights @ (exact * np.sign(e))
        self.estimated[:, columns] += weights @ e
        self.sizes[:, columns] += weights @ np.abs(e)
        self.squares[:, columns] += weights**2 @ e**2
        self.products[:, columns] += [(exact**2).sum(0), (exact * e).sum(0), (e**2).sum(0)]
        self.prompts[columns] += len(rows)
        for place, column in enumerate(columns.tolist()):
            before = self.effects.get(column)
            new = exact[:, place]
            self.effects[column] = new if before is None else np.concatenate([before, new])


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """Every candidate's mean effect on either group and the factors of its estimates on prompts where it has not been
    measured, [group, neuron]; `rest`, the part of the mean estimate that is of such prompts; the covariance of the two
    factors (of one, of both, of the other) [3, neuron], and `noise`, the variance that single prompts add."""

    means: np.ndarray
    factors: np.ndarray
    rest: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray

    def score(self, weights: np.ndarray, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Weighted sums of the two means, and their standard errors."""
        one, other = weights[:, None] * self.rest[:, columns]
        first, both, second = self.covariance[:, columns]
        variance = one**2 * first + 2 * one * other * both + other**2 * second + weights**2 @ self.noise[:, columns]
        return weights @ self.means[:, columns], np.sqrt(np.maximum(variance, 0))


def weighted(rule: str, sizes: tuple[int, int]) -> Contrasts:
    """What a rule may rank by if the groups are the contexts, one way or the other.

    By a context's mean: that of either group and of all prompts. By a contrast: that of the groups in both directions.
    """
    if rule in ("difference", "both"):
        less = 1.0 if rule == "difference" else 0.5
        return (1.0, -less), (-less, 1.0)
    whole = sum(sizes)
    return (sizes[0] / whole, sizes[1] / whole), (1.0, 0.0), (0.0, 1.0)


def predicted(measured: Measured) -> Predicted:
    """What is to be expected of every candidate, from its own measurements and from those of others like it.

    The factors of a neuron on the two groups are normal around the bias of its class, alike but for a part of each
    group's own, and are seen with what single prompts add; a neuron that is odd beside others has the variance that it
    shows itself.
    """
    candidates = measured.candidates
    seen = measured.sizes > 0
    bias, alike, scatter = _errors(measured)
    own = np.where(measured.prompts > 1, _scatter(measured) * (measured.prompts - 1) + OWN * scatter, scatter * OWN)
    scatter = own / (OWN + np.maximum(measured.prompts - 1, 0))
    off = np.divide(measured.signed, measured.sizes, out=np.ones_like(measured.sizes), where=seen) - 1 - bias
    error = np.divide(scatter * measured.squares, measured.sizes**2, out=np.full_like(off, 1e6), where=seen)
    shared = np.where(candidates.liable, np.maximum(alike, LARGE), alike) ** 2
    apart = np.where(candidates.liable, LARGE / 2, ALIKE) ** 2
    odd = seen & (off**2 > ODD**2 * (shared + apart + error))
    more = np.where(odd, off**2, 0).max(axis=0) / 2
    factors, covariance = _posterior(shared + more, apart + more, off, error)
    rest = candidates.means() - measured.estimated
    squares = candidates.groups**2 @ candidates.estimates.astype(np.float64) ** 2 - measured.squares
    return Predicted(
        means=measured.exact + (1 + bias + factors) * rest,
        factors=1 + bias + factors,
        rest=np.where(measured.prompts < candidates.estimates.shape[0], rest, 0.0),
        covariance=covariance,
        noise=np.where(measured.prompts < candidates.estimates.shape[0], scatter * np.maximum(squares, 0), 0.0),
    )


def in_doubt(
    candidates: Candidates, measured: Measured, now: Predicted, contrasts: Contrasts, widest: float
) -> np.ndarray:
    """How many standard errors every candidate is from the nearest threshold that it could be on the other side of.

    [neuron], infinity where there is none. A threshold is the middle between the scores of the last neuron that a rule
    takes and of the first that it leaves, 0 at least. One that has not been measured is read as it is estimated, so it
    is in doubt, too, where bias alone puts it on the other side; then `widest` of its score is the farthest. A liable
    one that has not been measured is in doubt if `HIGHEST` and `LOWEST` would bring it across.
    """
    found = np.full(len(candidates.names), np.inf)
    means = candidates.means()
    sizes = candidates.groups @ np.abs(candidates.estimates)
    complete = measured.prompts == candidates.estimates.shape[0]
    for columns, count in candidates.pools:
        fresh, liable = measured.prompts[columns] == 0, candidates.liable[columns]
        for weights in (np.asarray(some) for some in contrasts):
            score, error = now.score(weights, columns)
            threshold = between(score, count)
            raw, far = weights @ means[:, columns], np.abs(score - threshold)
            up, down = np.maximum(weights, 0) @ sizes[:, columns], np.maximum(-weights, 0) @ sizes[:, columns]
            near = np.abs(raw - threshold) <= widest * np.maximum(up + down, threshold)
            away = np.where(fresh & ((raw >= threshold) != (score >= threshold)), 0.0, far)
            away = np.divide(away, error, out=np.full(len(away), np.inf), where=error > 0)
            away = np.where(fresh & ~near, np.inf, away)
            rise, fall = HIGHEST * up + LOWEST * down, LOWEST * up + HIGHEST * down
            within = np.where(score < threshold, score + rise >= threshold, score - fall <= threshold)
            away = np.where(fresh & liable & within, np.minimum(away, 0.0), away)
            found[columns] = np.minimum(found[columns], np.where(complete[columns], np.inf, away))
    return np.where(sizes.any(axis=0), found, np.inf)


def between(scores: np.ndarray, count: int) -> float:
    """The middle between the `count`-th largest value and the next, 0 at least."""
    if count >= len(scores):
        return max(0.0, float(scores.min()))
    last = len(scores) - count
    parted = np.partition(scores, [last - 1, last])
    return max(0.0, float(parted[last]) / 2 + float(parted[last - 1]) / 2) if parted[last] > 0 else 0.0


def largest(values: np.ndarray, count: int) -> float:
    """The `count`-th largest value."""
    return float(np.partition(values, len(values) - count)[len(values) - count])


def _scatter(measured: Measured) -> np.ndarray:
    """The variance that single prompts add to a neuron's exact effects, over the square of the estimate, [neuron]."""
    exact, both, estimates = measured.products
    left = exact - np.divide(both**2, estimates, out=np.zeros_like(both), where=estimates > 0)
    n = np.maximum(measured.prompts, 2)
    return np.divide(np.maximum(left, 0), estimates, out=np.zeros_like(left), where=estimates > 0) * n / (n - 1)


def _errors(measured: Measured) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every candidate what is known of its class: bias, error alike on all prompts, variance of single ones."""
    candidates, n = measured.candidates, len(measured.prompts)
    bias, alike, scatter = np.zeros(n), np.full(n, ALIKE), np.full(n, APART**2)
    some = measured.prompts > 1
    if some.sum() <= 2 * FEW:
        return bias, alike, scatter
    own, both, sizes = _scatter(measured), measured.signed.sum(axis=0), measured.sizes.sum(axis=0)
    ratio = np.divide(both, sizes, out=np.ones(n), where=sizes > 0)
    usual = float(np.median(own[some]))
    for kind in np.unique(candidates.classes):
        members = candidates.classes == kind
        inside = members & some
        count = int(inside.sum())
        middle = float(np.median(own[inside])) if count else 0.0
        scatter[members] = max((count * middle + FEW * usual) / (count + FEW), 1e-6)
        if not count or candidates.liable[members].all():
            continue
        bias[members] = shift = float(np.median(ratio[inside] - 1)) * count / (count + FEW)
        well = members & (measured.prompts >= CALIBRATED)
        if not well.any():
            continue
        squares = (ratio[well] - 1 - shift) ** 2
        chance = scatter[well] * measured.squares[:, well].sum(axis=0) / sizes[well] ** 2
        sure = np.clip(squares, 0, 9 * np.median(squares)) - chance
        variance = (max(float(sure.sum()), 0.0) + TO_CALIBRATE * ALIKE**2) / (int(well.sum()) + TO_CALIBRATE)
        alike[members] = max(np.sqrt(variance), ALIKE / 2)
    return bias, alike, scatter


def _posterior(
    shared: np.ndarray, apart: np.ndarray, off: np.ndarray, error: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two normal factors around 0 with a part `shared`, seen as `off` with variances `error` [group, neuron]: their
    means [group, neuron], and variances and covariance [3, neuron]."""
    each = shared + apart
    first, second = each + error[0], each + error[1]
    determinant = first * second - shared**2
    gain = np.array(
        [
            [each * second - shared * shared, shared * first - each * shared],
            [shared * second - each * shared, each * first - shared * shared],
        ]
    )
    gain = gain / determinant
    means = np.stack([gain[0, 0] * off[0] + gain[0, 1] * off[1], gain[1, 0] * off[0] + gain[1, 1] * off[1]])
    left = [
        each - gain[0, 0] * each - gain[0, 1] * shared,
        shared - gain[0, 0] * shared - gain[0, 1] * each,
        each - gain[1, 0] * shared - gain[1, 1] * each,
    ]
    return means, np.stack(left)
