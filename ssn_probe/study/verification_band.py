"""Which neurons' estimates leave open on which side of a threshold they are, told from errors that were seen.

What a rule ranks by is a weighted sum of a neuron's mean effects on two groups of prompts. The estimate of such a score
is wrong for two reasons: the neuron's effect is estimated too high or too low on all prompts alike, and it is off by
something else on each prompt (chance of read-outs, and what first order misses there). Both are known of the neurons
that have been measured, and those near the same threshold are taken to be like them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssn_probe.tracing.kept_values import Neuron

START = 0.4
"""The first band as a share of the largest."""
SURE = 2.5
"""Standard errors that a neuron has to be away from a threshold to be left as it is estimated."""
FROM, OUTLYING, UNSURE = 1 / 3, 0.2, 1.5
"""Neurons are tried from this share of a threshold on; a trial counts that finds an effect at least so much more or
less than its estimate, as a share; then standard errors are so many times as large, since a trial is few prompts."""
PRIOR, CUT = 10, 4.0
"""As many neurons of the whole language are added to those of a pool; and standard errors where errors are cut off."""

Contrasts = Sequence[tuple[float, float]]
"""Weights of the mean effects on either group of prompts, for every score that a labelling may rank by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """The neurons that a rule ranks together: `means` of their estimates over each group of prompts [group, neuron],
    `squares` of what independent errors add to those, Σ e² / n² [group, neuron], and how many the rule takes."""

    names: list[Neuron]
    means: np.ndarray
    squares: np.ndarray
    count: int


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How far estimates are off, relative to themselves: `bias`, the median over neurons; `alike`, the standard error
    that all prompts of a neuron share; `apart`, that which each prompt has for itself."""

    bias: float = 0.0
    alike: float = 0.0
    apart: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """What is known of the neurons of a pool: `exact` means of those measured [group, neuron], and of those tried by
    how much either group's estimates were off, `factors` [group, neuron], 1 for all others."""

    measured: np.ndarray
    exact: np.ndarray
    factors: np.ndarray


def weighted(rule: str, sizes: tuple[int, int]) -> Contrasts:
    """What a rule may rank by if the groups are the contexts, one way or the other.

    By a context's mean: that of either group and of all prompts. By a contrast: that of the groups in both directions.
    """
    if rule in ("difference", "both"):
        less = 1.0 if rule == "difference" else 0.5
        return (1.0, -less), (-less, 1.0)
    whole = sum(sizes)
    return (sizes[0] / whole, sizes[1] / whole), (1.0, 0.0), (0.0, 1.0)


def hidden(pool: Pool, contrasts: Contrasts, widest: float) -> np.ndarray:
    """Neurons below a first band of `widest` · `START`, and above `FROM` of the threshold: bool [neuron]."""
    found = np.zeros(len(pool.names), dtype=bool)
    for weights in contrasts:
        score = np.asarray(weights) @ pool.means
        threshold = largest(score, pool.count)
        if threshold > 0:
            found |= (score > FROM * threshold) & (score < (1 - START * widest) * threshold)
    return found


def in_doubt(pool: Pool, known: Known, contrasts: Contrasts, widest: float, errors: Errors | None) -> np.ndarray:
    """Neurons that have not been measured and could be on the other side of a threshold, bool [neuron].

    The threshold is that of exact scores where there are some, of estimates less their bias elsewhere, of tried ones
    with their factors. With `errors` None, before any is known, those within `widest` · `START` of the threshold; else
    those within `SURE` standard errors, and `widest` of the score at most. Where the bias decides on which side of the
    threshold an estimate is, it is in doubt, too, since the rule will read it as it is.
    """
    found = np.zeros(len(pool.names), dtype=bool)
    outlying = (known.factors != 1).any(axis=0)
    seen = errors or Errors()
    for weights in (np.asarray(some) for some in contrasts):
        raw = weights @ pool.means
        exact = weights @ known.exact
        likely = np.where(outlying, weights @ (pool.means * known.factors), raw * (1 + seen.bias))
        score = np.where(known.measured, exact, likely)
        threshold = largest(score, pool.count)
        if threshold <= 0:
            continue
        wide = np.full(len(raw), START * widest * threshold)
        if errors is not None:
            deviation = np.hypot(errors.alike * raw, errors.apart * np.sqrt(weights**2 @ pool.squares))
            most = widest * np.maximum(np.abs(weights) @ np.abs(pool.means), threshold)
            wide = np.minimum(SURE * deviation * np.where(outlying, UNSURE, 1.0), most)
        away = np.abs(score - threshold)
        found |= away <= wide
        if errors is not None:
            read = largest(np.where(known.measured, exact, raw), pool.count)
            found |= ((raw >= read) != (score >= threshold)) & (away <= wide + np.abs(raw - score))
    return found & ~known.measured & pool.means.any(axis=0)


def errors_of(pools: Sequence[Sequence[Neuron]], seen: dict[Neuron, tuple[float, float]]) -> list[Errors]:
    """The errors of every pool, from `seen`: neuron → its `factor` and `scatter`. Where a pool has few such neurons,
    those of all pools count."""
    if not seen:
        return [Errors() for _ in pools]
    whole = np.array(list(seen.values()))
    middle, scatter = np.median(whole, axis=0)
    usual = 1.4826 * float(np.median(np.abs(whole[:, 0] - middle)))
    found = []
    for names in pools:
        own = np.array([seen[name] for name in names if name in seen]).reshape(-1, 2)
        n = len(own)
        medians = np.median(own, axis=0) if n else np.zeros(2)
        bias, apart = (n * medians + PRIOR / 2 * np.array([middle, scatter])) / (n + PRIOR / 2)
        off = np.clip(own[:, 0] - bias, -CUT * usual, CUT * usual)
        alike = np.sqrt(((off**2).sum() + PRIOR * usual**2) / (n + PRIOR))
        found.append(Errors(bias=float(bias) - 1, alike=float(alike), apart=float(apart)))
    return found


def factor(estimates: np.ndarray, exact: np.ndarray) -> float:
    """What a neuron's estimates, [prompt], have to be multiplied by to be right on the whole."""
    size = np.abs(estimates).sum()
    return float((exact * np.sign(estimates)).sum() / size) if size > 0 else 1.0


def scatter(estimates: np.ndarray, exact: np.ndarray) -> float:
    """The root mean square of what is left of the errors of a neuron's estimates, [prompt], over that of these."""
    size = np.sqrt((estimates**2).sum())
    left = exact - factor(estimates, exact) * estimates
    return float(np.sqrt((left**2).sum()) / size) if size > 0 else 0.0


def largest(values: np.ndarray, count: int) -> float:
    """The `count`-th largest value."""
    return float(np.partition(values, len(values) - count)[len(values) - count])
