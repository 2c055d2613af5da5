"""From importance to neuron sets: top-p under four contrast rules, and sets shared between languages.

The input is one long frame of importances: `language, layer, site, index, harmful, harmless`, the mean effect of each
neuron over the harmful and the harmless *identify* prompts. Ties are broken by index; a score of zero or less is
never selected.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil
from typing import Any, TypeVar

import numpy as np
import polars as pl

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons.language_means import merged
from ssn_probe.neurons.neuron_set import EVERY, KEYS, NEURON, NeuronSet

Values = TypeVar("Values", bound=Any)
"""One value per neuron: a polars expression, or a numpy array."""

GROUPS = {"site": ["language", "layer", "site"], "layer": ["language", "layer"]}


def contrast_score(rule: str, harmful: Values, harmless: Values) -> Values:
    """The score by which a rule ranks neurons, from their mean effects on harmful (h) and on harmless prompts (b).

    That of `both` is h − b/2, the mean of what `harmful` and what `difference` rank by; 2h − b ranks alike.
    """
    if rule == "harmful":
        return harmful
    return harmful - harmless / 2 if rule == "both" else harmful - harmless


def selected(rule: str, harmful: Values, harmless: Values, in_top: Callable[[Values], Values]) -> Values:
    """Which neurons a rule takes; `in_top` says of some scores which are positive and among the largest of their pool.

    `difference`: top of harmful − harmless ("refuses harmful rather than harmless"). `harmful`: top of harmful
    ("carries refusal of harmful"). `both`: top of harmful − harmless / 2, midway between them. `paper`: top of harmful
    without top of harmless (`MS_l = S_l(D_harmful) \\ S_l(D_harmless)`).
    """
    if rule == "paper":
        return in_top(harmful) & ~in_top(harmless)
    return in_top(contrast_score(rule, harmful, harmless))


def scored(importance: pl.DataFrame, rule: str) -> pl.DataFrame:
    """All neurons with the score by which a rule ranks them: `language, layer, site, index, score`."""
    return importance.select(*KEYS, score=contrast_score(rule, pl.col("harmful"), pl.col("harmless")))


def select_neurons(importance: pl.DataFrame, *, rule: str, top: float, pool: str) -> NeuronSet:
    """MS: the neurons that `rule` takes (see `selected`), `k = ceil(top · n)` at most per pool, with their scores.

    Raises DataError when a language ends up without a neuron, and where an importance is NaN or infinite.
    """
    ordered, runs = in_runs(importance)
    harmful, harmless = (ordered[name].to_numpy() for name in ("harmful", "harmless"))
    if not (finite := np.isfinite(harmful) & np.isfinite(harmless)).all():
        language, layer, site, index = ordered.select(KEYS).row(int(np.argmin(finite)))
        raise DataError(
            f"the importance of neuron {index} at site {site} of layer {layer} in {language} is NaN or infinite",
            "No neuron can be ranked beside it: compute the importances again, or leave the neuron out.",
        )
    chosen = [
        rows[selected(rule, harmful[rows], harmless[rows], partial(in_top, top=top))]
        for rows in _pools(runs, GROUPS[pool])
    ]
    rows = scored(ordered[np.concatenate([*chosen, np.empty(0, np.int64)])], rule).sort(KEYS)
    languages = tuple(importance["language"].unique(maintain_order=True))
    for language in languages:
        if rows.filter(pl.col("language") == language).is_empty():
            raise _none_taken(importance.filter(pl.col("language") == language), language, rule, top)
    return NeuronSet(rows, languages)


def _none_taken(importance: pl.DataFrame, language: str, rule: str, top: float) -> DataError:
    """Why a rule takes no neuron of a language, from its importances, and what would help.

    In its pool the highest score is always taken if it is above 0, so only `paper` has something of another top.
    """
    if rule == "paper":
        what, ranked = "effects on harmful prompts", importance["harmful"]
        why = f"no neuron of {language} is at the top {top:g} on harmful prompts, above 0, and not on harmless ones"
        hint = "Give another top, or try rule='difference' or another effect"
    else:
        what, ranked = "scores", scored(importance, rule)["score"]
        why = f"no neuron of {language} has a score above 0 by rule={rule!r}, whatever top is"
        hint = "Try another effect" if rule == "harmful" else "Try rule='harmful' or another effect"
    best = ", ".join(f"{value:.3g}" for value in ranked.sort(descending=True).head(3))
    return DataError(why, f"The highest {what} are {best}. {hint}.")


def in_runs(importance: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The importances with the neurons of each language, layer and site in one piece by index, and where these are.

    The second frame has `language, layer, site, start, size`, sorted. Measurements come in such pieces, a few thousand
    of them, which are sorted instead of the millions of rows; rows in any other order are sorted first.
    """
    place = GROUPS["site"]
    runs = _runs(importance)
    if runs is None:
        importance = importance.sort(KEYS)
        runs = _runs(importance)
        assert runs is not None, "a neuron occurs twice in a language"
    return importance, runs.sort(place)


