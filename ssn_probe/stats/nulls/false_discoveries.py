"""Which single neurons have a larger effect on harmful than on harmless prompts, at a known false discovery rate?

Every neuron is tested by the label permutation of `exchange`: z is its difference of means, minus what the strata
alone give, over its exact permutation standard deviation (`unit_contrasts`). So neurons of any scale are comparable,
and the permuted z of all neurons of a language form a single null distribution, fine enough for a million tests.

Assumptions: the permuted z have the same distribution for all neurons, and neurons, which share prompts, are positively
dependent, where Benjamini & Hochberg (1995) control the rate (Benjamini & Yekutieli 2001). `Discoveries.check` tests
both assumptions together: it counts the neurons that pass when the labels are permuted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ssn_probe.errors import RecipeError
from ssn_probe.neurons import EVERY, SCHEMA
from ssn_probe.stats.nulls.label_exchange import draw_labels, exchange
from ssn_probe.stats.nulls.parallel_units import all_parallel, by_language
from ssn_probe.stats.nulls.prompt_effects import Group, PromptEffects, groups
from ssn_probe.stats.nulls.unit_contrasts import Contrast, contrasts, weights

REACH, BINS = 20.0, 40_000
"""z is counted in bins of 0.001 from −20 to 20, and beyond that in the outermost bins. A p is rounded up to that of its
bin, never down. So millions of permuted z take no memory."""

BLOCK_BYTES = 2**27
"""The memory that the permuted z of a language and place may take at a time."""

NEURONS = SCHEMA | dict.fromkeys(("z", "p", "q"), pl.Float64)
CHECK = {
    "language": pl.String,
    "neurons": pl.Int64,
    "passed": pl.Int64,
    "passed_permuted": pl.Float64,
    "any_permuted": pl.Float64,
    "permuted": pl.Int64,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Discoveries:
    """`neurons`: `language, layer, site, index, score, z, p, q`, every neuron, `"*"` for the mean over languages.

    `score` is the difference of means over the prompts whose labels exchange. `check`, per language: the `neurons`
    tested, how many `passed` at the rate, how many pass on average under `permuted` permutations of the labels, and in
    what share of them any does: that share is the false discovery rate where nothing differs. `null`: `language, bin,
    permuted`, how many permuted z are in each bin that has any.
    """

    neurons: pl.DataFrame
    check: pl.DataFrame
    null: pl.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tally:
    """The counts of a language: `frames` of observed neurons, `null` [bin] and `drawn` [checked draw, bin]."""

    language: str
    null: np.ndarray
    drawn: np.ndarray
    frames: list[pl.DataFrame] = field(default_factory=list)


def discoveries(
    effects: PromptEffects, *, draws: int = 1000, seed: int = 0, rate: float = 0.05, permuted: int = 50
) -> Discoveries:
    """The q-value of every neuron: the smallest false discovery rate at which it is a discovery.

    p = (1 + #{permuted z ≥ z}) / (1 + all permuted z of the language), one-sided; q as by Benjamini & Hochberg, for
    each language separately. A neuron whose effects relabelling does not change has z = 0 and p = 1. `rate` and
    `permuted` concern the check only. Where ids are not parallel, labels are exchanged language by language, and the
    mean over languages has no valid p. Raises DataError for too few prompts.
    """
    if not 0 < rate < 1 or not 1 <= permuted <= draws:
        raise RecipeError(
            f"rate={rate}, draws={draws}, permuted={permuted}", "Give a rate in (0, 1) and 1 ≤ permuted ≤ draws."
        )
    effects = effects if all_parallel(effects) else by_language(effects)
    plan, (labels, _) = exchange(effects.prompts), draw_labels(effects.prompts, draws, seed)
    drawn, observed = weights(plan, labels), weights(plan, plan.harmful[None])
    tallies = {
        language: _Tally(
            language=language, null=np.zeros(BINS, dtype=np.int64), drawn=np.zeros((permuted, BINS), dtype=np.int32)
        )
        for language in (*effects.languages, EVERY)
    }
    for group in groups(effects, "site"):
        for found in contrasts(group, plan):
            _add(tallies[found.language], group, found, observed, drawn)
    neurons = {language: _neurons(tally) for language, tally in tallies.items()}
    check = [_check(tallies[language], found, rate) for language, found in neurons.items()]
    return Discoveries(
        neurons=pl.concat(neurons.values()),
        check=pl.DataFrame(check, schema=CHECK, orient="row"),
        null=pl.concat([_null(tally) for tally in tallies.values()]),
    )


def _add(tally: _Tally, group: Group, found: Contrast, observed: np.ndarray, drawn: np.ndarray) -> None:
    """Counts the observed and the permuted z of a place. `observed` [1, unit], `drawn` [draw, unit]: weights."""
    tested = found.sd > 0
    unit = found.standardised
    columns = {
        "language": [tally.language] * len(tested),
        "layer": group.layers,
        "site": group.sites,
        "index": group.index,
        "score": found.score,
        "z": (observed @ unit)[0],
        "tested": tested,
    }
    tally.frames.append(pl.DataFrame(columns, schema_overrides={k: v for k, v in NEURONS.items() if k in columns}))
    for first, bins in _permuted(unit[:, tested], drawn):
        tally.null[:] += np.bincount(bins.ravel(), minlength=BINS)
        for row, here in enumerate(bins[: max(0, len(tally.drawn) - first)], start=first):
            tally.drawn[row] += np.bincount(here, minlength=BINS)


def _permuted(unit: np.ndarray, drawn: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The bins of the permuted z, int [draw, neuron], block by block, with the first draw of the block."""
    size = max(1, BLOCK_BYTES // (8 * max(1, unit.shape[1])))
    for first in range(0, len(drawn), size):
        yield first, binned(drawn[first : first + size] @ unit)


def binned(z: np.ndarray) -> np.ndarray:
    """The bin of every z, int64."""
    return np.clip((z + REACH) * (BINS / (2 * REACH)), 0, BINS - 1).astype(np.int64)


def p_of_bin(null: np.ndarray) -> np.ndarray:
    """The p of a z in every bin: (1 + permuted z in this bin or above) / (1 + all)."""
    above = null[::-1].cumsum()[::-1]
    return (1 + above) / (1 + null.sum())


def _neurons(tally: _Tally) -> pl.DataFrame:
    from scipy.stats import false_discovery_control

    frame = pl.concat(tally.frames)
    p = np.where(frame["tested"], p_of_bin(tally.null)[binned(frame["z"].to_numpy())], 1.0)
    return frame.with_columns(p=p, q=false_discovery_control(p)).select(*NEURONS)


def _null(tally: _Tally) -> pl.DataFrame:
    bins = np.flatnonzero(tally.null)
    return pl.DataFrame({"bin": bins, "permuted": tally.null[bins]}).select(
        pl.lit(tally.language).alias("language"), pl.all()
    )


def null_bins(null: pl.DataFrame) -> dict[str, np.ndarray]:
    """Language → how many permuted z are in each bin, from `Discoveries.null`."""
    found = {}
    for (language,), rows in null.group_by("language", maintain_order=True):
        found[str(language)] = np.zeros(BINS, dtype=np.int64)
        found[str(language)][rows["bin"].to_numpy()] = rows["permuted"].to_numpy()
    return found


def _check(tally: _Tally, neurons: pl.DataFrame, rate: float) -> tuple:
    passed = int((neurons["q"] <= rate).sum())
    p = p_of_bin(tally.null)
    counts = np.array([passing(row, p, neurons.height, rate) for row in tally.drawn])
    return tally.language, neurons.height, passed, float(counts.mean()), float((counts > 0).mean()), len(counts)


def passing(counts: np.ndarray, p: np.ndarray, tests: int, rate: float) -> int:
    """How many of `tests` pass Benjamini & Hochberg, from the number of tests in every bin and the bins' p."""
    return int(counts[least_passing(counts, p, tests, rate) :].sum())


def least_passing(counts: np.ndarray, p: np.ndarray, tests: int, rate: float) -> int:
    """The lowest bin whose tests pass; the number of bins where none do."""
    above = counts[::-1].cumsum()[::-1]
    return int(np.append(np.flatnonzero(p <= rate * above / tests), len(counts))[0])
