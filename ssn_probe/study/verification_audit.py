"""What verification changed in a language, and what an audit of the neurons that were not ablated shows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssn_probe.neurons.selection import contrast_score, in_top
from ssn_probe.spec import SafetyNeurons
from ssn_probe.stats.nulls.prompt_effects import Place, pooled
from ssn_probe.study.verification import Read, Verified
from ssn_probe.study.verification_band import largest
from ssn_probe.tracing.kept_values import Neuron

NEAR = 0.4
"""Times `verify`: a neuron whose estimate is no farther from the observed threshold is near it."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What verification did in a language.

    `verified`: neurons that were ablated on all prompts, `tried` those on some; `spent`: the share of all neurons × all
    prompts that both are, `computed` that of their tokens that ran. `doubtful`: neurons that could still be on the
    other side of a threshold, since no more may be spent. `band`: neurons whose estimate is within `NEAR` · `verify` of
    the threshold that the labels set, `covered` those of them that were ablated. `missed`: how many of the `rejected`,
    audited neurons that the rule left out it would take with their exact effects; `bound` is the one-sided 95 % bound
    of Clopper and Pearson (1934) on their share. `ranks` is Spearman's correlation and `error` the median relative
    error of the estimates of audited neurons.
    """

    language: str
    total: int
    verified: int
    tried: int
    spent: float
    computed: float
    doubtful: int
    band: int
    covered: int
    audited: int
    rejected: int
    missed: int
    bound: float
    ranks: float
    error: float


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
        verified=len(verified.complete),
        tried=len(verified.neurons) - len(verified.complete),
        spent=verified.spent,
        computed=verified.computed,
        doubtful=verified.doubtful,
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


def taken(node: SafetyNeurons, harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
    assert node.top is not None
    if node.rule == "paper":
        return in_top(harmful, node.top) & ~in_top(harmless, node.top)
    return in_top(contrast_score(node.rule, harmful, harmless), node.top)


def _in_band(node: SafetyNeurons, means: Sequence[np.ndarray]) -> np.ndarray:
    """Which neurons' estimates are within `NEAR` · `verify` of a threshold that the labels set, of either context's."""
    assert node.top is not None
    assert node.verify is not None
    scores = means if node.rule == "paper" else [contrast_score(node.rule, *means)]
    found = np.zeros(len(means[0]), dtype=bool)
    for score in scores:
        threshold = largest(score, math.ceil(len(score) * node.top - 1e-9))
        found |= (threshold > 0) & (np.abs(score - threshold) <= NEAR * node.verify * threshold)
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
