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

import hashlib
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
TRIED, FROM, NEARLY = 4, 0.4, 0.9
"""Prompts on which neurons below the band are tried, from which share of the threshold on they are; and the share of it
that what a trial makes of them has to reach. A few neurons have several times the effect that their first order has."""

CONTRASTS = ("difference", "both")
"""Rules that rank by a contrast of harmful and harmless prompts."""

Read = Callable[[str, int, str], np.ndarray]
"""Context, layer, site → effects [prompt, neuron] of a language."""
Try = Callable[[Sequence[Neuron]], np.ndarray]
"""Neurons → their exact effects over their estimates on a few prompts that no label chose, [neuron]."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The neurons of a language that are measured exactly, `neurons` to replace their estimates, `audited` to not.

    `tried`: how many were measured on a few prompts, to see which of them come near the threshold.
    """

    neurons: tuple[Neuron, ...]
    audited: tuple[Neuron, ...]
    total: int
    tried: int = 0


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What verification did in a language.

    `tried`: neurons below the band that were ablated on `TRIED` prompts first. `band`: neurons whose estimate is in the
    band of the threshold that the labels set, `covered` those of them that were verified. `missed`: how many of the
    `rejected`, audited neurons that the rule left out it would take with their exact effects; `bound` is the one-sided
    95 % bound of Clopper and Pearson (1934) on their share. `ranks` is Spearman's correlation and `error` the median
    relative error of the estimates of audited neurons.
    """

    language: str
    total: int
    tried: int
    verified: int
    band: int
    covered: int
    audited: int
    rejected: int
    missed: int
    bound: float
    ranks: float
    error: float


def to_verify(node: SafetyNeurons, places: Sequence[Place], language: str, read: Read, trial: Try) -> Verified:
    """The neurons that are verified in a language, and those audited; both in forward order.

    Estimates that are too low hide neurons below the band. So those from `FROM` of the threshold on are tried, and
    verified where the estimate times what the trial found comes to `NEARLY` the threshold.
    """
    near: set[Neuron] = set()
    every: list[Neuron] = []
    below: dict[Neuron, float] = {}
    for layers, sites, index, sides in pools_of(node, places, read):
        inside, share = near_threshold(node, *sides)
        names = [(int(a), str(b), int(c)) for a, b, c in zip(layers, sites, index, strict=True)]
        every += names  # type: ignore[arg-type]
        near |= {names[row] for row in np.flatnonzero(inside)}  # type: ignore[misc]
        hidden = ~inside & (share >= FROM) & (share < 1)
        below |= {names[row]: float(share[row]) for row in np.flatnonzero(hidden)}  # type: ignore[misc]
    tried = sorted(below, key=_forward)
    if tried:
        near |= {one for one, factor in zip(tried, trial(tried), strict=True) if below[one] * factor >= NEARLY}
    far = sorted(set(every) - near, key=_forward)
    random = np.random.default_rng([node.audit_seed, zlib.crc32(language.encode())])
    count = min(len(far), max(LEAST, math.ceil(SHARE * len(far))))
    drawn = [far[row] for row in random.choice(len(far), count, replace=False)] if far else []
    return Verified(
        neurons=tuple(sorted(near, key=_forward)),
        audited=tuple(sorted(drawn, key=_forward)),
        total=len(every),
        tried=len(tried),
    )


def tried_prompts(tokens: Sequence[Sequence[int]]) -> list[int]:
    """The rows of `TRIED` prompts that depend on neither their order nor their labels."""
    digests = [hashlib.sha256(repr([int(token) for token in row]).encode()).digest() for row in tokens]
    return sorted(range(len(tokens)), key=lambda row: digests[row])[:TRIED]


def expected_passes(node: SafetyNeurons, neurons: int, layers: int, prompts: int) -> float:
    """Forward passes that verification is expected to take on each of `prompts`, before the estimates are known.

    A pass without a neuron begins at the neuron's layer, so on average over `layers` it is (layers + 1) / (2 · layers)
    of a whole one. The number of neurons is that of effects whose sizes fall off exponentially, where a share of
    top^x is above x times the threshold; bands of halves of the prompts add what depends on the prompts.
    """
    assert node.top is not None
    assert node.verify is not None
    above, below = node.top ** (1 + node.verify), node.top ** (1 - node.verify)
    near = below if node.rule in CONTRASTS else below - above
    audited = max(LEAST, SHARE * neurons)
    tried = 0 if node.rule in CONTRASTS else (node.top**FROM - below) * neurons * min(1, TRIED / max(1, prompts))
    return min(neurons, near * neurons + tried + audited) * (layers + 1) / (2 * layers)


def near_threshold(node: SafetyNeurons, harmful: np.ndarray, harmless: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which neurons of a pool are in the band, bool [neuron]: a symmetric function of the prompts of both contexts.

    For the rules that rank by a context's mean, those whose mean over all prompts is within `verify` times their
    threshold of it, and likewise over each of the halves that are most unlike, since a neuron that is high in one
    context may be just at the threshold in the other. For those that rank by a contrast, of which no labelling can
    make more than the spread over prompts allows, those whose largest possible score is at least 1 − `verify` of the
    pool's k-th largest.

    Beside it the pooled means in thresholds, [neuron]; 0 for a contrast, where trials find nothing that is worth them.
    """
    assert node.top is not None
    assert node.verify is not None
    values = np.concatenate([harmful, harmless]).astype(np.float64)
    values = values[np.lexsort(values.T)]  # so that nothing depends on the order of prompts
    count = math.ceil(values.shape[1] * node.top - 1e-9)
    mean = values.mean(axis=0)
    if node.rule in CONTRASTS:
        highest = _highest(node.rule, mean, values.std(axis=0), len(harmful), len(harmless))
        return (highest > 0) & (highest >= (1 - node.verify) * _largest(highest, count)), np.zeros(len(mean))
    inside = np.zeros(len(mean), dtype=bool)
    for some in (values, *_unlike_halves(values)):
        centre = some.mean(axis=0)
        threshold = _largest(centre, count)
        inside |= (centre != 0) & (threshold > 0) & (np.abs(centre - threshold) <= node.verify * threshold)
    threshold = _largest(mean, count)
    return inside, mean / threshold if threshold > 0 else np.zeros(len(mean))


