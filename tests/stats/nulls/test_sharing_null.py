"""Sharing against common importance: exact distribution, simulation, and the claim about the plain hypergeometric."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import NeuronSet, neuron_set
from ssn_probe.neurons.overlap import overlap_table
from ssn_probe.neurons.selection import select_neurons
from ssn_probe.stats.nulls.sharing_null import importance_strata, overlap_pmf, shared_beyond_importance

WIDTH = 2048


def importance_of(harmful: dict[str, np.ndarray], harmless: dict[str, np.ndarray]) -> pl.DataFrame:
    frames = []
    for language, values in harmful.items():
        n = len(values)
        keys = {"language": [language] * n, "layer": [0] * n, "site": ["ffn"] * n, "index": np.arange(n)}
        frames.append(pl.DataFrame(keys | {"harmful": values, "harmless": harmless[language]}))
    return pl.concat(frames).cast({"layer": pl.Int32, "index": pl.Int32})


def null_study(seed: int) -> tuple[pl.DataFrame, NeuronSet]:
    """No difference between the contexts: importances common to two languages, noise in proportion to them."""
    random = np.random.default_rng(seed)
    base = np.exp(random.normal(0, 1, WIDTH))
    own = {one: base * np.exp(random.normal(0, 0.15, WIDTH)) for one in ("en", "de")}
    harmful, harmless = ({k: v * (1 + random.normal(0, 0.1, WIDTH)) for k, v in own.items()} for _ in range(2))
    importance = importance_of(harmful, harmless)
    return importance, select_neurons(importance, rule="paper", top=0.03, pool="site")


def test_the_plain_expectation_is_far_too_low_and_the_stratified_one_is_about_right() -> None:
    rows = pl.concat([shared_beyond_importance(*null_study(seed)) for seed in range(60)])
    shared, plain, stratified = (rows[name].mean() for name in ("shared", "expected_by_place", "expected"))
    assert shared > 5 * plain
    assert 0.6 < shared / stratified < 1.4
    assert (rows["p"] <= 0.05).mean() < 0.12


def test_without_strata_it_is_the_expectation_of_the_overlap_table() -> None:
    importance, neurons = null_study(0)
    row = shared_beyond_importance(importance, neurons, stratum=WIDTH).row(0, named=True)
    table = overlap_table(neurons, {(0, "ffn"): WIDTH}, "ms").row(0, named=True)
    for name, same in (("shared", "shared"), ("expected", "expected"), ("size_a", "size_a"), ("size_b", "size_b")):
        assert row[name] == pytest.approx(table[same])
    assert row["expected_by_place"] == pytest.approx(row["expected"])
    exact = hypergeom(WIDTH, row["size_a"], row["size_b"])
    assert row["p"] == pytest.approx(exact.sf(row["shared"] - 1))
    assert (row["low"], row["high"]) == (exact.ppf(0.025), exact.ppf(0.975))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=6))
def test_the_distribution_of_the_sum_is_exact(rows: list[tuple[int, int, int]]) -> None:
    urns = np.array([(n, min(a, n), min(b, n)) for n, a, b in rows])
    pmf = overlap_pmf(urns)
    slow = np.ones(1)
    for n, a, b in urns:
        slow = np.convolve(slow, hypergeom(n, a, b).pmf(np.arange(n + 1)))
    assert pmf.sum() == pytest.approx(1)
    assert pmf == pytest.approx(slow[: len(pmf)])
    assert slow[len(pmf) :].sum() == pytest.approx(0)
    assert (pmf * np.arange(len(pmf))).sum() == pytest.approx((urns[:, 1] * urns[:, 2] / urns[:, 0]).sum())


def test_p_and_range_agree_with_a_simulation() -> None:
    importance, neurons = null_study(1)
    row = shared_beyond_importance(importance, neurons).row(0, named=True)
    strata = importance_strata(importance, 64)["stratum"].to_numpy()
    own = [np.isin(np.arange(WIDTH), neurons.neurons(one)["index"].to_numpy()) for one in ("en", "de")]
    random, drawn = np.random.default_rng(0), np.zeros(4000, dtype=int)
    for code in np.unique(strata):
        here = strata == code
        drawn += random.hypergeometric(own[0][here].sum(), (~own[0])[here].sum(), own[1][here].sum(), size=4000)
    assert row["expected"] == pytest.approx(drawn.mean(), abs=4 * drawn.std() / 4000**0.5)
    assert row["p"] == pytest.approx((drawn >= row["shared"]).mean(), abs=0.03)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert abs(row["low"] - low) <= 1
    assert abs(row["high"] - high) <= 1


def test_planted_sharing_beyond_importance_is_found() -> None:
    importance, neurons = null_study(2)
    extra = [(one, 0, "ffn", i, None) for one in ("en", "de") for i in range(100, 112)]
    row = shared_beyond_importance(importance, neurons | neuron_set(extra)).row(0, named=True)
    assert row["p"] < 0.001
    assert row["shared"] > row["high"]


def test_strata_are_of_about_equal_size_within_a_place_and_follow_importance() -> None:
    values = {"en": np.arange(150.0), "de": np.arange(150.0)}
    strata = importance_strata(importance_of(values, values), 64)
    assert strata["stratum"].to_list() == [1] * 75 + [2] * 75
    few = importance_of({"en": np.arange(3.0)}, {"en": np.zeros(3)})
    assert importance_strata(pl.concat([few, few.with_columns(site=pl.lit("o"))]), 64)["stratum"].n_unique() == 2


def test_equal_importances_and_disjoint_sets_have_p_1() -> None:
    same = {one: np.ones(128) for one in ("en", "de")}
    neurons = neuron_set([("en", 0, "ffn", 3, None), ("de", 0, "ffn", 100, None)])
    row = shared_beyond_importance(importance_of(same, same), neurons).row(0, named=True)
    assert (row["shared"], row["p"], row["low"]) == (0, 1.0, 0.0)


def test_what_has_no_pairs_or_no_importance_is_refused() -> None:
    importance, neurons = null_study(0)
    with pytest.raises(RecipeError, match="language-free"):
        shared_beyond_importance(importance, neurons.union())
    with pytest.raises(RecipeError, match="stratum is 0"):
        shared_beyond_importance(importance, neurons, stratum=0)
    with pytest.raises(DataError, match="1 neurons of the set have no importance"):
        shared_beyond_importance(importance, neurons | neuron_set([("en", 9, "q", 0, None), ("de", 0, "ffn", 0, None)]))
    with pytest.raises(DataError, match="NaN"):
        shared_beyond_importance(importance.with_columns(harmful=pl.lit(float("nan"))), neurons)
    assert shared_beyond_importance(importance, neurons.only(languages=["en"])).is_empty()
