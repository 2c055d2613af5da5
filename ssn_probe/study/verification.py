"""Screen, then verify: which neurons near a threshold are measured by ablation, and on how many prompts.

Which neurons are ablated in a language, and on which prompts, follows from all its *identify* prompts together, and
from no label. Every prompt then has one effect of every neuron, whichever prompts are called harmful: an exact one
where it was ablated, else an estimate, times how far off that was on other prompts. Exchanged labels, placebos and
half-samples read these very effects, so that the observed set and those beside it are found by the same procedure from
the same numbers, and their p is as valid as without verification. The band around the threshold that the observed
labels set would not have this property: its neurons alone would be exact under the observed labels, and others under
exchanged ones. So the thresholds are those of two groups of prompts that differ most in their effects, whatever they
are called (`unlabelled_contexts`); `Audit.covered` says how much of the observed threshold's band was ablated.
"""

import hashlib
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ssn_probe.neurons import SITES
from ssn_probe.spec import SafetyNeurons
from ssn_probe.stats.nulls.prompt_effects import Place, pooled
from ssn_probe.study.unlabelled_contexts import alike, telling, two_groups
from ssn_probe.study.verification_band import (
    HIGHEST,
    Candidates,
    Contrasts,
    Measured,
    between,
    in_doubt,
    predicted,
    weighted,
)
from ssn_probe.tracing.kept_values import Neuron

LEAST, SHARE = 20, 0.001
"""Neurons of a language that are audited at least, and the share of those that were not ablated."""
LIABLE = 0.05
"""The share of neurons of a layer and site, by largest local effect on a prompt, whose estimates may be far off."""
FIRST = {"final state": 6, "log odds": 3}
"""What is read → liable neurons are tried on one of so many prompts first; log-odds are off on single prompts."""
STEPS, SURE = (2.5, 4.0, 5.0), 2.5
"""Standard errors from a threshold within which neurons are measured further, one after the other; and those within
which a neuron is left in doubt when no more may be spent."""
SLACK = 1.5
"""Times `verify` below a threshold down to which neurons are candidates, since thresholds move."""

CONTRASTS = ("difference", "both")
"""Rules that rank by a contrast of harmful and harmless prompts."""

Read = Callable[[str, int, str], np.ndarray]
"""Context, layer, site → effects [prompt, neuron] of a language."""
Measure = Callable[[Sequence[Neuron], Sequence[int]], np.ndarray]
"""Neurons, and numbers of prompts, harmful ones before harmless ones → exact effects [prompt, neuron]."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The neurons of a language that are ablated, `neurons` to replace their estimates, `audited` to not.

    `prompts`: on how many prompts each of `neurons` was ablated. `spent`: the share of all neurons × all prompts that
    this is; `computed`: that of their tokens that ran for it, since what prompts begin with runs once for many of them
    (NaN where that is not known). `doubtful`: neurons left within `SURE` standard errors of a threshold, because no
    more could be spent.
    `effects` of `neurons`, [prompt, neuron], harmful prompts before harmless ones: exact, and on other prompts the
    estimate times how far it was off.
    """

    neurons: tuple[Neuron, ...]
    audited: tuple[Neuron, ...]
    total: int
    prompts: tuple[int, ...] = ()
    spent: float = 0.0
    computed: float = field(default=math.nan, compare=False)
    doubtful: int = 0
    effects: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)), compare=False, repr=False)

    @property
    def complete(self) -> tuple[Neuron, ...]:
        """Those ablated on all prompts."""
        every = len(self.effects)
        return tuple(name for name, count in zip(self.neurons, self.prompts, strict=True) if count == every)


