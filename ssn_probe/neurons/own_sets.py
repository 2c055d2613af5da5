"""Is sharing the cause? As many neurons of each language's own set, whether other languages have them or not."""

from dataclasses import replace

import numpy as np
import polars as pl

from ssn_probe.errors import RecipeError
from ssn_probe.neurons.language_means import merged
from ssn_probe.neurons.neuron_codes import PLACE, codes
from ssn_probe.neurons.neuron_set import NEURON, NeuronSet
from ssn_probe.spec import (
    After,
    Combine,
    LeaveOneOut,
    Of,
    Only,
    SetExpression,
    Shared,
    UnionOf,
    WithoutStrongest,
)


def own_of(expression: SetExpression) -> SetExpression | None:
    """The set that an expression takes shared neurons from, as an expression; None where that is not clear.

    `Shared(ms)` takes them from `ms`, `Shared(ms, at_least=3)` from its union, and so on through the operators that
    only take away neurons or languages. `Shared(ms, by="mean")` ranks neurons by itself and takes them from no set.
    """
    match expression:
        case Shared(neurons=inner, at_least=None, by="intersection"):
            return inner
        case Shared(neurons=inner, at_least=int()):
            return UnionOf(inner)
        case WithoutStrongest(neurons=inner):
            return own_of(inner)
        case Combine(operation=operation, left=left, right=right):
            return _combined(operation, left, right)
        case Only() | Of() | UnionOf() | LeaveOneOut() | After():
            own = own_of(expression.neurons)
            return None if own is None else replace(expression, neurons=own)
    return None


def _combined(operation: str, left: SetExpression, right: SetExpression) -> SetExpression | None:
    own_left, own_right = own_of(left), own_of(right)
    if operation == "minus":
        own_right = right
    elif operation == "and" and (own_left or own_right):
        own_left, own_right = own_left or left, own_right or right
    return None if own_left is None or own_right is None else Combine(operation, own_left, own_right)


def own_neurons(neurons: NeuronSet, ms: NeuronSet, seed: int) -> NeuronSet:
    """In each language, random neurons of the language's own set `ms`: as many per (layer, site) as `neurons` has.

    The neurons of a place are put into one random order for all languages, and each language takes the first ones that
    are its own. This is what sharing with an anchor does, with the anchor's neurons first; so the sets overlap across
    languages as far as own sets of their sizes do, and drawing each language by itself would make the average over
    languages too narrow. The test's assumption is that, given every language's own set and how many of them are taken,
    any order could as well have been the one by which they were taken. Where a language's own set is taken whole, as
    the anchor's is, nothing differs. Raises RecipeError where `neurons` is no part of
    `ms`.
    """
    if set(neurons.languages) != set(ms.languages) or len(neurons - ms):
        raise RecipeError("the set is not part of the set that it is drawn from", "Draw from a set that contains it.")
    found, (wanted, run) = merged(ms.frame), codes([neurons.frame, ms.frame], ["language", *PLACE])
    every = ms.frame.select(NEURON)[found.rows]
    by_neuron = np.argsort(codes([every], NEURON)[0])
    order = np.empty(len(by_neuron), dtype=np.int64)
    order[by_neuron] = np.random.default_rng(seed).permutation(len(by_neuron))
    runs, first = np.unique(run, return_index=True)
    counts = np.bincount(np.searchsorted(runs, wanted), minlength=len(runs))
    # One sort by run and random order, of which every run keeps the first ones, and one by run and neuron.
    place, ranked = _sorted_pairs(np.searchsorted(runs, run), order[found.number], len(order))
    taken = np.arange(len(place)) - np.searchsorted(place, np.arange(len(runs)))[place] < counts[place]
    rank = np.argsort(by_neuron)[np.argsort(order)]
    place, ranked = _sorted_pairs(place[taken], rank[ranked[taken]], len(order))
    columns = {"index": every["index"][by_neuron[ranked]], "score": pl.lit(None, pl.Float64)}
    frame = ms.frame.select("language", *PLACE)[first][place].with_columns(**columns)
    return NeuronSet(frame, neurons.languages)


def _sorted_pairs(first: np.ndarray, second: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of whole numbers, of which the second is below `most`, in ascending order."""
    numbers = first * most + second
    numbers.sort()
    found = np.divmod(numbers, max(1, most))
    return found[0], found[1]
