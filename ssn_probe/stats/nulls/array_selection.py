"""Top-p selection on arrays, for many labellings of the same prompts at once: `select_neurons` for each of them.

A test compares the two implementations: the same rules, the same order of ties, the same `k`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ssn_probe.errors import DataError
from ssn_probe.model.sharing_cores import on_cores
from ssn_probe.neurons.selection import in_top, selected
from ssn_probe.spec import SafetyNeurons
from ssn_probe.stats.nulls.prompt_blocks import Blocks
from ssn_probe.stats.nulls.prompt_effects import Group
from ssn_probe.stats.nulls.single_precision import Mix, Screened, ranked_by, weights_of

LABELS = ("harmful", "harmless")

KEPT_BYTES = 2**27
"""What the weights of some samples may take, to be used again for other neurons."""
MEANS_BYTES = 2**24
"""What the means of one label may take at a time, so that they are ranked before they leave the cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Which prompts count as harmful and which as harmless: bool [sample, prompt] each; no prompt counts as both.

    With `blocks`, the means of the samples in `weighted` (bool [sample], None: of all) are weighted by them.
    """

    harmful: np.ndarray
    harmless: np.ndarray
    blocks: Blocks | None = None
    weighted: np.ndarray | None = None
    kept: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)
    mixed: dict[tuple[bytes, Mix], np.ndarray] = field(default_factory=dict, repr=False)
    checked: set[bytes] = field(default_factory=set, repr=False)

    def __len__(self) -> int:
        return len(self.harmful)

    def __getitem__(self, rows: slice) -> "Samples":
        weighted = None if self.weighted is None else self.weighted[rows]
        return Samples(harmful=self.harmful[rows], harmless=self.harmless[rows], blocks=self.blocks, weighted=weighted)

    def weights(self, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much every prompt counts in the harmful and in the harmless mean, float64 [sample, prompt] each.

        `present` bool [prompt]: 0 for the others. Weights add up to any number. Prompts of a block with h harmful and b
        harmless units share b/(h + b) per harmful unit and h/(h + b) per harmless one: h·b/(h + b) on either side.

        They are those of every neuron, and kept where they are small; nobody may write to them.
        """
        key = present.tobytes()
        found = self.kept.get(key) or self._weights(present)
        if (len(self.kept) + 1) * sum(side.nbytes for side in found) <= KEPT_BYTES:
            self.kept[key] = found
        return found

    def check(self, present: np.ndarray, language: str) -> None:
        """Raises DataError where a language with these prompts has none of a label in some sample."""
        if (key := present.tobytes()) not in self.checked:
            for side, name in zip(self.weights(present), LABELS, strict=True):
                check_present(side.sum(axis=1), language, name)
            self.checked.add(key)

    def weights_of(self, mix: Mix, present: np.ndarray) -> np.ndarray:
        """How much every prompt counts in a mix of the two means, float32 [sample, prompt], see `weights_of`; kept as
        weights are."""
        key = present.tobytes(), mix
        found = self.mixed.get(key)
        if found is None:
            found = weights_of(mix, *self.weights(present))
            if (len(self.mixed) + 1) * found.nbytes <= KEPT_BYTES:
                self.mixed[key] = found
        return found

    def _weights(self, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        harmful, harmless = ((side & present).astype(np.float64) for side in (self.harmful, self.harmless))
        if self.blocks is None:
            return harmful, harmless
        whole = np.ones(len(self), dtype=bool) if self.weighted is None else self.weighted
        found = self.blocks.weights(harmful[whole], harmless[whole])
        harmful[whole], harmless[whole] = found
        return harmful, harmless


def means(group: Group, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Mean effects in every sample: harmful and harmless, float64 [sample, language, neuron] each.

    Raises DataError where a language has no prompt of a label in some sample.
    """
    sides = [np.empty((len(samples), len(group.effects), len(group.index))) for _ in LABELS]
    for position, language in enumerate(group.effects):
        for rows, *found in language_means(group, samples, language):
            for side, values in zip(sides, found, strict=True):
                side[rows, position] = values
    return sides[0], sides[1]


def language_means(
    group: Group, samples: Samples, language: str, which: np.ndarray | None = None
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Mean effects of a language, a few samples at a time: these, harmful and harmless, float64 [sample, neuron] each.

    `which` int [sample]: only these, whose numbers in this list are then given. The arrays are overwritten by those of
    the next samples: what is done with them finds them in the cache. Raises DataError where the language has no prompt
    of a label in some sample.
    """
    sides = samples.weights(group.present[language])
    if which is not None:
        sides = sides[0][which], sides[1][which]
    count = len(sides[0])
    totals = [side.sum(axis=1, keepdims=True) for side in sides]
    for total, name in zip(totals, LABELS, strict=True):
        check_present(total, language, name)
    values = group.effects[language].astype(np.float64)
    size = max(1, MEANS_BYTES // (8 * values.shape[1]))
    buffers = [np.empty((min(size, count), values.shape[1])) for _ in LABELS]
    for first in range(0, count, size):
        rows = slice(first, min(first + size, count))
        found = [buffer[: rows.stop - first] for buffer in buffers]
        for weights, total, out in zip(sides, totals, found, strict=True):
            # Sums of a few hundred float32 are nearly exact in float64: equal effects have equal means under every
            # labelling, and their difference is exactly 0.
            np.matmul(weights[rows], values, out=out)
            out /= total[rows]
        yield rows, found[0], found[1]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What sets are made of: what a rule takes in every language of its `own`, or of the `mean` over languages."""

    own: bool
    mean: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """The neurons that a rule takes: `own` bool [sample, language, neuron], and `mean`, of the effect averaged over
    languages, [sample, 1, neuron]. Without a sample where nobody asks for them."""

    own: np.ndarray
    mean: np.ndarray


def taken(group: Group, samples: Samples, asked: Mapping[SafetyNeurons, Asked]) -> dict[SafetyNeurons, Taken]:
    """What the rule of every node takes in every sample, from the same means. Raises what `means` raises."""
    shape = len(group.effects), len(group.index)
    found = {
        node: Taken(
            own=np.zeros((len(samples) * ask.own, *shape), dtype=bool),
            mean=np.zeros((len(samples) * ask.mean, 1, shape[1]), dtype=bool),
        )
        for node, ask in asked.items()
    }
    if any(ask.mean for ask in asked.values()):
        _take_from_means(group, samples, asked, found)
    else:
        _take_own(group, samples, {node: found[node].own for node, ask in asked.items() if ask.own})
    return found


def _take_own(group: Group, samples: Samples, found: Mapping[SafetyNeurons, np.ndarray]) -> None:
    """Fills in [sample, language, neuron] what rules take of every language, in double precision where it must be."""
    weights = [_mixed(group, samples, language, found) for language in group.effects]

    def take(number: tuple[int, str]) -> None:
        position, language = number
        screened = Screened(group.effects[language])
        for node, own in found.items():
            assert node.top is not None
            own[:, position], certain = screened.taken(node.rule, node.top, weights[position])
            which = np.flatnonzero(~certain)
            for rows, harmful, harmless in language_means(group, samples, language, which) if len(which) else ():
                own[which[rows], position] = _taken(node, harmful, harmless)

    on_cores(take, list(enumerate(group.effects)))


def _mixed(group: Group, samples: Samples, language: str, nodes: Iterable[SafetyNeurons]) -> dict[Mix, np.ndarray]:
    """The weights of all that rules rank a language's neurons by. Raises what `means` raises."""
    samples.check(group.present[language], language)
    mixes = {mix for node in nodes for mix in ranked_by(node.rule)}
    return {mix: samples.weights_of(mix, group.present[language]) for mix in mixes}


def _take_from_means(
    group: Group, samples: Samples, asked: Mapping[SafetyNeurons, Asked], found: Mapping[SafetyNeurons, Taken]
) -> None:
    """Fills in what rules take of the means of languages and of those over languages."""
    sums = [np.zeros((len(samples), len(group.index))) for _ in LABELS]
    for position, language in enumerate(group.effects):
        for rows, harmful, harmless in language_means(group, samples, language):
            for node, ask in asked.items():
                if ask.own:
                    found[node].own[rows, position] = _taken(node, harmful, harmless)
            for total, side in zip(sums, (harmful, harmless), strict=True):
                total[rows] += side
    for total in sums:
        total /= len(group.effects)
    for node, ask in asked.items():
        if ask.mean:
            found[node].mean[:, 0] = _taken(node, *sums)


def _taken(node: SafetyNeurons, harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
    assert node.top is not None
    return selected(node.rule, harmful, harmless, partial(in_top, top=node.top))


def check_present(total: np.ndarray, language: str, name: str) -> None:
    """Raises DataError where the weights of a label's prompts add up to nothing in some sample, [sample]."""
    if total.min() <= 0:
        raise DataError(
            f"{language} has no {name} prompt in some of the samples",
            f"Give {language} more prompts, or leave the language out.",
        )


def overlaps(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many neurons two packed masks share, [...] from [..., byte] (`np.packbits` along the last axis)."""
    return np.bitwise_count(left & right).sum(axis=-1, dtype=np.int64)
