"""Screen, then verify: which neurons near the threshold are measured by ablation, and what an audit of the rest shows.

Which neurons are verified in a language follows from all its *identify* prompts together, and from no label. Every
prompt then has one effect of every neuron, whichever prompts are called harmful: an exact one of those verified, an
estimate of the others. Exchanged labels, placebos and half-samples read these very effects, so that the observed set
and those beside it are found by the same procedure from the same numbers, and their p is as valid as without
verification. The band around the threshold that the observed labels set would not have this property: its neurons alone
would be exact under the observed labels, and others under exchanged ones. So the band is that of the threshold which
the pooled prompts set, enlarged by what a labelling of them can do; `Audit.covered` says how much of the observed
threshold's band is in it.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssn_probe.neurons import SITES
from ssn_probe.neurons.selection import contrast_score, in_top
from ssn_probe.spec import SafetyNeurons
from ssn_probe.stats.nulls.prompt_effects import Place, pooled
from ssn_probe.tracing.kept_values import Neuron

LEAST, SHARE = 20, 0.001
"""Neurons of a language that are audited at least, and the share of those that were not verified."""
REACH = 1.0
"""Standard errors of a context's mean under a random labelling by which the band is enlarged on either side."""

CONTRASTS = ("difference", "both")
"""Rules that rank by a contrast of harmful and harmless prompts."""

Read = Callable[[str, int, str], np.ndarray]
"""Context, layer, site → effects [prompt, neuron] of a language."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The neurons of a language that are measured exactly, `neurons` to replace their estimates, `audited` to not."""

    neurons: tuple[Neuron, ...]
    audited: tuple[Neuron, ...]
    total: int


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What verification did in a language.

    `band`: neurons whose estimate is in the band of the threshold that the labels set, `covered` those of them that
    were verified. `missed`: how many of the `rejected`, audited neurons that the rule left out it would take with their
    exact effects; `bound` is the one-sided 95 % bound of Clopper and Pearson (1934) on their share. `ranks` is
    Spearman's correlation and `error` the median relative error of the estimates of audited neurons.
    """

    language: str
    total: int
    verified: int
    band: int
    covered: int
    audited: int
    rejected: int
    missed: int
    bound: float
    ranks: float
    error: float


def to_verify(node: SafetyNeurons, places: Sequence[Place], language: str, read: Read) -> Verified:
    """The neurons that are verified in a language, and those audited; both in forward order."""
    near, far = [], []
    for layers, sites, index, sides in _pools(node, places, read):
        inside = near_threshold(node, *sides)
        for number, (layer, site, which) in enumerate(zip(layers, sites, index, strict=True)):
            (near if inside[number] else far).append((int(layer), str(site), int(which)))
    random = np.random.default_rng([node.audit_seed, zlib.crc32(language.encode())])
    count = min(len(far), max(LEAST, math.ceil(SHARE * len(far))))
    far.sort(key=_forward)
    drawn = [far[row] for row in random.choice(len(far), count, replace=False)] if far else []
    return Verified(
        neurons=tuple(sorted(near, key=_forward)),
        audited=tuple(sorted(drawn, key=_forward)),
        total=len(near) + len(far),
    )


def expected_passes(node: SafetyNeurons, neurons: int, layers: int) -> float:
    """Forward passes that verification is expected to take on a prompt, before the estimates are known.

    A pass without a neuron begins at the neuron's layer, so on average over `layers` it is (layers + 1) / (2 · layers)
    of a whole one. The number of neurons is that of effects whose sizes fall off exponentially, where a share of
    top^x is above x times the threshold; `REACH` adds to it what depends on the prompts.
    """
    assert node.top is not None
    assert node.verify is not None
    above, below = node.top ** (1 + node.verify), node.top ** (1 - node.verify)
    near = below if node.rule in CONTRASTS else below - above
    audited = max(LEAST, SHARE * neurons)
    return min(neurons, near * neurons + audited) * (layers + 1) / (2 * layers)


def near_threshold(node: SafetyNeurons, harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
    """Which neurons of a pool are verified, bool [neuron]: a symmetric function of the prompts of both contexts.

    For the rules that rank by a context's mean, those whose pooled mean is within `verify` times the pooled threshold
    of it, or beyond by `REACH` standard errors at most. For those that rank by a contrast, of which no labelling can
    make more than the spread over prompts allows, those whose largest possible score is at least 1 − `verify` of the
    pool's k-th largest.
    """
    assert node.top is not None
    assert node.verify is not None
    values = np.concatenate([harmful, harmless]).astype(np.float64)
    values.sort(axis=0)  # sums do not depend on the order of prompts
    count = math.ceil(values.shape[1] * node.top - 1e-9)
    spread = values.std(axis=0)
    mean = values.mean(axis=0)
    if node.rule in CONTRASTS:
        highest = _highest(node.rule, mean, spread, len(harmful), len(harmless))
        return (highest > 0) & (highest >= (1 - node.verify) * _largest(highest, count))
    threshold = _largest(mean, count)
    if threshold <= 0:
        return np.zeros(len(mean), dtype=bool)
    fewest, n = min(len(harmful), len(harmless)), len(values)
    error = spread * math.sqrt(max(0.0, 1 / fewest - 1 / n) * n / max(1, n - 1))
    return (mean != 0) & (np.abs(mean - threshold) <= node.verify * threshold + REACH * error)


def _highest(rule: str, mean: np.ndarray, spread: np.ndarray, harmful: int, harmless: int) -> np.ndarray:
    """The highest score that any labelling with so many prompts of each kind gives a neuron, [neuron].

    h − b is at most spread · n / √(harmful · harmless), n the number of prompts: then all harmful prompts have one
    effect and all harmless ones another. And h − b/2 = mean/2 + (h − b) · (n + harmless) / 2n.
    """
    n = harmful + harmless
    gap = spread * n / math.sqrt(harmful * harmless)
    return gap if rule == "difference" else mean / 2 + gap * (n + harmless) / (2 * n)


def audit(
    node: SafetyNeurons,
    places: Sequence[Place],
    language: str,
    verified: Verified,
    sources: tuple[Read, Read],
    exact: Mapping[Neuron, tuple[float, float]],
) -> Audit:
    """What verification changed and missed, from mean effects under the observed labels.

    sources: the estimates, and the effects that the rule reads; exact: audited neuron → its exact mean effect on
    harmful and on harmless prompts.
    """
    estimates, used = sources
    chosen, band, covered, rejected, missed, pairs = set(verified.neurons), 0, 0, 0, 0, []
    for layers, sites, index, sides in _pools(node, places, estimates):
        first = [side.mean(axis=0, dtype=np.float64) for side in sides]
        names: list[Any] = [(int(a), str(b), int(c)) for a, b, c in zip(layers, sites, index, strict=True)]
        close = _in_band(node, first)
        band += int(close.sum())
        covered += sum(name in chosen for name, here in zip(names, close, strict=True) if here)
        wanted = [(row, name) for row, name in enumerate(names) if name in exact]
        if not wanted:
            continue
        members = list(dict.fromkeys(zip(layers.tolist(), sites.tolist(), strict=True)))
        final = [np.concatenate([used(side, *place) for place in members], axis=1).mean(0, dtype=np.float64)
                 for side in ("harmful", "harmless")]  # fmt: skip
        before = _taken(node, *final)
        for row, name in wanted:
            pairs.append((_score(node, first[0][row], first[1][row]), _score(node, *exact[name])))
            if before[row]:
                continue
            trial = [side.copy() for side in final]
            trial[0][row], trial[1][row] = exact[name]
            rejected += 1
            missed += int(_taken(node, *trial)[row])
    return Audit(
        language=language,
        total=verified.total,
        verified=len(verified.neurons),
        band=band,
        covered=covered,
        audited=len(verified.audited),
        rejected=rejected,
        missed=missed,
        bound=upper_bound(missed, rejected),
        **_errors(pairs),
    )


def upper_bound(count: int, n: int, confidence: float = 0.95) -> float:
    """The one-sided exact upper bound of a share of which `count` of `n` were found (Clopper & Pearson 1934)."""
    from scipy.stats import binomtest

    return float(binomtest(count, n, alternative="less").proportion_ci(confidence).high) if n else 1.0


def _pools(node: SafetyNeurons, places: Sequence[Place], read: Read) -> Iterator[tuple]:
    """Layers, sites and indices of every pool's neurons, and their effects in either context [prompt, neuron]."""
    for group in pooled(tuple(places), node.pool):
        sides = [[read(side, *place) for place in group] for side in ("harmful", "harmless")]
        widths = [block.shape[1] for block in sides[0]]
        layers, sites = (np.repeat([place[part] for place in group], widths) for part in (0, 1))
        index = np.concatenate([np.arange(width) for width in widths])
        yield layers, sites, index, [np.concatenate(side, axis=1) for side in sides]


