"""Screen, then verify: which neurons near the threshold are measured by ablation, and what an audit of the rest shows.

Which neurons are verified in a language follows from all its *identify* prompts together, and from no label. Every
prompt then has one effect of every neuron, whichever prompts are called harmful: an exact one of those verified, an
estimate of the others. Exchanged labels, placebos and half-samples read these very effects, so that the observed set
and those beside it are found by the same procedure from the same numbers, and their p is as valid as without
verification. The band around the threshold that the observed labels set would not have this property: its neurons alone
would be exact under the observed labels, and others under exchanged ones. So the band is that of two groups of prompts
that differ most in their effects, whatever they are called (`unlabelled_contexts`); `Audit.covered` says how much of
the observed threshold's band is in it.
"""

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssn_probe.neurons import SITES
from ssn_probe.neurons.selection import contrast_score, in_top
from ssn_probe.spec import SafetyNeurons
from ssn_probe.stats.nulls.prompt_effects import Place, pooled
from ssn_probe.study.unlabelled_contexts import alike, telling, two_groups
from ssn_probe.study.verification_band import (
    FROM,
    OUTLYING,
    START,
    Contrasts,
    Known,
    Pool,
    errors_of,
    factor,
    hidden,
    in_doubt,
    largest,
    scatter,
    weighted,
)
from ssn_probe.tracing.kept_values import Neuron

LEAST, SHARE = 20, 0.001
"""Neurons of a language that are audited at least, and the share of those that were not verified."""
ROUNDS = 3
"""Times that neurons are measured at most. Each round knows the errors of those before."""
TRIED = 2
"""Prompts on which neurons below the band are tried, one of each group. A few neurons have several times the effect
that their first order has."""

CONTRASTS = ("difference", "both")
"""Rules that rank by a contrast of harmful and harmless prompts."""

Read = Callable[[str, int, str], np.ndarray]
"""Context, layer, site → effects [prompt, neuron] of a language."""
Measure = Callable[[Sequence[Neuron], Sequence[int] | None], np.ndarray]
"""Neurons, and numbers of prompts, harmful ones before harmless ones, None for all → exact effects [prompt, neuron]."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The neurons of a language that are measured exactly, `neurons` to replace their estimates, `audited` to not.

    `tried`: how many were measured on two prompts, to see which of them come near the threshold. `exact`: effects of
    `neurons`, [prompt, neuron], harmful prompts before harmless ones.
    """

    neurons: tuple[Neuron, ...]
    audited: tuple[Neuron, ...]
    total: int
    tried: int = 0
    exact: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)), compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What verification did in a language.

    `tried`: neurons below the band that were ablated on `TRIED` prompts first. `band`: neurons whose estimate is in the
    first band, `START` of the largest, of the threshold that the labels set, `covered` those of them that were
    verified. `missed`: how many of the
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


