"""Sets that are drawn beside a tested set: their shape, and that a rank test among them holds its level."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from differing import differing
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import KEYS, NEURON, SCHEMA, NeuronSet, neuron_set
from ssn_probe.neurons.own_sets import own_neurons, own_of
from ssn_probe.neurons.random_controls import as_important, importance_strata, random_like
from ssn_probe.spec import NeuronFile, Prompts, RandomLike, SafetyNeurons, SetExpression, Shared

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


@quick
@given(models, st.integers(0, 2**40))
def test_a_random_set_is_the_same_whatever_the_order_of_the_rows(model: Model, seed: int) -> None:
    """The rows of a file may come in any order; those of the drawn set are sorted."""
    neurons = build(model)
    mixed = NeuronSet(neurons.frame.sample(fraction=1, shuffle=True, seed=0), LANGUAGES)
    drawn = random_like(mixed, WIDTHS, seed)
    assert drawn.frame.equals(random_like(neurons, WIDTHS, seed).frame)
    assert drawn.frame.equals(drawn.frame.sort(KEYS))


def test_a_seed_gives_the_set_that_it_always_gave() -> None:
    """Every neuron moves as numpy's draw of its place says: runs that are kept have sets of these seeds."""
    neurons = neuron_set([(one, 1, "ffn", i, 1.0) for one, some in (("en", (0, 4)), ("de", (4, 7))) for i in some])
    moved = dict(zip((0, 4, 7), [5, 2, 8], strict=True))
    found = members(random_like(neurons, WIDTHS, 3))
    assert found == {"en": {(1, "ffn", moved[i]) for i in (0, 4)}, "de": {(1, "ffn", moved[i]) for i in (4, 7)}}


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


# ── as many, equally important ──────────────────────────────────────────────────────────────────────────────────────


def of_importance(common: Mapping[tuple[int, str], np.ndarray]) -> pl.DataFrame:
    """An importance frame of two languages whose mean common importance at each place is `common` [neuron]."""
    rows = []
    for (layer, site), values in common.items():
        here = {"layer": layer, "site": site, "index": range(len(values))}
        en = pl.DataFrame(here | {"harmful": 3 * values, "harmless": -values}, schema_overrides=TYPES)
        de = pl.DataFrame(here | {"harmful": -values, "harmless": -values}, schema_overrides=TYPES)
        rows += [en.with_columns(language=pl.lit("en")), de.with_columns(language=pl.lit("de"))]
    return pl.concat(rows).sample(fraction=1, shuffle=True, seed=0)


TYPES = {name: SCHEMA[name] for name in NEURON} | {"harmful": pl.Float64, "harmless": pl.Float64}


def test_strata_are_of_neurons_that_differ_by_a_tenth_at_most_whatever_the_labels() -> None:
    common = np.array([0.0, 10.0, 9.2, 8.9, 1.0, 0.0, np.nan])
    frame = of_importance({(0, "q"): common, (1, "q"): np.zeros(2)})
    found = importance_strata(frame)
    assert [found[0, "q"][one] == found[0, "q"][other] for one, other in ((1, 2), (2, 3), (3, 4), (0, 5), (5, 6))] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert found[1, "q"][0] == found[1, "q"][1]
    exchanged = frame.rename({"harmful": "harmless", "harmless": "harmful"})
    assert all((importance_strata(exchanged)[place] == strata).all() for place, strata in found.items())


