"""Single neurons: the closed form against enumeration, calibration, power, and data with nothing in it."""

from functools import partial
from itertools import combinations, product

import numpy as np
import polars as pl
import pytest
from made_up_effects import effects_from, prompt_table, sides, study
from scipy.stats import false_discovery_control

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.stats.nulls import false_discoveries as fdr
from ssn_probe.stats.nulls.false_discoveries import binned, discoveries, passing
from ssn_probe.stats.nulls.label_exchange import draw_labels, exchange
from ssn_probe.stats.nulls.prompt_effects import PromptEffects, groups
from ssn_probe.stats.nulls.unit_contrasts import Contrast, contrasts, weights

made = partial(study, neurons=200)


def contrast_of(measured: PromptEffects, language: str = "en") -> Contrast:
    group = next(groups(measured, "site"))
    return next(found for found in contrasts(group, exchange(measured.prompts)) if found.language == language)


def test_the_standard_deviation_of_swapped_pairs_is_exact() -> None:
    effects = np.random.default_rng(0).normal(size=(12, 3))
    table = prompt_table(sides(6), pair_id=[f"pair {i // 2}" for i in range(12)])
    found = contrast_of(effects_from(table, {("en", 0, "o"): effects}))
    differences = effects.astype(np.float32)[::2] - effects.astype(np.float32)[1::2]
    every = np.array([np.array(signs) @ differences / 6 for signs in product((1, -1), repeat=6)])
    assert found.score == pytest.approx(differences.mean(axis=0))
    assert found.sd == pytest.approx(every.std(axis=0), rel=1e-6)
    assert every.mean(axis=0) == pytest.approx(0, abs=1e-7)


def test_the_standard_deviation_of_strata_is_exact_and_their_level_drops_out() -> None:
    """Two strata with unequal shares of harmful prompts: T, their weighted mean, under every relabelling one by one."""
    harmful = np.array([True, True, True, True, False, True, False, False, True, False])
    effects = np.random.default_rng(1).normal(size=(10, 2)).astype(np.float32)
    strata = np.arange(10) < 5, np.arange(10) >= 5
    effects[5:] += 5
    table = prompt_table(harmful.tolist(), stratum=["a"] * 5 + ["b"] * 5)
    plan = exchange(table)
    found = contrast_of(effects_from(table, {("en", 0, "o"): effects}))
    every = []
    for first, second in product(combinations(range(5), 4), combinations(range(5, 10), 2)):
        label = np.isin(np.arange(10), [*first, *second])
        parts = [effects[here & label].mean(axis=0) - effects[here & ~label].mean(axis=0) for here in strata]
        every.append((4 / 5 * parts[0] + 6 / 5 * parts[1]) / 2)
    assert np.mean(every, axis=0) == pytest.approx(0, abs=1e-6)
    assert found.sd == pytest.approx(np.std(every, axis=0), rel=1e-5)
    observed = (weights(plan, plan.harmful[None]) @ found.unit)[0]
    assert observed == pytest.approx(found.score, rel=1e-5)


def test_z_has_mean_0_and_variance_1_under_permutation_whatever_the_structure() -> None:
    """Pairs, clusters of different sizes and strata together, and a language that lacks some prompts."""
    random = np.random.default_rng(2)
    harmful = sides(10) + [True] * 9 + [False] * 11
    pair = [f"pair {i // 2}" for i in range(20)] + [None] * 20
    cluster = [f"p{i}" for i in range(20)] + [f"c{i // 3}" for i in range(20 - 11)] + [f"d{i // 2}" for i in range(11)]
    table = prompt_table(harmful, pair_id=pair, cluster=cluster, stratum=["x"] * 40)
    effects = random.normal(size=(40, 5)) * [1, 10, 1e-6, 1e6, 3]
    effects[[3, 30]] = np.nan
    measured = effects_from(table, {("en", 0, "o"): effects})
    drawn = weights(exchange(table), draw_labels(table, 20_000, 0)[0])
    z = drawn @ contrast_of(measured).standardised
    assert z.mean(axis=0) == pytest.approx(0, abs=0.04)
    assert z.std(axis=0) == pytest.approx(1, abs=0.03)


def test_the_average_over_languages_is_the_mean_of_their_scores() -> None:
    found = discoveries(made(0), draws=20, permuted=5).neurons
    assert found.columns == list(fdr.NEURONS)
    own = found.filter(pl.col("language") != "*").group_by("index").agg(pl.col("score").mean()).sort("index")
    assert found.filter(language="*")["score"].to_list() == pytest.approx(own["score"].to_list())


