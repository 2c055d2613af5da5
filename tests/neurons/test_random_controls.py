"""Sets that are drawn beside a tested set: their shape, and that a rank test among them holds its level."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import KEYS, NEURON, SCHEMA, NeuronSet, neuron_set
from ssn_probe.neurons.random_controls import differing, random_like

quick = settings(deadline=None, max_examples=60)
LANGUAGES = ("en", "de", "sw")
WIDTHS = {(layer, site): width for layer in range(2) for site, width in (("q", 5), ("ffn", 9))}
PLACES = [(*place, index) for place, width in WIDTHS.items() for index in range(width)]
models = st.fixed_dictionaries({language: st.sets(st.sampled_from(PLACES), max_size=8) for language in LANGUAGES})
Model = Mapping[str, set[tuple[int, str, int]]]


def build(model: Model) -> NeuronSet:
    rows = [(language, *neuron, float(neuron[2])) for language, some in model.items() for neuron in some]
    return NeuronSet(neuron_set(rows).frame, LANGUAGES)


def members(neurons: NeuronSet) -> dict[str, set]:
    return {language: set(neurons.neurons(language).select(NEURON).iter_rows()) for language in neurons.languages}


def patterns(neurons: NeuronSet) -> Counter[Any]:
    """How many neurons of each (layer, site) exactly these languages share."""
    having = defaultdict(set)
    for language, *neuron in neurons.frame.select(KEYS).iter_rows():
        having[tuple(neuron)].add(language)
    return Counter((layer, site, frozenset(languages)) for (layer, site, _), languages in having.items())


def assert_same_shape(drawn: NeuronSet, neurons: NeuronSet) -> None:
    for language, some in members(neurons).items():
        assert Counter(n[:2] for n in members(drawn)[language]) == Counter(n[:2] for n in some)
    assert drawn.languages == neurons.languages
    assert drawn.frame.schema == SCHEMA
    assert drawn.frame["score"].null_count() == len(drawn)


# ── as many, anywhere ────────────────────────────────────────────────────────────────────────────────────────────────


@quick
@given(models, st.integers(0, 2**40))
def test_a_random_set_is_matched_and_overlaps_alike(model: Model, seed: int) -> None:
    neurons = build(model)
    drawn = random_like(neurons, WIDTHS, seed)
    assert_same_shape(drawn, neurons)
    assert all(0 <= index < WIDTHS[layer, site] for _, layer, site, index in drawn.frame.select(KEYS).iter_rows())
    assert patterns(drawn) == patterns(neurons)
    assert random_like(neurons, WIDTHS, seed) == drawn


def test_layers_are_drawn_independently() -> None:
    """The layers hold the same indices; a set that repeated one layer's draw in the other would be too regular."""
    fixed = neuron_set([(one, layer, "q", i, 1.0) for one in LANGUAGES for layer in range(2) for i in range(3)])
    same = 0
    for seed in range(20):
        rows = members(random_like(fixed, {(0, "q"): 24, (1, "q"): 24}, seed))["en"]
        same += {i for layer, _, i in rows if layer == 0} == {i for layer, _, i in rows if layer == 1}
    assert same < 5


def test_every_neuron_of_the_place_is_as_likely_also_those_of_the_set() -> None:
    neurons = neuron_set([("en", 0, "q", 2, 1.0), ("en", 0, "q", 5, 1.0)])
    drawn = Counter(n[2] for seed in range(300) for n in members(random_like(neurons, {(0, "q"): 8}, seed))["en"])
    assert set(drawn) == set(range(8))
    assert chisquare(list(drawn.values())).pvalue > 0.001


def test_a_set_that_fills_a_place_is_its_own_random_set() -> None:
    """There is nothing to compare it with: no error, but no neuron that differs either."""
    neurons = neuron_set([("en", 1, "q", i, 1.0) for i in range(5)])
    drawn = [random_like(neurons, WIDTHS, seed) for seed in range(3)]
    assert drawn == [neurons] * 3
    assert differing(neurons, drawn) == 0
    part = neurons.frame.head(2)
    assert differing(neuron_set(part), [neurons, neuron_set(neurons.frame.tail(3))]) == 1