def _unlike_halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
    """The prompts that are low and those that are high along the first principal component of their effects.

    Where neurons of a pool tell harmful prompts from harmless ones by much, these are about the two contexts, found
    without a label. values: [prompt, neuron]; none where all prompts have the same effects.
    """
    apart = values - values.mean(axis=0)
    along = np.linalg.eigh(apart @ apart.T)[1][:, -1]
    high = along > np.median(along)
    return (values[~high], values[high]) if high.any() else ()


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
    for layers, sites, index, sides in pools_of(node, places, estimates):
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
        before = taken(node, *final)
        for row, name in wanted:
            pairs.append((_score(node, first[0][row], first[1][row]), _score(node, *exact[name])))
            if before[row]:
                continue
            trial = [side.copy() for side in final]
            trial[0][row], trial[1][row] = exact[name]
            rejected += 1
            missed += int(taken(node, *trial)[row])
    return Audit(
        language=language,
        total=verified.total,
        tried=verified.tried,
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


def pools_of(node: SafetyNeurons, places: Sequence[Place], read: Read) -> Iterator[tuple]:
    """Layers, sites and indices of every pool's neurons, and their effects in either context [prompt, neuron]."""
    for group in pooled(tuple(places), node.pool):
        sides = [[read(side, *place) for place in group] for side in ("harmful", "harmless")]
        widths = [block.shape[1] for block in sides[0]]
        layers, sites = (np.repeat([place[part] for place in group], widths) for part in (0, 1))
        index = np.concatenate([np.arange(width) for width in widths])
        yield layers, sites, index, [np.concatenate(side, axis=1) for side in sides]


def _largest(values: np.ndarray, count: int) -> float:
    return float(np.partition(values, len(values) - count)[len(values) - count])


def taken(node: SafetyNeurons, harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
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
