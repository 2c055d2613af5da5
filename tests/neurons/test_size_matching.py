"""Sets of a given size by the same procedure."""

import polars as pl
import pytest

from ssn_probe.neurons import EVERY, KEYS, NeuronSet, neuron_set
from ssn_probe.neurons.size_matching import FACTORS, enlarged, matched, sizes_of
from ssn_probe.spec import Placebo, Prompts, SafetyNeurons, SetExpression, Shared

MS = SafetyNeurons(Prompts("made up"), top=0.1)


def first(factor: int) -> NeuronSet:
    """Scores rise with the index: the rule takes 2 · factor neurons of en, and never more than 3 of de."""
    counts = {"en": 2 * factor, "de": min(3, factor)}
    return neuron_set([(one, 0, "q", i, float(i)) for one, count in counts.items() for i in range(count)])


def test_the_strongest_of_the_smallest_set_that_has_enough_are_kept() -> None:
    asked = []

    def found(factor: int) -> NeuronSet:
        asked.append(factor)
        return first(factor)

    taken = matched(found, {"en": 3, "de": 2})
    assert asked == [1, 2]
    assert sorted(taken.frame.select("language", "index").iter_rows()) == [
        ("de", 0),
        ("de", 1),
        ("en", 1),
        ("en", 2),
        ("en", 3),
    ]
    assert matched(first, {"en": 0, "de": 1}).languages == first(1).languages
    assert sizes_of(matched(first, {"en": 0, "de": 1})) == {"en": 0, "de": 1}


def test_a_size_that_is_out_of_reach_leaves_a_smaller_set() -> None:
    taken = matched(first, {"en": 5, "de": 9})
    assert sizes_of(taken) == {"en": 5, "de": 3}
    assert sizes_of(matched(lambda _: NeuronSet(first(1).frame.clear(), ("en", "de")), {"en": 1})) == {"en": 0, "de": 0}


def test_equal_and_missing_scores_keep_the_first_neurons() -> None:
    free = neuron_set([(EVERY, 0, "q", i, None) for i in range(4)])
    assert matched(lambda _: free, {EVERY: 2}) == neuron_set(free.frame.head(2))


def test_rows_in_any_order_are_ranked_as_sorting_ranks_them() -> None:
    """Strongest first, missing scores last, ties by layer, site and index."""
    scores = (None, 0.5, 2.0, 0.5, -1.0)
    rows = [(one, i % 2, ("q", "ffn")[i % 3 > 0], i, scores[i % 5]) for one in ("en", "de", "sw") for i in range(30)]
    every = neuron_set(rows)
    mixed = NeuronSet(every.frame.sample(fraction=1, shuffle=True, seed=0), every.languages)
    kept = {"en": 7, "de": 25, "sw": 30}
    order = every.frame.sort(["score", "layer", "site", "index"], descending=[True] + 3 * [False], nulls_last=True)
    parts = [order.filter(language=language).head(count) for language, count in kept.items()]
    assert matched(lambda _: mixed, kept).frame.equals(pl.concat(parts).sort(KEYS))
    strongest = pl.concat([order.filter(language=language).slice(1) for language in kept])
    assert mixed.without_strongest().frame.equals(strongest.sort(KEYS))


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        (MS, SafetyNeurons(MS.prompts, top=0.4)),
        (Shared(MS).union(), Shared(SafetyNeurons(MS.prompts, top=0.4)).union()),
        (SafetyNeurons(MS.prompts, top=0.3), SafetyNeurons(MS.prompts, top=1.0)),
        (SafetyNeurons(MS.prompts, fdr=0.05), SafetyNeurons(MS.prompts, top=0.02)),
        (SafetyNeurons(MS.prompts, stable=0.9, top=0.01), SafetyNeurons(MS.prompts, stable=0.9, top=0.04)),
        (SafetyNeurons(MS.prompts, labels=Placebo(3)), SafetyNeurons(MS.prompts, top=0.02, labels=Placebo(3))),
        (MS.whole_layers(), None),
    ],
)
def test_rules_that_take_four_times_as_many(expression: SetExpression, wanted: SetExpression | None) -> None:
    assert enlarged(expression, 4) == wanted
    if wanted is not None:
        assert all(enlarged(expression, factor) is not None for factor in FACTORS)