@quick
@given(models, st.integers(0, 2**40))
def test_a_set_as_important_is_matched_stratum_by_stratum(model: Model, seed: int) -> None:
    neurons = build(model)
    strata = {place: np.arange(width) // 3 for place, width in WIDTHS.items()}
    drawn = as_important(neurons, strata, seed)
    assert_same_shape(drawn, neurons)
    assert patterns(drawn) == patterns(neurons)
    for language, some in members(neurons).items():
        moved = members(drawn)[language]
        assert Counter((*n[:2], n[2] // 3) for n in moved) == Counter((*n[:2], n[2] // 3) for n in some)
    assert as_important(neurons, strata, seed) == drawn


def test_a_neuron_that_no_other_is_as_important_as_stays() -> None:
    neurons = neuron_set([("en", 0, "q", 3, 1.0)])
    drawn = [as_important(neurons, {(0, "q"): np.arange(9)}, seed) for seed in range(3)]
    assert differing(neurons, drawn) == 0
    with pytest.raises(RecipeError, match="importance of the neurons in layer 0, q is not known"):
        as_important(neurons, {(0, "v"): np.zeros(9)}, 0)


# ── as many of each language's own ───────────────────────────────────────────────────────────────────────────────────


@quick
@given(models, st.integers(0, 2**40))
def test_own_neurons_are_as_many_of_the_own_set(model: Model, seed: int) -> None:
    ms = build(model)
    shared = ms & ms.of("en")
    drawn = own_neurons(shared, ms, seed)
    assert_same_shape(drawn, shared)
    assert not len(drawn - ms)
    assert drawn.of("en") == ms.of("en")
    assert own_neurons(shared, ms, seed) == drawn
    free = own_neurons(shared.union(), ms.union(), seed)
    assert (free.language_free, len(free), len(free - ms.union())) == (True, len(shared.union()), 0)


@quick
@given(models, st.integers(0, 2**40))
def test_own_neurons_are_the_first_of_one_random_order_of_all(model: Model, seed: int) -> None:
    """Written with polars' groups: runs that are kept have sets of these seeds."""
    ms, place = build(model), ["language", "layer", "site"]
    shared = ms & ms.of("en")
    order = ms.frame.select(NEURON).unique().sort(NEURON)
    order = order.with_columns(order=pl.Series(np.random.default_rng(seed).permutation(len(order))))
    ranked = ms.frame.join(order, on=NEURON).with_columns(rank=pl.col("order").rank("ordinal").over(place))
    first = ranked.join(shared.frame.group_by(place).len(), on=place).filter(pl.col("rank") <= pl.col("len"))
    assert own_neurons(shared, ms, seed).frame.select(KEYS).equals(first.select(KEYS).sort(KEYS))


def test_own_neurons_need_a_set_that_the_tested_one_is_part_of() -> None:
    ms = neuron_set([("en", 0, "q", 0, 1.0), ("de", 0, "q", 1, 1.0)])
    for other in (ms.union(), neuron_set([("en", 0, "q", 1, 1.0), ("de", 0, "q", 1, 1.0)]), ms.only(languages=["de"])):
        with pytest.raises(RecipeError, match="not part of"):
            own_neurons(other, ms, 0)


MS = SafetyNeurons(Prompts("made up"))
OTHER = SafetyNeurons(Prompts("made up"), rule="harmful")


@pytest.mark.parametrize(
    ("expression", "own"),
    [
        (MS, None),
        (Shared(MS), MS),
        (Shared(MS, at_least=2), MS.union()),
        (Shared(MS, by="mean"), None),
        (Shared(MS).union(), MS.union()),
        (Shared(MS).of("en"), MS.of("en")),
        (Shared(MS).only(sites=["q"]).without_strongest(), MS.only(sites=["q"])),
        (Shared(MS) - OTHER, MS - OTHER),
        (MS - Shared(MS), None),
        (Shared(MS) & OTHER, MS & OTHER),
        (OTHER & Shared(MS), OTHER & MS),
        (Shared(MS) | Shared(OTHER), MS | OTHER),
        (Shared(MS) | OTHER, None),
        (Shared(MS).union().leave_one_out(), MS.union().leave_one_out()),
        (Shared(MS).whole_layers(), None),
        (Shared(NeuronFile("ms.csv"), anchor="en"), NeuronFile("ms.csv")),
        (RandomLike(Shared(MS)), None),
    ],
)
def test_where_shared_neurons_are_taken_from(expression: SetExpression, own: SetExpression | None) -> None:
    assert own_of(expression) == own


# ── a rank test among drawn sets holds its level ─────────────────────────────────────────────────────────────────────

STUDIES, DRAWS, WIDTH = 600, 19, 40
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


@pytest.mark.parametrize("size", [pytest.param(3, marks=pytest.mark.slow), 14])
def test_the_rank_among_random_sets_holds_its_level_where_disjoint_sets_do_not(size: int) -> None:
    """Neurons are of unequal worth, a few carry most of it, and the set is random in fact; languages share part.

    The sets are a tenth and 40 % of their place.
    """
    random = np.random.default_rng(size)
    worth = random.lognormal(sigma=1, size=(STUDIES, WIDTH))
    order = random.permuted(np.tile(np.arange(WIDTH), (STUDIES, 1)), axis=1)
    neurons = studied({"en": order[:, :size], "de": order[:, size // 7 : size // 7 + size]})
    found = rejected(neurons, worth, lambda seed: random_like(neurons, STUDIED, seed))
    assert 0.03 < found < LEVEL
    if size == 14:
        some = neurons.only(layers=range(200))
        assert rejected(some, worth, lambda seed: disjoint(some, seed)) * STUDIES / 200 > 0.12


@pytest.mark.parametrize("rule", [pytest.param("difference", marks=pytest.mark.slow), "harmful"])
def test_the_rank_among_sets_as_important_holds_its_level_where_random_sets_do_not(rule: str) -> None:
    """Important neurons are worth more, and the set is made of them by chance: nothing else distinguishes it."""
    random = np.random.default_rng(5)
    common = random.lognormal(size=(STUDIES, WIDTH * 4))
    noise = random.normal(size=common.shape)
    order = np.argsort(common * -(noise if rule == "difference" else np.exp(0.3 * noise)), axis=1)
    neurons = studied({"en": order[:, :6], "de": order[:, 2:8]})
    strata = importance_strata(of_importance({(study, "q"): values for study, values in enumerate(common)}))
    worth = common * random.lognormal(sigma=0.5, size=common.shape)
    assert rejected(neurons, worth, lambda seed: as_important(neurons, strata, seed)) < LEVEL
    widths = dict.fromkeys(STUDIED, WIDTH * 4)
    assert rejected(neurons, worth, lambda seed: random_like(neurons, widths, seed)) > 0.5


def test_the_rank_among_own_neurons_holds_its_level_where_a_draw_per_language_does_not() -> None:
    """Own sets overlap more than by chance, a few of their neurons carry most, and the anchor's are random ones."""
    random = np.random.default_rng(7)
    worth = random.lognormal(sigma=1, size=(STUDIES, WIDTH))
    order = random.permuted(np.tile(np.arange(WIDTH), (STUDIES, 1)), axis=1)
    other = random.permuted(np.tile(np.arange(WIDTH), (STUDIES, 1)), axis=1)
    ms = studied({"anchor": other[:, :20], "en": order[:, :24], "de": order[:, 4:28], "sw": order[:, 2:26]})
    others = ms.only(languages=["en", "de", "sw"])
    shared = others & ms.of("anchor")
    found = rejected(shared, worth, lambda seed: own_neurons(shared, others, seed))
    assert 0.02 < found < LEVEL

    def alone(seed: int) -> NeuronSet:
        parts = [others.only(languages=[one]) for one in others.languages]
        drawn = [own_neurons(shared.only(languages=part.languages), part, seed * 9 + i) for i, part in enumerate(parts)]
        return neuron_set(pl.concat([one.frame for one in drawn]))

    assert rejected(shared, worth, alone) > 0.1
