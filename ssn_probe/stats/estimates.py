"""What was measured, with its interval: a rate, a paired difference, an average over languages.

The caller decides which prompts count: a value that is not finite is refused here, never dropped. For the attack
success rate, *judged* means that the judge's answer parsed: refused + complied + invalid. So ASR = complied / judged,
an invalid response counts in the denominator and not as a success, the invalid rate has the same denominator, and the
rates of refused, complied and invalid add up to 1; unjudged responses are in none. asr_paper = not refused /
judged, as in published figures: there invalid responses count as successes.

The interval is Wilson's (Newcombe's for a difference) where outcomes are 0 or 1 and every cluster is a single prompt.
Where prompts share clusters, of one column or of several that cross, it is the same closed form on the *effective*
number of prompts: as many independent ones as would have the variance over clusters (`intervals.cluster_jackknife`),
never more than there are, and fewer by (z/t)² for the quantile of Student's t in place of the normal one. Other values
get value ± t·√variance. Languages are no sample: they are the ones that were asked, and translations of a prompt share
its clusters.

Where the clusters have no spread (a rate at 0 or 100 %, a single cluster, clusters that agree, a language with one) the
method is "degenerate", and the closed form is on the number of clusters, of the column with the fewest, which is
conservative: it counts the prompts of a cluster once. Where no closed form exists (values other than 0 and 1, such as
nats, which are no rate even where they lie between) low = value = high, and only the label says that the spread is
unknown.

Simulated coverage of .95 for 200 prompts on 16 actions × 64 objects, whose log-odds have standard deviations of 0, 1
and 2 over actions, as much over objects, and half as much over prompts (1,000 repetitions, standard error .007;
`tests/stats/test_crossed_coverage.py`). Conservative where clusters do not matter or outcomes are few, and too narrow
in one corner: a rate near 0 or 100 % that a few clusters make, in languages that agree.

| | no clusters | middle | middle, 6 languages | large, 6 languages |
|---|---|---|---|---|
| rate 2 % | .990 | .983 | .945 | .901 |
| rate 40 % | .976 | .945 | .946 | .954 |
| 60 % − 40 % | | | .950 | .952 |
| 5 % − 2 % | | | .943 | |

With 60 prompts on 8 × 12: rate 5 % .989, 40 % .963, 50 % − 30 % .983.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssn_probe.stats.intervals import (
    DEGENERATE,
    Array,
    Codes,
    Estimate,
    cluster_jackknife,
    newcombe,
    normal_quantile,
    t_quantile,
    wilson,
)


def rate(successes: ArrayLike, clusters: ArrayLike, *, confidence: float = 0.95) -> Estimate | None:
    """What share of the prompts succeeded (or: what is their mean), and how certain is that?

    `successes` [prompt] bool, 0/1 or real; `clusters` [prompt] labels, or [prompt, column] where clusters cross:
    prompts with one label are not independent. None without prompts. Raises ValueError for values that are not finite,
    lengths that differ or missing labels.
    """
    return _estimate(_sample(successes, None, clusters, None), confidence)


def paired_difference(
    arm: ArrayLike,
    baseline: ArrayLike,
    clusters: ArrayLike,
    *,
    confidence: float = 0.95,
) -> Estimate | None:
    """How much higher is the arm than the baseline on the same prompts, and how certain is that?

    `arm`, `baseline` [prompt] and `clusters` as in `rate`, row by row the same prompt: leave a prompt out of both where
    either has no verdict. None without prompts. Raises ValueError as `rate` does.
    """
    return _estimate(_sample(arm, baseline, clusters, None), confidence)


def language_average(
    values: ArrayLike,
    clusters: ArrayLike,
    languages: ArrayLike,
    *,
    baseline: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Estimate | None:
    """What is the mean over languages of each language's mean (or paired difference, with a `baseline`)?

    All arrays [prompt × language, flat], clusters as in `rate`. Languages have equal weight however many of their
    responses were judged, unlike in a pooled rate. Translations share a cluster label, so that a prompt counts in all
    languages together. `n` counts rows. None without rows; a language without rows is not in the average, so give
    rows for every language that belongs to it.
    """
    return _estimate(_sample(values, baseline, clusters, languages), confidence)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Rows with their clusters, in every column, and group (language) as codes from 0."""

    arm: Array
    baseline: Array | None
    clusters: tuple[Codes, ...]
    groups: Codes

    @property
    def levels(self) -> tuple[int, ...]:
        return tuple(int(codes.max()) + 1 for codes in self.clusters)