def to_verify(
    node: SafetyNeurons,
    places: Sequence[Place],
    language: str,
    read: Read,
    measure: Measure,
    order: Sequence[int],
    local: Read | None = None,
) -> Verified:
    """The neurons that are ablated in a language, with their effects, and those audited; both in forward order.

    A race over prompts: all candidates that could be on the other side of a threshold (`verification_band.in_doubt`)
    are measured on a few prompts, those that still could on more, until none is in doubt or `node.verify_most` spent.

    Args:
        read: estimates.
        order: of the prompts, harmful ones before harmless ones, which depends on neither their places nor labels.
        local: local effects at `liable_sites`, which tell whose estimates may be far off; None: of none they may.
    """
    assert node.verify is not None
    assert node.top is not None
    estimates = _Estimates(read=read, groups=pooled(tuple(places), node.pool), order=np.asarray(order))
    count = len(read("harmful", *places[0]))
    group = two_groups(alike(estimates.at([place]) for place in telling(places)), count)
    turns = in_turns(group)
    estimates, group = replace(estimates, order=estimates.order[turns]), group[turns]
    contrasts = weighted(node.rule, (int(group.sum()), int((~group).sum())))
    every, candidates = _candidates(node, estimates, group, contrasts, local)
    measured, doubtful = _race(node, len(every), candidates, contrasts, estimates.order, measure)
    some = sorted(measured.effects, key=lambda column: _forward(candidates.names[column]))
    near = [candidates.names[column] for column in some]
    effects = np.zeros((len(group), len(near)))
    effects[estimates.order] = _effects(measured, some)
    chosen = set(near)
    far = sorted((name for name in every if name not in chosen), key=_forward)
    random = np.random.default_rng([node.audit_seed, zlib.crc32(language.encode())])
    audited = min(len(far), max(LEAST, math.ceil(SHARE * len(far))))
    drawn = [far[row] for row in random.choice(len(far), audited, replace=False)] if far else []
    return Verified(
        neurons=tuple(near),
        audited=tuple(sorted(drawn, key=_forward)),
        total=len(every),
        prompts=tuple(measured.prompts[some].tolist()),
        spent=float(measured.prompts.sum()) / (len(every) * len(group)),
        doubtful=doubtful,
        effects=effects,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Estimates:
    """Estimates of the neurons of every pool, by `groups` of places, prompts in `order`."""

    read: Read
    groups: Sequence[Sequence[Place]]
    order: np.ndarray

    def at(self, places: Sequence[Place], read: Read | None = None) -> np.ndarray:
        """Effects at some places, float64 [prompt, neuron]."""
        sides = [[(read or self.read)(side, *place) for place in places] for side in ("harmful", "harmless")]
        whole = np.concatenate([np.concatenate(side, axis=1) for side in sides])
        return whole[self.order].astype(np.float64)


def _candidates(
    node: SafetyNeurons, estimates: _Estimates, group: np.ndarray, contrasts: Contrasts, local: Read | None
) -> tuple[list[Neuron], Candidates]:
    """All neurons that the rule ranks, and those of them that may be ablated: the ones that it may take, those down to
    `SLACK` · `verify` below a threshold, and liable ones that an error of theirs could bring there."""
    assert node.verify is not None
    assert node.top is not None
    weights = np.stack([side / max(1, side.sum()) for side in (group, ~group)])
    every: list[Neuron] = []
    names: list[Neuron] = []
    pools: list[tuple[slice, int]] = []
    blocks: list[np.ndarray] = [np.zeros((len(group), 0), np.float32)]
    kinds: list[np.ndarray] = [np.zeros(0, np.int64)]
    for places in estimates.groups:
        found = [estimates.at([place]) for place in places]
        widths = [block.shape[1] for block in found]
        values = np.concatenate(found, axis=1)
        pairs = list(zip(places, widths, strict=True))
        sure = [None if place[1] not in liable_sites(node) else local for place in places]
        liable = np.concatenate([_liable(*pair, estimates, one) for pair, one in zip(pairs, sure, strict=True)])
        inside: list[Any] = [(*place, index) for place, width in pairs for index in range(width)]
        count, start = math.ceil(len(inside) * node.top - 1e-9), len(names)
        sums = weights @ values, weights @ np.abs(values)
        columns = np.flatnonzero(_may_be_taken(*sums, liable, contrasts, count, node.verify))
        where = np.repeat(np.arange(len(places)), widths)[columns]
        every += inside
        names += [inside[column] for column in columns]
        pools.append((slice(start, len(names)), count))
        blocks.append(values[:, columns].astype(np.float32))
        kinds.append(np.where(liable[columns], 0, 1 + len(kinds) * len(SITES) + where))
    classes = np.concatenate(kinds)
    candidates = Candidates(
        names=names,
        pools=[(columns, count) for columns, count in pools if columns.stop > columns.start],
        classes=classes,
        liable=classes == 0,
        estimates=np.concatenate(blocks, axis=1),
        groups=weights,
    )
    return every, candidates


def _may_be_taken(
    means: np.ndarray, sizes: np.ndarray, liable: np.ndarray, contrasts: Contrasts, count: int, widest: float
) -> np.ndarray:
    """Which neurons of a pool are candidates, from their mean estimates and mean sizes, [group, neuron]."""
    found = np.zeros(means.shape[1], dtype=bool)
    for weights in (np.asarray(some) for some in contrasts):
        score, size = weights @ means, np.abs(weights) @ sizes
        threshold = between(score, count)
        reach = np.where(liable, HIGHEST, SLACK * widest) * np.maximum(size, np.where(liable, 0, threshold))
        found |= score + reach >= threshold
    return found & sizes.any(axis=0)


def liable_sites(node: SafetyNeurons) -> tuple[str, ...]:
    """The sites of which some neurons' estimates may be far off.

    What follows a neuron is least linear where the neuron is large: of final states that is seen in `ffn` alone, of
    log-odds at all sites.
    """
    final = node.scored_by.ablated == "final state"
    return tuple(site for site in node.sites if site == "ffn" or not final)


def _liable(place: Place, width: int, estimates: _Estimates, local: Read | None) -> np.ndarray:
    """Which neurons of a place have the largest local effects on a prompt; none without `local`."""
    found = np.zeros(width, dtype=bool)
    if local is not None:
        largest_of = estimates.at([place], local).max(axis=0)
        found[np.argsort(-largest_of, kind="stable")[: math.ceil(LIABLE * width)]] = True
    return found


def _race(
    node: SafetyNeurons,
    total: int,
    candidates: Candidates,
    contrasts: Contrasts,
    order: np.ndarray,
    measure: Measure,
) -> tuple[Measured, int]:
    """What ablating the candidates showed, as far as it was done, and how many are left in doubt."""
    assert node.verify is not None
    measured, every = Measured(candidates), len(order)
    left = int(node.verify_most * total * every)
    halts = np.array(halts_of(every))
    tried = halts[halts <= every // FIRST[node.scored_by.ablated or "log odds"]].max(initial=halts[0])
    step = 0
    while len(candidates.names):
        away = in_doubt(candidates, measured, predicted(measured), contrasts, node.verify)
        wanted = np.flatnonzero(away < STEPS[step])
        if not len(wanted):
            step += 1
            if step == len(STEPS):
                break
            continue
        fresh = candidates.liable[wanted] & (measured.prompts[wanted] == 0)
        after = np.searchsorted(halts, measured.prompts[wanted], side="right")
        until = np.where(fresh, tried, halts[after])
        cost = until - measured.prompts[wanted]
        nearest = np.argsort(away[wanted], kind="stable")
        nearest = nearest[np.cumsum(cost[nearest]) <= left]
        if not len(nearest):
            return measured, int((away < SURE).sum())
        left -= int(cost[nearest].sum())
        _measure(measured, wanted[nearest], until[nearest], order, measure)
    return measured, 0


def _measure(measured: Measured, columns: np.ndarray, until: np.ndarray, order: np.ndarray, measure: Measure) -> None:
    """Ablates candidates on the next prompts, those together that run on the same ones."""
    names = measured.candidates.names
    for start, stop in sorted(set(zip(measured.prompts[columns].tolist(), until.tolist(), strict=True))):
        some = np.sort(columns[(measured.prompts[columns] == start) & (until == stop)])
        rows = np.arange(start, stop)
        exact = measure([names[column] for column in some], order[rows].tolist())
        measured.add(some, rows, exact.astype(np.float64))


def _effects(measured: Measured, columns: Sequence[int]) -> np.ndarray:
    """Effects of some candidates on every prompt, [prompt, neuron]: exact, or the estimate times its factor."""
    candidates, now = measured.candidates, predicted(measured)
    first = candidates.groups[0] > 0
    found = candidates.estimates[:, columns].astype(np.float64)
    found *= np.where(first[:, None], now.factors[0, columns], now.factors[1, columns])
    for place, column in enumerate(columns):
        exact = measured.effects[column]
        found[: len(exact), place] = exact
    return found


def halts_of(prompts: int) -> list[int]:
    """After how many prompts a race pauses: four times as many each time, up to a third of all, and at the end."""
    found = [4**power for power in range(1, 32) if 3 * 4**power <= prompts]
    return [*found, prompts]


def in_turns(group: np.ndarray) -> np.ndarray:
    """The rows of a group and of the others in turns, so that any beginning has its share of both."""
    sides = [np.flatnonzero(group), np.flatnonzero(~group)]
    places = [(np.arange(len(side)) + 0.5) / max(1, len(side)) for side in sides]
    return np.concatenate(sides)[np.argsort(np.concatenate(places), kind="stable")]


def in_fixed_order(tokens: Sequence[Sequence[int]]) -> list[int]:
    """The rows of prompts in an order that depends on neither theirs nor their labels."""
    digests = [hashlib.sha256(repr([int(token) for token in row]).encode()).digest() for row in tokens]
    return sorted(range(len(tokens)), key=lambda row: digests[row])


def expected_passes(node: SafetyNeurons, neurons: int, layers: int) -> float:
    """Forward passes that verification is expected to take on each prompt, before the estimates are known.

    A pass without a neuron begins at the neuron's layer, so on average over `layers` it is (layers + 1) / (2 · layers)
    of a whole one. The number of neurons is that of effects whose sizes fall off exponentially, where a share of
    top^x is above x times the threshold; a contrast, whose errors are larger beside it, takes twice as many. It is
    never more than what may be spent.
    """
    assert node.top is not None
    assert node.verify is not None
    above, below = node.top ** (1 + node.verify), node.top ** (1 - node.verify)
    near = (below - above) * (2 if node.rule in CONTRASTS else 1)
    audited = max(LEAST, SHARE * neurons)
    return min(neurons, min(near, node.verify_most) * neurons + audited) * (layers + 1) / (2 * layers)


def _forward(neuron: Neuron) -> tuple[int, int, int]:
    return neuron[0], SITES.index(neuron[1]), neuron[2]
