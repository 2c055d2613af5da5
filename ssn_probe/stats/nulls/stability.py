"""Would other prompts give the same neurons? Complementary half-samples, the curve over their size, and a null.

Shah & Samworth (2013, JRSS B 75:55): 50 pairs of disjoint halves, and the whole set, with its rule, top and algebra, is
chosen again in each half. The share of halves that take a neuron is its selection frequency (`stable_set` bounds the
error); the agreement of the halves of a pair is the split-half Jaccard.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssn_probe.errors import RecipeError
from ssn_probe.neurons import KEYS, SCHEMA
from ssn_probe.spec import SetExpression
from ssn_probe.stats.nulls.array_selection import overlaps
from ssn_probe.stats.nulls.half_samples import SamplePlan, plan_samples
from ssn_probe.stats.nulls.labelling_sweep import first_of_equal, languages_of, named_alike, sweep
from ssn_probe.stats.nulls.mask_algebra import MaskSet
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.stats.nulls.stable_neurons import check_share

FREQUENCIES = {"set": pl.String, **{name: SCHEMA[name] for name in KEYS}, "frequency": pl.Float64}
JACCARD = {
    **dict.fromkeys(("set", "language"), pl.String),
    **dict.fromkeys(("jaccard", "low", "high", "null_jaccard", "p", "stable_permuted"), pl.Float64),
    **dict.fromkeys(("pairs", "permutations"), pl.Int64),
}
CURVE = {"set": pl.String, "language": pl.String, "prompts": pl.Float64, "jaccard": pl.Float64}


@dataclass(frozen=True, kw_only=True, eq=False)
class Stability:
    """What half-samples say about the sets; `"*"` is the language of a language-free set.

    `frequencies`: `set, language, layer, site, index, frequency`, the share of halves that take the neuron, above 0.
    `jaccard`: per set and language the mean over `pairs` pairs of halves, `low` and `high` (2.5 and 97.5 % of the
    pairs: their spread, not a confidence interval), `null_jaccard` under permuted labels and its `p`, and
    `stable_permuted`, how many neurons then reach the `share`. It is what to expect by chance without the assumption of
    `stable_set` that noise neurons are exchangeable (from fewer halves, so slightly too large). `curve`: `prompts`, the
    mean number in a sample, and the mean `jaccard` of two disjoint samples of that size. The Jaccard of two empty sets
    is null; means are over the other pairs.
    """

    frequencies: pl.DataFrame
    jaccard: pl.DataFrame
    curve: pl.DataFrame


def stability(
    effects: PromptEffects,
    sets: Mapping[str, SetExpression],
    *,
    anchor: str | None = None,
    pairs: int = 50,
    seed: int = 0,
    permutations: int = 99,
    null_pairs: int = 10,
    share: float = 0.9,
) -> Stability:
    """Selection frequencies, split-half Jaccard, its curve over sample sizes and its null.

    The null permutes labels as `exchange` allows and then splits by the permuted labels, `null_pairs` pairs each; p is
    the rank of the same figure under the true labels among the `permutations`. Both leave out the prompts that exchange
    with none. `permutations=0` leaves the null out; `share` is that of `stable_set`. Raises RecipeError for sets
    without a null and DataError for too few prompts.
    """
    if pairs < 1 or permutations < 0 or null_pairs < 1:
        raise RecipeError(f"pairs={pairs}, permutations={permutations}, null_pairs={null_pairs}", "Give 1 or more.")
    check_share(share)
    place = effects.places[0]
    present = np.stack([np.isfinite(effects.read(one, *place)).any(axis=1) for one in effects.languages])
    plan = plan_samples(
        effects.prompts, present, pairs=pairs, seed=seed, permutations=permutations, null_pairs=null_pairs
    )
    first = first_of_equal(sets)
    sets = {name: sets[name] for name in first.values()}
    tallies = {name: _start(languages_of(effects, expression, anchor), plan) for name, expression in sets.items()}
    frames: list[pl.DataFrame] = [pl.DataFrame(schema=FREQUENCIES)]

    def visit(name: str, rows: slice, found: MaskSet) -> None:
        _count(tallies[name], rows, np.packbits(found.mask, axis=-1))
        _count_permuted(tallies[name], rows, found.mask, plan, share)
        frames.append(_taken(name, found, plan.halves.stop - rows.start, 2 * pairs))

    sweep(effects, sets, plan.samples, anchor=anchor, visit=visit)
    keys = [name for name in FREQUENCIES if name != "frequency"]
    frequencies = pl.concat(frames).group_by(keys, maintain_order=True).agg(pl.col("frequency").sum())
    return Stability(
        frequencies=named_alike(frequencies, first).sort(keys),
        jaccard=named_alike(_jaccard_table(tallies, plan), first),
        curve=named_alike(_curve_table(tallies, plan), first),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tally:
    """The counts of a set: `size` [sample, language], `shared` [pair, language], `stable` [permutation, language]
    neurons that reach the share; `here`: how often the halves of each permutation have taken each neuron of the current
    pool group so far, [permutation, language, neuron]."""

    languages: tuple[str, ...]
    size: np.ndarray
    shared: np.ndarray
    stable: np.ndarray
    here: dict[str, np.ndarray]

    @property
    def jaccard(self) -> np.ndarray:
        """Jaccard of every pair of samples, [pair, language]; NaN, and not used, where both are empty."""
        either = self.size[::2] + self.size[1::2] - self.shared
        return np.divide(self.shared, either, out=np.full(either.shape, np.nan), where=either > 0)


def _start(languages: tuple[str, ...], plan: SamplePlan) -> _Tally:
    rows = (len(plan.samples), len(plan.samples) // 2, len(plan.null))
    size, shared, stable = (np.zeros((count, len(languages)), dtype=np.int64) for count in rows)
    return _Tally(languages=languages, size=size, shared=shared, stable=stable, here={})


def _count(tally: _Tally, rows: slice, packed: np.ndarray) -> None:
    tally.size[rows] += overlaps(packed, packed)
    tally.shared[rows.start // 2 : rows.stop // 2] += overlaps(packed[::2], packed[1::2])


def _count_permuted(tally: _Tally, rows: slice, mask: np.ndarray, plan: SamplePlan, share: float) -> None:
    """Adds a block of samples to the frequencies under permuted labels; the last block counts stable neurons."""
    if rows.start == 0:
        tally.here["taken"] = np.zeros((len(plan.null), *mask.shape[1:]), dtype=np.int16)
    taken = tally.here["taken"]
    for number, block in enumerate(plan.null):
        part = slice(max(block.start, rows.start) - rows.start, min(block.stop, rows.stop) - rows.start)
        if part.stop > max(part.start, 0):
            taken[number] += mask[part].sum(axis=0, dtype=np.int16)
    if rows.stop == len(plan.samples) and len(taken):
        halves = plan.null[0].stop - plan.null[0].start
        tally.stable[:] += (taken >= share * halves - 1e-9).sum(axis=-1)


def _taken(name: str, found: MaskSet, rows: int, samples: int) -> pl.DataFrame:
    """What the first `rows` samples add to the selection frequency of every neuron, out of `samples`."""
    taken = found.neurons(found.mask[: max(rows, 0)].sum(axis=0) / samples)
    return taken.rename({"value": "frequency"}).select(pl.lit(name).alias("set"), pl.all())


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _jaccard_table(tallies: Mapping[str, _Tally], plan: SamplePlan) -> pl.DataFrame:
    rows = []
    for name, tally in tallies.items():
        found = tally.jaccard
        for column, language in enumerate(tally.languages):
            values = found[_pairs(plan.halves), column]
            known = values[~np.isnan(values)]
            low, high = np.quantile(known, [0.025, 0.975]).tolist() if len(known) else (None, None)
            null, p = _against_null(found[:, column], plan)
            stable = _mean(tally.stable[:, column].astype(float))
            rows.append((name, language, _mean(values), low, high, null, p, stable, len(known), len(plan.null)))
    return pl.DataFrame(rows, schema=JACCARD, orient="row")


def _against_null(values: np.ndarray, plan: SamplePlan) -> tuple[float | None, float | None]:
    """The mean Jaccard under permuted labels, and the rank p of the observed value; None where there is none.

    A permutation whose samples are all empty has no Jaccard, and counts against the observed value.
    """
    observed = _mean(values[_pairs(plan.observed)])
    null = [_mean(values[_pairs(rows)]) for rows in plan.null]
    mean = _mean(np.array(null, dtype=float))
    if observed is None or not null:
        return mean, None
    # Means of the same fractions differ in the last bit with the order of summation; a tie must remain a tie.
    extreme = sum(value is None or value >= observed - 1e-12 for value in null)
    return mean, (1 + extreme) / (1 + len(null))


def _curve_table(tallies: Mapping[str, _Tally], plan: SamplePlan) -> pl.DataFrame:
    rows = []
    for name, tally in tallies.items():
        found = tally.jaccard
        for column, language in enumerate(tally.languages):
            for block in plan.curve:
                used = plan.samples[block]
                prompts = float((used.harmful | used.harmless).sum(axis=1).mean())
                rows.append((name, language, prompts, _mean(found[_pairs(block), column])))
    return pl.DataFrame(rows, schema=CURVE, orient="row")


def _pairs(samples: slice) -> slice:
    return slice(samples.start // 2, samples.stop // 2)
