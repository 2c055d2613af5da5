"""The permutation null of whole sets: exact figures, calibration, clusters, and data with nothing in it."""

from functools import partial

import numpy as np
import polars as pl
import pytest
from made_up_effects import LANGUAGES, effects_from, prompt_table, sides, study

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.spec import Prompts, SafetyNeurons, SetExpression, Shared
from ssn_probe.stats.nulls import array_selection
from ssn_probe.stats.nulls import labelling_sweep as sweep
from ssn_probe.stats.nulls.permutation_null import permutation_null, shown_from
from ssn_probe.stats.nulls.prompt_effects import PromptEffects

prompts = Prompts("made up")
ms = SafetyNeurons(prompts, top=0.1)
made = partial(study, size=3.0)


def null_of(measured: PromptEffects, expression: SetExpression, draws: int = 99, seed: int = 0) -> pl.DataFrame:
    return permutation_null(measured, {"set": expression}, anchor="en", draws=draws, seed=seed)


def test_observed_figures_are_those_of_the_set() -> None:
    measured = made(0)
    labels = measured.prompts["harmful"].to_numpy()
    chosen = {}
    for language in LANGUAGES:
        effects = measured.read(language, 0, "ffn").astype(float)
        score = effects[labels].mean(axis=0) - effects[~labels].mean(axis=0)
        chosen[language] = {int(i) for i in np.argsort(-score)[:10] if score[i] > 0}
    found = null_of(measured, ms)
    size = dict(found.filter(statistic="size").select("language_a", "observed").iter_rows())
    average = (len(chosen["de"]) + len(chosen["sw"])) / 2
    assert size == {one: len(chosen[one]) for one in LANGUAGES} | {"average": average}
    rows = found.filter(statistic="overlap").select("language_a", "language_b", "observed").iter_rows()
    overlap = {(a, b): n for a, b, n in rows}
    pairs = [("en", "de"), ("en", "sw"), ("de", "sw")]
    assert overlap == {(a, b): len(chosen[a] & chosen[b]) for a, b in pairs}
    shared = null_of(measured, Shared(ms)).filter(language_a="sw")
    assert shared["observed"].to_list() == [len(chosen["en"] & chosen["sw"])]


def test_shared_sets_have_sizes_only_and_language_free_sets_one() -> None:
    measured = made(0)
    assert null_of(measured, Shared(ms))["statistic"].to_list() == ["size"] * 4
    free = null_of(measured, Shared(ms, by="mean"))
    assert free["language_a"].to_list() == ["*"]
    assert permutation_null(measured, {}, anchor="en").is_empty()


def test_equal_sets_have_the_rows_that_each_has_alone() -> None:
    measured, sets = made(0), {"b": ms, "a": Shared(ms), "c": ms}
    options = {"anchor": "en", "draws": 19}
    apart = [permutation_null(measured, {name: node}, **options) for name, node in sets.items()]
    assert permutation_null(measured, sets, **options).equals(pl.concat(apart))


def test_a_planted_difference_is_found() -> None:
    found = null_of(made(1, planted=10), Shared(ms)).filter(language_a="average")
    assert found["p"][0] == 0.01
    assert found["observed"][0] > found["null_high"][0] > found["null_mean"][0] > found["null_low"][0]


