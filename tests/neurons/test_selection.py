"""Every selection rule against a slow reference in plain Python; shared sets, controls and overlaps likewise."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from fractions import Fraction
from itertools import combinations
from statistics import mean
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import EVERY, KEYS, SCHEMA, NeuronSet, neuron_set, overlap
from ssn_probe.neurons.overlap import overlap_table
from ssn_probe.neurons.selection import averaged, select_neurons, shared_at_least, shared_with_anchor

quick = settings(deadline=None, max_examples=60)
Neuron = tuple[int, str, int]
Importance = Mapping[tuple[str, int, str, int], tuple[float, float]]
LANGUAGES = ("en", "de", "sw")
RULES = ("difference", "harmful", "paper")
COLUMNS = {name: SCHEMA[name] for name in KEYS} | {"harmful": pl.Float64, "harmless": pl.Float64}


def importance_frame(importance: Importance) -> pl.DataFrame:
    return pl.DataFrame([(*key, *values) for key, values in importance.items()], schema=COLUMNS, orient="row")


@st.composite
def importances(draw: st.DrawFn) -> Importance:
    """Few distinct values, so that ties, zeros and negatives are common; sites of different widths."""
    widths = {"q": draw(st.integers(1, 5)), "ffn": draw(st.integers(1, 9)), "v": draw(st.integers(1, 3))}
    places = [(layer, site, i) for layer in range(2) for site, width in widths.items() for i in range(width)]
    value = st.integers(-2, 4).map(lambda whole: whole / 4)
    return {(one, *place): (draw(value), draw(value)) for one in LANGUAGES[:2] for place in places}


def reference(importance: Importance, rule: str, top: str, pool: str) -> dict[str, dict[Neuron, float]]:
    """The rule of `algorithms.md` 2b, pool by pool, by sorting."""
    pools = defaultdict(list)
    for language, layer, site, index in sorted(importance):
        pools[(language, layer, site) if pool == "site" else (language, layer)].append((language, layer, site, index))
    found: dict[str, dict[Neuron, float]] = {key[0]: {} for key in importance}
    for members in pools.values():
        count = math.ceil(Fraction(top) * len(members))

        def best(score: Any, members: list = members, count: int = count) -> set:
            first = sorted(members, key=lambda key: -score(key))[:count]  # stable: ties stay in order
            return {key for key in first if score(key) > 0}

        def score(key: Any) -> float:
            return importance[key][0] - importance[key][1] * {"harmful": 0.0, "both": 0.5}.get(rule, 1.0)

        paper = rule == "paper"
        chosen = best(lambda key: importance[key][0]) - best(lambda key: importance[key][1]) if paper else best(score)
        for key in chosen:
            found[key[0]][key[1:]] = score(key)
    return found


def scored(neurons: NeuronSet) -> dict[str, dict[Neuron, float]]:
    found: dict[str, dict[Neuron, float]] = {language: {} for language in neurons.languages}
    for language, *neuron, score in neurons.frame.select(*KEYS, "score").iter_rows():
        found[language][tuple(neuron)] = score  # type: ignore[index]
    return found


@pytest.mark.parametrize("pool", ["site", "layer"])
@pytest.mark.parametrize("rule", RULES)
@quick
@given(importances(), st.sampled_from(["0.001", "0.1", "0.2", "0.25", "0.5", "1"]), st.randoms())
def test_every_rule_is_what_sorting_gives(rule: str, pool: str, importance: Importance, top: str, random: Any) -> None:
    expected = reference(importance, rule, top, pool)
    rows = list(importance)
    random.shuffle(rows)
    frame = importance_frame({key: importance[key] for key in rows})
    if all(expected.values()):
        found = select_neurons(frame, rule=rule, top=float(top), pool=pool)
        assert scored(found) == expected
        assert found.frame.schema == SCHEMA
    else:
        with pytest.raises(DataError, match="no neuron of"):
            select_neurons(frame, rule=rule, top=float(top), pool=pool)


def one_site(scores: list[float], language: str = "en") -> Importance:
    return {(language, 0, "ffn", index): (score, 0.0) for index, score in enumerate(scores)}


@pytest.mark.parametrize(
    ("top", "n", "count"),
    [(0.005, 200, 1), (0.005, 201, 2), (0.03, 101, 4), (0.1, 30, 3), (0.07, 100, 7), (0.29, 100, 29), (1, 17, 17)],
)
def test_the_count_is_the_ceiling_in_exact_arithmetic(top: float, n: int, count: int) -> None:
    """0.1 × 30 and 0.07 × 100 are a little more than 3 and 7 in floating point."""
    frame = importance_frame(one_site([float(n - i) for i in range(n)]))
    assert len(select_neurons(frame, rule="harmful", top=top, pool="site")) == count


@quick
@given(importances())
def test_averaged_is_the_mean_over_languages(importance: Importance) -> None:
    found = averaged(importance_frame(importance))
    neurons = {key[1:] for key in importance}
    assert set(found["language"]) == {EVERY}
    assert found.height == len(neurons)
    for _, *neuron, harmful, harmless in found.iter_rows():
        values = [importance[language, *neuron] for language in LANGUAGES[:2]]
        assert (harmful, harmless) == pytest.approx((mean(v[0] for v in values), mean(v[1] for v in values)))


# ── shared sets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_set_says_whether_another_top_would_help() -> None:
    equal = importance_frame({("en", 0, "q", index): (1.0 + index, 1.0 + index) for index in range(4)})
    with pytest.raises(DataError, match="at the top 1 on harmful prompts") as caught:
        select_neurons(equal, rule="paper", top=1, pool="site")
    assert caught.value.hint == (
        "The highest effects on harmful prompts are 4, 3, 2. Give another top, or try rule='difference' or another "
        "effect."
    )
    low = one_site([-0.125, -0.25, -0.5, -7.0], "de")
    for rule, further in (("difference", "Try rule='harmful' or another effect."), ("harmful", "Try another effect.")):
        with pytest.raises(DataError, match="no neuron of de has a score above 0") as caught:
            select_neurons(importance_frame(one_site([1.0]) | low), rule=rule, top=0.25, pool="site")
        assert caught.value.hint == f"The highest scores are -0.125, -0.25, -0.5. {further}"


small = st.tuples(st.integers(0, 1), st.sampled_from(["q", "ffn"]), st.integers(0, 3))
models = st.fixed_dictionaries({language: st.sets(small, max_size=8) for language in LANGUAGES})


def build(model: Mapping[str, Any]) -> NeuronSet:
    rows = [(language, *neuron, float(sum(neuron[::2]))) for language, some in model.items() for neuron in some]
    return NeuronSet(neuron_set(rows).frame, LANGUAGES)


UNIVERSE = [(layer, site, index) for layer in range(2) for site in ("q", "ffn") for index in range(4)]
RANKS = {neuron: 10.0 + place for place, neuron in enumerate(UNIVERSE)}
MEAN_SCORE = neuron_set([(EVERY, *neuron, rank) for neuron, rank in RANKS.items()]).frame.drop("language")


@quick
@given(models, st.sampled_from(LANGUAGES))
def test_shared_with_the_anchor_is_the_intersection_with_its_set(model: Mapping[str, set], anchor: str) -> None:
    expected = {language: some & model[anchor] for language, some in model.items()}
    found = shared_with_anchor(build(model), anchor, MEAN_SCORE)
    assert scored(found) == {one: {neuron: RANKS[neuron] for neuron in some} for one, some in expected.items()}
    assert set(scored(found)[anchor]) == model[anchor]
    assert found.languages == LANGUAGES


def test_an_anchor_that_the_set_does_not_know() -> None:
    with pytest.raises(RecipeError, match="anchor 'fr' is not a language") as caught:
        shared_with_anchor(build({"en": {(0, "q", 1)}}), "fr", MEAN_SCORE)
    assert "en, de, sw" in (caught.value.hint or "")


@quick
@given(models, st.integers(1, 3))
def test_shared_at_least_counts_languages(model: Mapping[str, set], count: int) -> None:
    having = Counter(neuron for some in model.values() for neuron in some)
    expected = {neuron for neuron, languages in having.items() if languages >= count}
    if not expected:
        with pytest.raises(DataError, match=f"in {count} languages or more") as caught:
            shared_at_least(build(model), count)
        assert f"is {max(having.values(), default=0)}." in (caught.value.hint or "")
        return
    found = shared_at_least(build(model), count)
    assert found.language_free
    assert set(scored(found)[EVERY]) == expected


def test_shared_at_least_takes_the_mean_score_of_the_languages_that_have_the_neuron() -> None:
    neurons = neuron_set([("en", 0, "q", 1, 1.0), ("de", 0, "q", 1, 2.0), ("sw", 0, "q", 2, 9.0)])
    assert scored(shared_at_least(neurons, 2)) == {EVERY: {(0, "q", 1): 1.5}}
    with pytest.raises(RecipeError, match="at_least=4, but the set has 3 languages"):
        shared_at_least(neurons, 4)


WIDTHS = {(layer, site): width for layer in range(2) for site, width in (("q", 24), ("ffn", 40))}


# ── overlap ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@quick
@given(models)
def test_overlap_is_counted_and_set_against_the_hypergeometric_mean(model: Mapping[str, set]) -> None:
    found = overlap_table(build(model), WIDTHS, "ms")
    assert overlap_table(build(model).only(languages=["en"]), WIDTHS, "ms").is_empty()
    pairs = [("en", "de"), ("en", "sw"), ("de", "sw")]
    assert list(found.select("language_a", "language_b").iter_rows()) == pairs
    for row in found.rows(named=True):
        a, b = model[row["language_a"]], model[row["language_b"]]
        sizes = [tuple(sum(n[:2] == place for n in some) for some in (a, b)) for place in WIDTHS]
        draws = zip(WIDTHS.values(), sizes, strict=True)
        expected = sum(hypergeom(width, *both).mean() for width, both in draws if all(both))
        assert (row["size_a"], row["size_b"], row["shared"]) == (len(a), len(b), len(a & b))
        assert row["expected"] == pytest.approx(expected)
        assert row["fold"] == (pytest.approx(len(a & b) / expected) if expected else None)
        assert row["jaccard"] == (pytest.approx(len(a & b) / len(a | b)) if a | b else None)
        assert row["set"] == "ms"


@quick
@given(
    st.dictionaries(st.sampled_from([f"l{n}" for n in range(9)]), st.sets(st.integers(0, 399)), min_size=2),
    st.randoms(),
)
def test_overlap_of_many_languages_in_any_order_of_rows(model: Mapping[str, set[int]], random: Any) -> None:
    """Neurons beyond one word of bits, places of unknown width, and rows that are not sorted."""
    places = [(layer, site) for layer in (0, 7) for site in ("v", "q")]
    rows = [(one, *places[n % 4], n // 4, 1.0) for one, some in model.items() for n in some]
    random.shuffle(rows)
    neurons = NeuronSet(pl.DataFrame(rows, schema=SCHEMA, orient="row"), tuple(model))
    widths = dict.fromkeys(places[:3], 100)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(overlap, "BLOCK_WORDS", random.choice([1, 2, 1024]))
        found = overlap_table(neurons, widths, "ms")
    for row in found.rows(named=True):
        a, b = (model[row[name]] for name in ("language_a", "language_b"))
        sizes = [[sum(n % 4 == place for n in some) for some in (a, b)] for place in range(3)]
        assert (row["size_a"], row["size_b"], row["shared"]) == (len(a), len(b), len(a & b))
        assert row["expected"] == pytest.approx(math.fsum(x * y / 100 for x, y in sizes), rel=1e-14, abs=0)
    assert [tuple(pair) for pair in found.select("language_a", "language_b").iter_rows()] == list(
        combinations(model, 2)
    )


@pytest.mark.parametrize("context", ["harmful", "harmless"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rule", RULES)
def test_an_importance_that_is_no_number_is_an_error_that_names_the_neuron(
    rule: str, value: float, context: str
) -> None:
    frame = pl.DataFrame(
        {
            "language": "aa",
            "layer": pl.Series([1] * 9, dtype=pl.Int32),
            "site": "ffn",
            "index": pl.Series(range(9), dtype=pl.Int32),
            "harmful": [float(index) for index in range(9)],
            "harmless": [0.0] * 9,
        }
    ).with_columns(pl.when(pl.col("index") == 3).then(value).otherwise(pl.col(context)).alias(context))
    with pytest.raises(DataError, match="neuron 3 at site ffn of layer 1 in aa is NaN or infinite"):
        select_neurons(frame, rule=rule, top=0.2, pool="site")
