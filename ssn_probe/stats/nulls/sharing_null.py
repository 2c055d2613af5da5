"""Do two languages share more neurons than common importance explains, given each language's own set?

Some neurons are important for every language and prompt, and two sets of important neurons overlap for that reason
alone: the plain hypergeometric expectation is too low by an order of magnitude (`algorithms.md` 3). Among neurons of
about equal common importance, membership in a language's set says nothing about membership in the set of another
language, unless something more is shared. A topic that only one context has raises even this overlap: compare it with
the placebo contrast.
"""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import polars as pl

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import KEYS, NEURON, NeuronSet

SCHEMA = {
    **dict.fromkeys(("language_a", "language_b"), pl.String),
    **dict.fromkeys(("size_a", "size_b", "shared"), pl.Int64),
    **dict.fromkeys(("expected", "expected_by_place", "low", "high", "p"), pl.Float64),
}


def shared_beyond_importance(importance: pl.DataFrame, neurons: NeuronSet, *, stratum: int = 64) -> pl.DataFrame:
    """Per pair of languages, the neurons shared, compared with chance within strata of common importance.

    `importance`: `language, layer, site, index, harmful, harmless`. Common importance is the mean over languages of
    (|harmful| + |harmless|) / 2; the neurons of every (layer, site) are ranked by it and divided into strata of about
    `stratum` neurons. Columns: `language_a, language_b, size_a, size_b, shared`; `expected`, the mean of a sum of
    independent hypergeometric overlaps, one per stratum; `expected_by_place`, the same without strata; `low, high`,
    where 95 % of that sum lie; `p`, exact, P(sum ≥ shared). A language-free set has no pairs, and sets of `Shared`
    overlap by construction: give sets that every language has on its own. Raises RecipeError and DataError.
    """
    if neurons.language_free:
        raise RecipeError("a language-free set has no pairs of languages", "Give a set with neurons per language.")
    if stratum < 1:
        raise RecipeError(f"stratum is {stratum}", "Give 1 neuron or more, for example 64.")
    strata = importance_strata(importance, stratum)
    unknown = neurons.frame.join(importance, on=KEYS, how="anti")
    if unknown.height:
        raise DataError(
            f"{unknown.height} neurons of the set have no importance, the first {unknown.select(KEYS).row(0)}",
            "Give the importance that the set was made from.",
        )
    member = {
        language: strata.join(neurons.neurons(language), on=NEURON, how="left", maintain_order="left")["language"]
        .is_not_null()
        .to_numpy()
        for language in neurons.languages
    }
    codes = strata["stratum"].to_numpy(), strata["place"].to_numpy()
    rows = [(a, b, *_figures(member[a], member[b], *codes)) for a, b in combinations(neurons.languages, 2)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def importance_strata(importance: pl.DataFrame, size: int) -> pl.DataFrame:
    """Every neuron's place and stratum: `layer, site, index, place, stratum`, in order of layer, site, index.

    A (layer, site) of n neurons has round(n / size) strata, at least one, whose sizes differ by at most one neuron.
    """
    common = importance.group_by(NEURON, maintain_order=True).agg(
        ((pl.col("harmful").abs() + pl.col("harmless").abs()) / 2).mean().alias("common")
    )
    if not common["common"].is_finite().all():
        raise DataError("some importances are missing, NaN or infinite", "Measure every language and context.")
    here = ["layer", "site"]
    rank = pl.col("common").rank("ordinal").cast(pl.Int64).over(here) - 1
    strata = (pl.len().over(here) / size).round().clip(1).cast(pl.Int64)
    return (
        common.sort(NEURON)
        .with_columns(part=rank * strata // pl.len().over(here), place=pl.struct(here).rank("dense"))
        .with_columns(stratum=pl.struct("place", "part").rank("dense"))
        .select(*NEURON, "place", "stratum")
    )


def _figures(left: np.ndarray, right: np.ndarray, stratum: np.ndarray, place: np.ndarray) -> tuple:
    """The figures of two languages, from their neurons, bool [neuron], and every neuron's codes [neuron]."""
    shared = int((left & right).sum())
    urns, urns_by_place = (_urns(codes, left, right) for codes in (stratum, place))
    chance = overlap_pmf(urns)
    cumulated = chance.cumsum()
    low, high = (float(min(np.searchsorted(cumulated, tail), len(chance) - 1)) for tail in (0.025, 0.975))
    sizes, means = (int(left.sum()), int(right.sum())), (_expected(urns), _expected(urns_by_place))
    # Rounding in the convolution may leave 1 + 1e-15.
    return *sizes, shared, *means, low, high, min(1.0, float(chance[shared:].sum()))


def _urns(codes: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The neurons of every stratum, of the left set and of the right set: int [stratum, 3]."""
    size = int(codes.max()) + 1
    counts = [np.bincount(codes, minlength=size), *(np.bincount(codes[side], minlength=size) for side in (left, right))]
    return np.stack(counts, axis=1)


def _expected(urns: np.ndarray) -> float:
    n, left, right = urns[urns[:, 0] > 0].T
    return float((left * right / n).sum())


def overlap_pmf(urns: np.ndarray) -> np.ndarray:
    """The distribution of the overlap of independent random sets, summed over strata: P(0), P(1), …

    `urns` int [stratum, 3]: all neurons, those of the left and of the right set. Convolving adds products of positive
    numbers only, so the far tail keeps its relative accuracy.
    """
    from scipy.stats import hypergeom

    parts = [np.ones(1)]
    used = urns[(urns[:, 1] > 0) & (urns[:, 2] > 0)]
    for (n, left, right), times in zip(*np.unique(used, axis=0, return_counts=True), strict=True):
        pmf = hypergeom.pmf(np.arange(min(left, right) + 1), n, left, right)
        parts += [pmf] * int(times)
    return _convolved(parts)


def _convolved(parts: list[np.ndarray]) -> np.ndarray:
    """The convolution of all, in pairs of similar length, which is quick for thousands of short arrays."""
    while len(parts) > 1:
        odd: Iterable[np.ndarray] = parts[-1:] if len(parts) % 2 else ()
        parts = [np.convolve(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)] + list(odd)
    return parts[0]