@pytest.mark.parametrize("neuron", [("en", 7, "q", 0, 1.0), ("en", 0, "q", 5, 1.0)], ids=["layer", "index"])
def test_neurons_that_the_model_does_not_have_get_no_random_set(neuron: Any) -> None:
    """A neuron file may have been made for another model."""
    with pytest.raises((RecipeError, DataError)):
        random_like(neuron_set([neuron]), WIDTHS, 0)


# ── a rank test among drawn sets holds its level ─────────────────────────────────────────────────────────────────────

STUDIES, DRAWS, WIDTH = 1000, 19, 40
"""Every study is a layer of its own, so that a call draws the sets of all studies."""
STUDIED = dict.fromkeys(((study, "q") for study in range(STUDIES)), WIDTH)


def studied(indices: Mapping[str, np.ndarray]) -> NeuronSet:
    """Sets of `indices` [study, neuron] of each language."""
    rows = [
        pl.DataFrame({"layer": np.repeat(np.arange(STUDIES), some.shape[1]), "index": some.ravel()}).with_columns(
            language=pl.lit(language), site=pl.lit("q"), score=1.0
        )
        for language, some in indices.items()
    ]
    return neuron_set(pl.concat(rows))


def rejected(neurons: NeuronSet, worth: np.ndarray, draw: Callable[[int], NeuronSet]) -> float:
    """The share of studies in which the set ranks first of 20 by the summed `worth` [study, neuron]: p = .05."""

    def figures(some: NeuronSet) -> np.ndarray:
        layer, index = some.frame["layer"].to_numpy(), some.frame["index"].to_numpy()
        return np.bincount(layer, weights=worth[layer, index], minlength=STUDIES)

    drawn = np.array([figures(draw(seed)) for seed in range(DRAWS)])
    return float((drawn < figures(neurons)).all(axis=0).mean())


def disjoint(neurons: NeuronSet, seed: int) -> NeuronSet:
    """A random set drawn from the neurons outside the set alone, as controls once were."""
    random = np.random.default_rng(seed)
    rows = []
    for (layer,), some in neurons.frame.group_by("layer", maintain_order=True):
        used = some["index"].unique().sort().to_numpy()
        free = np.setdiff1d(np.arange(WIDTH), used)
        moved = dict(zip(used.tolist(), random.choice(free, len(used), replace=False).tolist(), strict=True))
        rows += [(language, layer, "q", moved[i], None) for language, i in some.select("language", "index").iter_rows()]
    return neuron_set(rows)


LEVEL = 0.05 + 3 * (0.05 * 0.95 / STUDIES) ** 0.5
"""What a test of level .05 stays under, within its Monte Carlo error."""


@pytest.mark.parametrize("size", [3, 14], ids=["a tenth of the place", "40 % of the place"])
def test_the_rank_among_random_sets_holds_its_level_where_disjoint_sets_do_not(size: int) -> None:
    """Neurons are of unequal worth, a few carry most of it, and the set is random in fact; languages share part."""
    random = np.random.default_rng(size)
    worth = random.lognormal(sigma=1, size=(STUDIES, WIDTH))
    order = random.permuted(np.tile(np.arange(WIDTH), (STUDIES, 1)), axis=1)
    neurons = studied({"en": order[:, :size], "de": order[:, size // 7 : size // 7 + size]})
    found = rejected(neurons, worth, lambda seed: random_like(neurons, STUDIED, seed))
    assert 0.03 < found < LEVEL
    if size == 14:
        some = neurons.only(layers=range(200))
        assert rejected(some, worth, lambda seed: disjoint(some, seed)) * STUDIES / 200 > 0.12