def _sample(
    arm: ArrayLike, baseline: ArrayLike | None, clusters: ArrayLike, languages: ArrayLike | None
) -> _Sample | None:
    given = _finite(arm, "values")
    if not len(given):
        return None
    before = None if baseline is None else _same_length(_finite(baseline, "baseline"), given, "baseline")
    labels = np.asarray(clusters)
    columns = labels.T if labels.ndim == 2 else [labels]
    groups = np.zeros(len(given), dtype=np.intp) if languages is None else _codes(languages, given, "languages")
    return _Sample(
        arm=given,
        baseline=before,
        clusters=tuple(_codes(column, given, "clusters") for column in columns),
        groups=groups,
    )


def _estimate(sample: _Sample | None, confidence: float) -> Estimate | None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if sample is None:
        return None
    # Differences before the mean: the difference of two equal means may be 1e-17.
    values = sample.arm if sample.baseline is None else sample.arm - sample.baseline
    value = _mean(sample, values)
    low, high, method = _interval(sample, values, value, confidence)
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        n=len(values),
        clusters=min(sample.levels),
        method=method,
        crossed=sample.levels if len(sample.levels) > 1 else (),
    )


def _interval(sample: _Sample, values: Array, value: float, confidence: float) -> tuple[float, float, str]:
    # Where every cluster has one row, rows are independent; identically distributed only within a single group.
    if min(sample.levels) == len(values) and sample.groups.max() == 0 and _binary(sample):
        return *_closed(sample, value, len(values), confidence), "wilson" if sample.baseline is None else "newcombe"
    spread = cluster_jackknife(values, sample.clusters, sample.groups)
    if spread is None:
        limits = _closed(sample, value, _fewest(sample), confidence) if _binary(sample) else (value, value)
        return *limits, DEGENERATE
    t = t_quantile(confidence, spread.freedom)
    variance = max(spread.variance, _of_independent_rows(sample, values))
    if not _binary(sample):
        return value - t * sqrt(variance), value + t * sqrt(variance), "clusters"
    effective = (_mean(sample, values**2) - value**2) / variance * (normal_quantile(confidence) / t) ** 2
    return *_closed(sample, value, effective, confidence), "clusters"


def _of_independent_rows(sample: _Sample, values: Array) -> float:
    """The variance of the mean of group means if all rows were independent: clusters do not make it less."""
    counts = np.bincount(sample.groups)
    means = np.bincount(sample.groups, weights=values) / counts
    scatter = np.bincount(sample.groups, weights=(values - means[sample.groups]) ** 2)
    return float((scatter / counts**2).sum()) / len(counts) ** 2


def _fewest(sample: _Sample) -> int:
    """The clusters of the column and group with the fewest."""
    groups = range(int(sample.groups.max()) + 1)
    return min(len(np.unique(codes[sample.groups == group])) for codes in sample.clusters for group in groups)


def _closed(sample: _Sample, value: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's or Newcombe's limits as if the rates had been observed in n independent prompts."""
    if sample.baseline is None:
        return wilson(min(max(value, 0.0), 1.0) * n, n, confidence)
    arm, before = sample.arm, sample.baseline
    cells = (arm * before, arm * (1 - before), (1 - arm) * before, (1 - arm) * (1 - before))
    both, first, second, neither = (_mean(sample, cell) * n for cell in cells)
    return newcombe(both, first, second, neither, confidence)


def _mean(sample: _Sample, values: Array) -> float:
    """The mean over groups of their means. Sums first: weights would make .9999999999999999 of a rate of 100 %."""
    return float((np.bincount(sample.groups, weights=values) / np.bincount(sample.groups)).mean())


def _binary(sample: _Sample) -> bool:
    sides = (sample.arm,) if sample.baseline is None else (sample.arm, sample.baseline)
    return all(bool(np.isin(side, (0.0, 1.0)).all()) for side in sides)


def _finite(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a row of finite numbers: leave out what was not measured beforehand")
    return array


def _same_length(array: NDArray, like: Array, name: str) -> NDArray:
    if array.shape != like.shape:
        raise ValueError(
            f"{name} has shape {array.shape}, the values have {like.shape}: one entry per prompt is needed"
        )
    return array


def _codes(labels: ArrayLike, like: Array, name: str) -> NDArray[np.intp]:
    array = _same_length(np.asarray(labels), like, name)
    missing = array.dtype == object and any(label is None for label in array)
    if missing or (array.dtype.kind == "f" and np.isnan(array).any()):
        raise ValueError(f"{name} has missing labels: every prompt needs one")
    return np.unique(array, return_inverse=True)[1].astype(np.intp)