def test_p_is_the_pooled_permutation_p_and_q_its_bh() -> None:
    measured = made(1, planted=20)
    labels = draw_labels(measured.prompts, 100, 0)[0]
    unit = contrast_of(measured).standardised
    plan = exchange(measured.prompts)
    null, observed = (weights(plan, labels) @ unit).ravel(), (weights(plan, plan.harmful[None]) @ unit)[0]
    p = np.array([(1 + (null >= z).sum()) / (1 + null.size) for z in observed])
    found = discoveries(measured, draws=100, permuted=5).neurons.filter(language="en")
    mine = found["p"].to_numpy()
    # Bins round p up, by no more than the z in one of them.
    assert (mine >= p - 1e-12).all()
    assert mine == pytest.approx(p, abs=0.002)
    assert found["q"].to_list() == pytest.approx(false_discovery_control(mine).tolist())


def test_blocks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = discoveries(made(0), draws=40, permuted=30)
    monkeypatch.setattr(fdr, "BLOCK_BYTES", 8 * 200 * 7)
    parts = discoveries(made(0), draws=40, permuted=30)
    assert np.allclose(parts.neurons["p"].to_numpy(), whole.neurons["p"].to_numpy(), atol=2e-3)
    assert parts.check["passed"].to_list() == whole.check["passed"].to_list()


def test_counting_by_bins_is_benjamini_and_hochberg() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        bins = random.integers(0, 8, 40)
        p_of_bin = np.sort(random.random(8) ** 3)[::-1]
        wanted = (false_discovery_control(p_of_bin[bins]) <= 0.2).sum()
        assert passing(np.bincount(bins, minlength=8), p_of_bin, 40, 0.2) == wanted
    assert binned(np.array([-1e9, -20.0, 0.0, 1e9])).tolist() == [0, 0, fdr.BINS // 2, fdr.BINS - 1]


@pytest.mark.slow
def test_nothing_is_found_more_often_than_the_rate_where_nothing_differs() -> None:
    """Correlated languages, common importance: the share of studies with any discovery is the rate, at most."""
    found = [discoveries(made(seed), draws=100, seed=seed, permuted=5).check for seed in range(150)]
    for language in ("en", "*"):
        any_passed = np.mean([check.filter(language=language)["passed"][0] > 0 for check in found])
        assert any_passed <= 0.05 + 2 * (0.05 * 0.95 / 150) ** 0.5
        said = np.mean([check.filter(language=language)["any_permuted"][0] for check in found])
        assert said <= 0.08


@pytest.mark.slow
def test_planted_neurons_are_found_at_the_stated_rate() -> None:
    wrong, right = [], []
    for seed in range(40):
        found = discoveries(made(seed, planted=20), draws=100, seed=seed, permuted=5).neurons.filter(language="*")
        passed = found.filter(pl.col("q") <= 0.05)["index"].to_numpy()
        wrong.append((passed >= 20).sum() / max(1, len(passed)))
        right.append((passed < 20).sum() / 20)
    assert np.mean(wrong) <= 0.05 + 2 * np.std(wrong) / 40**0.5
    assert np.mean(right) > 0.8


def test_effects_that_labels_cannot_change_are_no_discoveries_and_no_nan() -> None:
    """All equal; equal within each stratum; and one neuron that does differ beside them."""
    stratum = ["x"] * 10 + ["y"] * 10
    table = prompt_table(sides(10), stratum=stratum)
    effects = np.random.default_rng(0).normal(size=(20, 3))
    effects[::2] += 9
    effects[:, 0] = 0.1
    effects[:, 1] = [1.1 if name == "x" else 0.3 for name in stratum]
    found = discoveries(effects_from(table, {("en", 0, "o"): effects}), draws=200).neurons.filter(language="en")
    assert found["p"][:2].to_list() == [1.0, 1.0]
    assert found["z"][:2].to_list() == [0.0, 0.0]
    assert found["p"][2] < 0.02
    assert not found.select(pl.selectors.float().is_nan().any()).row(0).count(True)
    nothing = discoveries(effects_from(table, {("en", 0, "o"): np.full((20, 4), 0.1)}), draws=50)
    assert nothing.neurons["q"].to_list() == [1.0] * 8
    assert nothing.check["passed_permuted"].to_list() == [0.0, 0.0]


def test_what_cannot_be_tested_is_refused() -> None:
    effects = np.random.default_rng(0).normal(size=(20, 2))
    effects[::2] = np.nan
    with pytest.raises(DataError, match="en has 0 harmful and 10 harmless"):
        discoveries(effects_from(prompt_table(sides(10)), {("en", 0, "o"): effects}))
    with pytest.raises(DataError, match="too few prompts"):
        discoveries(effects_from(prompt_table(sides(2)), {("en", 0, "o"): np.ones((4, 1))}))
    with pytest.raises(RecipeError, match="permuted"):
        discoveries(made(0), draws=10, permuted=50)
    with pytest.raises(RecipeError, match="rate"):
        discoveries(made(0), rate=1.0)