def to_verify(
    node: SafetyNeurons, places: Sequence[Place], language: str, read: Read, measure: Measure, order: Sequence[int]
) -> Verified:
    """The neurons that are verified in a language, with their exact effects, and those audited; both in forward order.

    First those nearest a threshold are measured, and then, as long as errors that were seen leave others in doubt,
    these (`verification_band.in_doubt`). Estimates that are too low hide neurons below the band: those from `FROM` of
    the threshold on are tried first, on one prompt of either group.

    order: of the prompts, harmful ones before harmless ones, which depends on neither their places nor their labels.
    """
    assert node.verify is not None
    estimates = _Estimates(read=read, groups=pooled(tuple(places), node.pool), order=np.asarray(order))
    count = len(read("harmful", *places[0]))
    group = two_groups(alike(estimates.at([place]) for place in telling(places)), count)
    pools = [estimates.pool(number, group, node.top or 0.0) for number in range(len(estimates.groups))]
    contrasts = weighted(node.rule, (int(group.sum()), int((~group).sum())))
    known, tried = _tried(node.verify, pools, contrasts, estimates, group, measure)
    columns, exact = _measured(node.verify, pools, known, contrasts, estimates, group, measure)
    near = [pool.names[column] for pool, some in zip(pools, columns, strict=True) for column in some]
    ranked = sorted(range(len(near)), key=lambda row: _forward(near[row]))
    chosen, total = set(near), sum(len(pool.names) for pool in pools)
    far = sorted((name for pool in pools for name in pool.names if name not in chosen), key=_forward)
    random = np.random.default_rng([node.audit_seed, zlib.crc32(language.encode())])
    audited = min(len(far), max(LEAST, math.ceil(SHARE * len(far))))
    drawn = [far[row] for row in random.choice(len(far), audited, replace=False)] if far else []
    return Verified(
        neurons=tuple(near[row] for row in ranked),
        audited=tuple(sorted(drawn, key=_forward)),
        total=total,
        tried=tried,
        exact=exact[:, ranked],
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Estimates:
    """Estimates of the neurons of every pool, by `groups` of places, prompts in `order`."""

    read: Read
    groups: Sequence[Sequence[Place]]
    order: np.ndarray

    def at(self, places: Sequence[Place]) -> np.ndarray:
        """Effects at some places, float64 [prompt, neuron]."""
        sides = [[self.read(side, *place) for place in places] for side in ("harmful", "harmless")]
        whole = np.concatenate([np.concatenate(side, axis=1) for side in sides])
        return whole[self.order].astype(np.float64)

    def pool(self, number: int, group: np.ndarray, top: float) -> Pool:
        """What the bands need of a pool of which the rule takes a share of `top`."""
        places = self.groups[number]
        blocks = [self.at([place]) for place in places]
        values = np.concatenate(blocks, axis=1)
        names: list[Any] = [
            (*place, index) for place, block in zip(places, blocks, strict=True) for index in range(block.shape[1])
        ]
        sides = [(values[rows], max(1, int(rows.sum()))) for rows in (group, ~group)]
        return Pool(
            names=names,
            means=np.stack([side.sum(axis=0) / n for side, n in sides]),
            squares=np.stack([(side**2).sum(axis=0) / n**2 for side, n in sides]),
            count=math.ceil(len(names) * top - 1e-9),
        )


def _tried(
    widest: float,
    pools: Sequence[Pool],
    contrasts: Contrasts,
    estimates: _Estimates,
    group: np.ndarray,
    measure: Measure,
) -> tuple[list[Known], int]:
    """What one prompt of either group shows of the neurons that their estimates may hide, and how many these are."""
    some = [np.flatnonzero(hidden(pool, contrasts, widest)) for pool in pools]
    known = [
        Known(measured=np.zeros(len(pool.names), bool), exact=0 * pool.means, factors=np.ones_like(pool.means))
        for pool in pools
    ]
    neurons = [pool.names[column] for pool, columns in zip(pools, some, strict=True) for column in columns]
    sides = [side for side in (group, ~group) if side.any()]
    if not neurons or len(sides) < len(known[0].factors):
        return known, 0
    rows = [int(np.flatnonzero(side)[0]) for side in sides]
    exact = np.split(measure(neurons, estimates.order[rows].tolist()), np.cumsum([len(one) for one in some])[:-1], 1)
    for number, columns in enumerate(some):
        values = estimates.at(estimates.groups[number])[:, columns]
        for side, (rows_of, row) in enumerate(zip(sides, rows, strict=True)):
            usual = np.sqrt((values[rows_of] ** 2).mean(axis=0))
            size = np.maximum(np.abs(values[row]), usual / 2)  # a prompt of little effect says little
            off = np.divide(exact[number][side] - values[row], size, out=np.zeros(len(size)), where=size > 0)
            known[number].factors[side, columns] = np.where(np.abs(off) > OUTLYING, 1 + off, 1.0)
    return known, len(neurons)


def _measured(
    widest: float,
    pools: Sequence[Pool],
    known: Sequence[Known],
    contrasts: Contrasts,
    estimates: _Estimates,
    group: np.ndarray,
    measure: Measure,
) -> tuple[list[list[int]], np.ndarray]:
    """The columns of every pool that are measured, and their exact effects [prompt, neuron], pool by pool."""
    chosen: list[list[int]] = [[] for _ in pools]
    blocks: list[list[np.ndarray]] = [[np.zeros((len(group), 0))] for _ in pools]
    seen: dict[Neuron, tuple[float, float]] = {}
    for number in range(ROUNDS):
        errors = errors_of([pool.names for pool in pools], seen) if number else [None] * len(pools)
        new = [
            np.flatnonzero(in_doubt(pool, of, contrasts, widest, error))
            for pool, of, error in zip(pools, known, errors, strict=True)
        ]
        neurons = [pool.names[column] for pool, columns in zip(pools, new, strict=True) for column in columns]
        if not neurons:
            break
        exact = np.split(measure(neurons, None), np.cumsum([len(columns) for columns in new])[:-1], 1)
        for row, columns in enumerate(new):
            if not len(columns):
                continue
            inside, values = exact[row][estimates.order], estimates.at(estimates.groups[row])
            known[row].measured[columns] = True
            known[row].exact[:, columns] = [inside[side].mean(axis=0) if side.any() else 0 * inside[0]
                                            for side in (group, ~group)]  # fmt: skip
            for place, column in enumerate(columns):
                if (known[row].factors[:, column] == 1).all():  # those found by trials are not like the others
                    pair = values[:, column], inside[:, place]
                    seen[pools[row].names[column]] = factor(*pair), scatter(*pair)
            chosen[row] += columns.tolist()
            blocks[row].append(exact[row])
    return chosen, np.concatenate([block for some in blocks for block in some], axis=1)


def in_fixed_order(tokens: Sequence[Sequence[int]]) -> list[int]:
    """The rows of prompts in an order that depends on neither theirs nor their labels."""
    digests = [hashlib.sha256(repr([int(token) for token in row]).encode()).digest() for row in tokens]
    return sorted(range(len(tokens)), key=lambda row: digests[row])


def expected_passes(node: SafetyNeurons, neurons: int, layers: int, prompts: int) -> float:
    """Forward passes that verification is expected to take on each of `prompts`, before the estimates are known.

    A pass without a neuron begins at the neuron's layer, so on average over `layers` it is (layers + 1) / (2 · layers)
    of a whole one. The number of neurons is that of effects whose sizes fall off exponentially, where a share of
    top^x is above x times the threshold; a contrast, whose errors are larger beside it, takes twice as many.
    """
    assert node.top is not None
    assert node.verify is not None
    above, below = node.top ** (1 + node.verify), node.top ** (1 - node.verify)
    near = (below - above) * (2 if node.rule in CONTRASTS else 1)
    audited = max(LEAST, SHARE * neurons)
    tried = (node.top**FROM - below) * neurons * min(1, TRIED / max(1, prompts))
    return min(neurons, near * neurons + tried + audited) * (layers + 1) / (2 * layers)


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


def taken(node: SafetyNeurons, harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
    assert node.top is not None
    if node.rule == "paper":
        return in_top(harmful, node.top) & ~in_top(harmless, node.top)
    return in_top(contrast_score(node.rule, harmful, harmless), node.top)


def _in_band(node: SafetyNeurons, means: Sequence[np.ndarray]) -> np.ndarray:
    """Which neurons' estimates are within the first band of a threshold that the labels set, of either context's."""
    assert node.top is not None
    assert node.verify is not None
    scores = means if node.rule == "paper" else [contrast_score(node.rule, *means)]
    found = np.zeros(len(means[0]), dtype=bool)
    for score in scores:
        threshold = largest(score, math.ceil(len(score) * node.top - 1e-9))
        found |= (threshold > 0) & (np.abs(score - threshold) <= START * node.verify * threshold)
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