def _runs(importance: pl.DataFrame) -> pl.DataFrame | None:
    """The runs of rows of one language, layer and site; None where one is in pieces, or not sorted by index."""
    place = GROUPS["site"]
    new = np.zeros(importance.height, dtype=bool)
    new[:1] = True
    for name in place:
        column = importance[name]
        new[1:] |= (column.slice(1) != column.slice(0, max(0, column.len() - 1))).to_numpy()
    index = importance["index"].to_numpy()
    if not (new[1:] | (index[1:] > index[:-1])).all():
        return None
    start = np.flatnonzero(new)
    size = np.diff(start, append=importance.height)
    runs = importance[start].select(*place, start=pl.Series(start), size=pl.Series(size))
    return None if runs.select(place).is_duplicated().any() else runs


def _pools(runs: pl.DataFrame, group: Sequence[str]) -> Iterator[np.ndarray]:
    """The rows of each pool, int64 [row], in the order that breaks ties: by layer, site and index."""
    for _, some in runs.group_by(group, maintain_order=True):
        yield np.concatenate([np.arange(start, start + size) for start, size in some.select("start", "size").rows()])


def in_top(score: np.ndarray, top: float) -> np.ndarray:
    """Is a score positive and among the `ceil(top · n)` largest along the last axis? bool, in the shape of `score`.

    Ties go to the first neuron.
    """
    n = score.shape[-1]
    k = places(n, top)
    if k <= 0:
        return np.zeros(score.shape, dtype=bool)
    threshold = np.partition(score, n - k, axis=-1)[..., n - k, None]
    chosen = score >= threshold
    tied = np.count_nonzero(chosen, axis=-1) > k
    if tied.any():
        chosen[tied] = _first_of_ties(score[tied], threshold[tied], k)
    if (threshold <= 0).any():
        chosen &= score > 0
    return chosen


def places(n: int, top: float) -> int:
    """How many of n neurons of a pool are in its top; a share that rounding has put just above a number gives that."""
    return ceil(n * top - 1e-9)


def _first_of_ties(score: np.ndarray, threshold: np.ndarray, k: int) -> np.ndarray:
    """The k largest of each row [row, neuron] whose k-th value occurs more often than there is room for."""
    above, equal = score > threshold, score == threshold
    room = k - above.sum(axis=-1, keepdims=True)
    return above | (equal & (equal.cumsum(axis=-1) <= room))


def averaged(importance: pl.DataFrame) -> pl.DataFrame:
    """The importance averaged over languages, as one language-free column per context."""
    found = merged(importance)
    means = {name: found.mean(importance[name]) for name in ("harmful", "harmless")}
    rows = importance.select(NEURON)[found.rows].with_columns(**means)
    return rows.select(pl.lit(EVERY).alias("language"), pl.all())


def shared_with_anchor(neurons: NeuronSet, anchor: str, mean_score: pl.DataFrame) -> NeuronSet:
    """SS: neurons of each language that the anchor has as well (`SS_λ = MS_λ ∩ MS_anchor`); the anchor's is its MS.

    The members are ranked by the effect averaged over languages (`mean_score`: layer, site, index, score), which
    identifies refusal better than the effect in a single language (docs/effects.md).
    """
    if anchor not in neurons.languages:
        raise RecipeError(
            f"the anchor {anchor!r} is not a language of the set",
            f"Languages: {', '.join(neurons.languages)}. Give -T anchor=… .",
        )
    shared = neurons & neurons.of(anchor)
    rows = shared.frame.drop("score").join(mean_score, on=NEURON, how="left")
    return NeuronSet(rows.select(*KEYS, "score").sort(KEYS), neurons.languages)


def shared_at_least(neurons: NeuronSet, count: int, *, may_be_empty: bool = False) -> NeuronSet:
    """Neurons that are MS in `count` languages or more, language-free, scored by their mean over those languages.

    Raises DataError where there is none, unless the set `may_be_empty`.
    """
    if count > len(neurons.languages):
        raise RecipeError(f"at_least={count}, but the set has {len(neurons.languages)} languages", "Give fewer.")
    found = merged(neurons.frame)
    most = int(found.count.max(initial=0))
    rows = neurons.frame.select(NEURON)[found.rows].with_columns(score=found.mean(neurons.frame["score"]))
    rows = rows.filter(pl.Series(found.count >= count)).with_columns(language=pl.lit(EVERY))
    if rows.is_empty() and not may_be_empty:
        raise DataError(
            f"no neuron is a safety neuron in {count} languages or more",
            f"The most languages that any neuron has is {most}. Lower at_least, or raise top.",
        )
    return NeuronSet(rows.select(*KEYS, "score").sort(KEYS), (EVERY,))