def _largest(values: np.ndarray, count: int) -> float:
    return float(np.partition(values, len(values) - count)[len(values) - count])


def _taken(node: SafetyNeurons, harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
    assert node.top is not None
    if node.rule == "paper":
        return in_top(harmful, node.top) & ~in_top(harmless, node.top)
    return in_top(contrast_score(node.rule, harmful, harmless), node.top)


def _in_band(node: SafetyNeurons, means: Sequence[np.ndarray]) -> np.ndarray:
    """Which neurons' estimates are within the band of a threshold that the labels set, of either context's."""
    assert node.top is not None
    assert node.verify is not None
    scores = means if node.rule == "paper" else [contrast_score(node.rule, *means)]
    found = np.zeros(len(means[0]), dtype=bool)
    for score in scores:
        threshold = _largest(score, math.ceil(len(score) * node.top - 1e-9))
        found |= (threshold > 0) & (np.abs(score - threshold) <= node.verify * threshold)
    return found


def _score(node: SafetyNeurons, harmful: float, harmless: float) -> float:
    return contrast_score("harmful" if node.rule == "paper" else node.rule, harmful, harmless)


def _errors(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    import scipy.stats

    if len(pairs) < 2:
        return {"ranks": math.nan, "error": math.nan}
    spearman: Any = scipy.stats.spearmanr
    estimate, exact = np.array(pairs).T
    varied = np.ptp(estimate) > 0 and np.ptp(exact) > 0
    moved = exact != 0
    error = float(np.median(np.abs(estimate - exact)[moved] / np.abs(exact)[moved])) if moved.any() else math.nan
    return {"ranks": float(spearman(estimate, exact).statistic) if varied else math.nan, "error": error}


def _forward(neuron: Neuron) -> tuple[int, int, int]:
    return neuron[0], SITES.index(neuron[1]), neuron[2]