@pytest.mark.parametrize("by", ["intersection", "mean"])
@pytest.mark.parametrize("pool", ["site", "layer"])
def test_blocks_and_pools_do_not_change_the_figures(pool: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = SafetyNeurons(prompts, top=0.1, pool=pool)
    sets = {"own": node, "shared": Shared(node, by=by)}
    whole = permutation_null(made(2), sets, anchor="en", draws=99)
    monkeypatch.setattr(sweep, "BLOCK_BYTES", 1)
    monkeypatch.setattr(array_selection, "MEANS_BYTES", 1)
    assert permutation_null(made(2), sets, anchor="en", draws=99).equals(whole)
    alone = [permutation_null(made(2), {name: one}, anchor="en", draws=99) for name, one in sets.items()]
    assert pl.concat(alone).equals(whole)


@pytest.mark.slow
def test_the_null_of_shared_sets_is_calibrated_where_overlap_by_chance_is_large() -> None:
    """Common importance and correlated languages: |SS| is large without any difference, and p is still uniform."""
    found = [null_of(made(seed), Shared(ms), draws=99, seed=seed) for seed in range(200)]
    p = np.array([table.filter(language_a="average")["p"][0] for table in found])
    assert (p <= 0.05).mean() <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5
    assert 0.35 < p.mean() < 0.68


def clustered(seed: int, *, keep: bool) -> PromptEffects:
    """No difference, but the 10 prompts of a cluster share, in both languages, much of what they do."""
    random = np.random.default_rng(seed)
    names = [f"c{i // 10}" for i in range(160)]
    table = prompt_table([i // 10 % 2 == 0 for i in range(160)], cluster=names if keep else None)
    common = np.repeat(random.normal(size=(16, 100)), 10, axis=0)
    effects = {(one, 0, "o"): common + 2 * random.normal(size=(160, 100)) for one in ("en", "de")}
    return effects_from(table, effects)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_clusters_are_permuted_as_clusters(keep: bool) -> None:
    """Languages that share what a cluster does overlap; with prompts taken for independent that is a finding."""
    node = SafetyNeurons(prompts, top=0.2)
    p = np.array(
        [
            null_of(clustered(seed, keep=keep), node, draws=59, seed=seed).filter(statistic="overlap")["p"][0]
            for seed in range(80)
        ]
    )
    rejected = (p <= 0.05).mean()
    assert rejected <= 0.10 if keep else rejected > 0.5


def test_the_difference_has_an_interval_and_what_would_have_been_shown() -> None:
    found = null_of(made(1), Shared(ms), draws=199)
    for row in found.rows(named=True):
        assert row["difference"] == pytest.approx(row["observed"] - row["null_mean"])
        assert row["difference_low"] == row["observed"] - row["null_high"]
        assert row["difference_high"] == row["observed"] - row["null_low"]
        assert (row["p"] <= 0.05) == (row["observed"] >= row["shown_from"])
    assert null_of(made(1), Shared(ms), draws=18)["shown_from"].to_list() == [None] * 4
    random = np.random.default_rng(0)
    for draws in (19, 40, 99):
        null = random.integers(0, 9, draws)
        least = shown_from(null)
        p = [(1 + (null >= count).sum()) / (1 + draws) for count in (least, least - 1)]  # type: ignore[operator]
        assert p[0] <= 0.05 < p[1]


def test_effects_that_never_differ_give_an_empty_set_and_p_1() -> None:
    table = prompt_table(sides(10))
    same = {(one, 0, "o"): np.full((20, 5), 0.1) for one in ("en", "de")}
    found = null_of(effects_from(table, same), ms)
    assert found["observed"].to_list() == [0.0] * 4
    assert found["p"].to_list() == [1.0] * 4
    assert not found.select(pl.selectors.float().is_nan().any()).row(0).count(True)


def test_dropped_prompts_count_in_observed_all_only() -> None:
    stratum = ["x"] * 20 + ["y"] * 4
    table = prompt_table([*sides(10), True, True, True, True], stratum=stratum)
    effects = np.random.default_rng(0).normal(size=(24, 4))
    effects[20:, 0] = 100
    effects[:20, 0] = [-1 if harmful else 0 for harmful in sides(10)]
    found = null_of(effects_from(table, {("en", 0, "o"): effects}), SafetyNeurons(prompts, top=1.0))
    labels = table["harmful"].to_numpy()
    every = effects[labels].mean(axis=0) - effects[~labels].mean(axis=0)
    kept = effects[:20][labels[:20]].mean(axis=0) - effects[~labels].mean(axis=0)
    assert found["observed"][0] == (kept > 0).sum()
    assert found["observed_all"][0] == (every > 0).sum() > (kept > 0).sum()


def test_what_cannot_be_tested_is_refused() -> None:
    few = effects_from(prompt_table(sides(2)), {("en", 0, "o"): np.ones((4, 2))})
    with pytest.raises(DataError, match="too few prompts"):
        null_of(few, ms)
    with pytest.raises(RecipeError, match="several different"):
        null_of(made(0), ms - SafetyNeurons(prompts, rule="harmful"))
    with pytest.raises(RecipeError, match="different prompts, effects or sites"):
        permutation_null(made(0), {"a": ms, "b": SafetyNeurons(prompts, effect="local")}, anchor="en", draws=9)


def test_sets_of_several_rules_share_one_evidence() -> None:
    sets: dict[str, SetExpression] = {
        "d": ms,
        "h": SafetyNeurons(prompts, rule="harmful", top=0.1),
        "p": SafetyNeurons(prompts, rule="paper", top=0.1, pool="layer"),
    }
    together = permutation_null(made(3), sets, anchor="en", draws=19, seed=5)
    for name, expression in sets.items():
        alone = permutation_null(made(3), {name: expression}, anchor="en", draws=19, seed=5)
        assert together.filter(set=name).equals(alone)
    assert (together.filter(set="h", statistic="size")["p"] == 1.0).all()
