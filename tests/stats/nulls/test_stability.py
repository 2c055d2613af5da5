"""Half-samples: how they split, what they agree on, the bound on false neurons, and data with nothing in it."""

import dataclasses
import sys
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_effects import LANGUAGES, effects_from, prompt_table, sides, study

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.spec import Prompts, SafetyNeurons, SetExpression, Shared
from ssn_probe.stats.nulls import labelling_sweep as sweep
from ssn_probe.stats.nulls.half_samples import halves, plan_samples
from ssn_probe.stats.nulls.label_exchange import units
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.stats.nulls.stability import stability
from ssn_probe.stats.nulls.stable_neurons import stable_set

prompts = Prompts("made up")
ms = SafetyNeurons(prompts, top=0.1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 19)), min_size=10, max_size=60))
def test_halves_are_disjoint_of_equal_size_and_never_split_a_unit(rows: list[tuple[bool, int]]) -> None:
    harmful, cluster = zip(*rows, strict=True)
    try:
        table = prompt_table(harmful, cluster=[f"c{i}" for i in cluster])
        found = halves(table, 5, 0)
    except DataError:
        return
    used, labels, unit = found.harmful | found.harmless, np.array(harmful), units(table)
    assert not (used[::2] & used[1::2]).any()
    assert not (found.harmful & ~labels).any()
    assert not (found.harmless & labels).any()
    per_unit = np.array([used[:, unit == code].mean(axis=1) for code in range(unit.max() + 1)])
    assert np.isin(per_unit, (0, 1)).all()
    assert (per_unit.sum(axis=0)[::2] == per_unit.sum(axis=0)[1::2]).all()


made = partial(study, n=40)


def test_halves_hold_half_of_each_label_and_all_of_an_even_number() -> None:
    table = prompt_table([True] * 20 + [False] * 8)
    found = halves(table, 10, 0)
    assert (found.harmful.sum(axis=1) == 10).all()
    assert (found.harmless.sum(axis=1) == 4).all()
    assert len(np.unique(found.harmful, axis=0)) == 20


def test_samples_under_permuted_labels_keep_their_sizes() -> None:
    plan = plan_samples(
        prompt_table(sides(33)), np.ones((2, 66), dtype=bool), pairs=4, seed=0, permutations=5, null_pairs=3
    )
    assert [rows.stop - rows.start for rows in (plan.halves, plan.observed, *plan.null)] == [8] + [6] * 6
    expected = [(rows, 16) for rows in (plan.observed, *plan.null)] + list(zip(plan.curve, (2, 4, 8, 16), strict=True))
    for rows, size in expected:
        assert (plan.samples[rows].harmful.sum(axis=1) == size).all()
        assert (plan.samples[rows].harmless.sum(axis=1) == size).all()


def test_the_curve_leaves_out_sizes_at_which_a_language_is_missing() -> None:
    """A language that has some of the prompts still has halves, where small samples have none of its prompts."""
    measured = made(0)
    scarce = np.arange(measured.prompts.height) % 8 < 2

    def read(language: str, layer: int, site: str) -> np.ndarray:
        effects = measured.read(language, layer, site)
        return np.where(scarce[:, None] | (language != "sw"), effects, np.nan).astype(np.float32)

    whole, part = (
        stability(dataclasses.replace(measured, read=how), {"ms": ms}, pairs=4, permutations=0)
        for how in (measured.read, read)
    )
    assert sorted(whole.curve["prompts"].unique())[0] < sorted(part.curve["prompts"].unique())[0]
    assert part.curve["prompts"].max() == whole.curve["prompts"].max()
    others = pl.col("language") != "sw"
    assert part.jaccard.filter(others).equals(whole.jaccard.filter(others))


def test_frequencies_and_jaccard_are_those_of_the_halves() -> None:
    measured = made(0)
    found = stability(measured, {"ms": ms}, pairs=6, seed=3, permutations=0)
    samples = halves(measured.prompts, 6, 3)
    effects = measured.read("de", 0, "ffn").astype(float)
    taken = []
    for harmful, harmless in zip(samples.harmful, samples.harmless, strict=True):
        score = effects[harmful].mean(axis=0) - effects[harmless].mean(axis=0)
        taken.append({int(i) for i in np.argsort(-score)[:10] if score[i] > 0})
    own = found.frequencies.filter(language="de")
    wanted = {i: sum(i in half for half in taken) / 12 for i in range(100)}
    assert dict(own.select("index", "frequency").iter_rows()) == pytest.approx({i: f for i, f in wanted.items() if f})
    jaccards = [len(a & b) / len(a | b) for a, b in zip(taken[::2], taken[1::2], strict=True)]
    row = found.jaccard.filter(language="de").row(0, named=True)
    assert (row["jaccard"], row["pairs"], row["p"]) == (pytest.approx(np.mean(jaccards)), 6, None)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(jaccards, [0.025, 0.975])))


@pytest.mark.parametrize("pool", ["site", "layer"])
def test_blocks_do_not_change_the_figures(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    places = [(layer, site) for layer in range(2) for site in ("q", "o")]
    effects = {(one, *place): random.normal(size=(40, 12)) for one in ("en", "de") for place in places}
    measured = effects_from(prompt_table(sides(20)), effects)
    shared = Shared(SafetyNeurons(prompts, top=0.3), at_least=2)
    sets: dict[str, SetExpression] = {"ms": SafetyNeurons(prompts, top=0.2, pool=pool), "free": shared}
    whole = stability(measured, sets, pairs=5, permutations=4, null_pairs=2)
    monkeypatch.setattr(sweep, "BLOCK_BYTES", 16 * 2 * 24 * 2)
    parts = stability(measured, sets, pairs=5, permutations=4, null_pairs=2)
    assert parts.jaccard.equals(whole.jaccard)
    assert parts.curve.equals(whole.curve)
    assert parts.frequencies.drop("frequency").equals(whole.frequencies.drop("frequency"))
    assert parts.frequencies["frequency"].to_list() == pytest.approx(whole.frequencies["frequency"].to_list())


def test_a_planted_difference_is_stable_and_more_so_with_more_prompts() -> None:
    found = stability(made(1, planted=10), {"ss": Shared(ms)}, anchor="en", permutations=19)
    row = found.jaccard.filter(language="de").row(0, named=True)
    assert row["p"] == 0.05
    assert row["jaccard"] > 2 * row["null_jaccard"]
    curve = found.curve.filter(language="de").sort("prompts")
    assert curve["prompts"].to_list() == [4, 10, 20, 40]
    assert curve["jaccard"][-1] == pytest.approx(row["jaccard"])
    assert curve["jaccard"][-1] > curve["jaccard"][0]


@pytest.mark.slow
def test_the_null_of_the_jaccard_is_calibrated() -> None:
    p = []
    for seed in range(120):
        found = stability(made(seed, n=16, neurons=60), {"ms": ms}, pairs=2, seed=seed, permutations=19, null_pairs=3)
        p.append(found.jaccard.filter(language="en")["p"][0])
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * (0.05 * 0.95 / 120) ** 0.5
    assert 0.4 < np.mean(p) < 0.62


def test_near_copies_of_prompts_do_not_make_a_set_stable() -> None:
    """Ten near-copies of each of 16 prompts and no difference: split apart, the halves would be the same prompts."""
    random = np.random.default_rng(0)
    names = [f"c{i // 10}" for i in range(160)]
    effects = np.repeat(random.normal(size=(16, 200)), 10, axis=0) + 0.1 * random.normal(size=(160, 200))
    jaccard = {}
    for kept in (True, False):
        table = prompt_table([i // 10 % 2 == 0 for i in range(160)], cluster=names if kept else None)
        found = stability(effects_from(table, {("en", 0, "o"): effects}), {"ms": ms}, pairs=20, permutations=0)
        jaccard[kept] = found.jaccard["jaccard"][0]
    assert jaccard[True] < 0.15
    assert jaccard[False] > 0.3


def noisy(seed: int, *, spread: float, planted: int = 0) -> PromptEffects:
    """Independent noise whose size differs between neurons, log-normal with σ = `spread`."""
    random = np.random.default_rng(seed)
    table = prompt_table(sides(30))
    effects = random.normal(size=(60, 200)) * np.exp(random.normal(0, spread, 200))
    effects[:, :planted] += 1.2 * table["harmful"].to_numpy()[:, None]
    return effects_from(table, {("en", 0, "o"): effects})


def chance_of(spread: float, planted: int, studies: int) -> tuple[float, float, float, float]:
    """Means over studies: false neurons, their bound, `stable_permuted`, and the share of planted neurons kept."""
    rows = []
    for seed in range(studies):
        measured = noisy(seed, spread=spread, planted=planted)
        null = {"permutations": 9, "null_pairs": 15, "share": 0.8}
        found = stability(measured, {"ms": SafetyNeurons(prompts, top=0.05)}, pairs=25, seed=seed, **null)
        kept, table = stable_set(found.frequencies, measured, 0.8)
        index = kept.neurons("en")["index"].to_numpy()
        right = (index < planted).sum() / max(1, planted)
        rows.append(((index >= planted).sum(), table["bound"][0], found.jaccard["stable_permuted"][0], right))
    false, bound, permuted, kept_share = np.mean(rows, axis=0)
    return float(false), float(bound), float(permuted), float(kept_share)


@pytest.mark.slow
@pytest.mark.parametrize("planted", [0, 5])
def test_the_bound_on_false_neurons_holds_where_noise_is_alike(planted: int) -> None:
    false, bound, permuted, right = chance_of(0.0, planted, 40)
    assert false <= bound
    assert false <= permuted + 0.1
    assert planted == 0 or right > 0.8


@pytest.mark.slow
def test_the_permuted_count_holds_where_noise_is_not_alike_and_the_bound_does_not() -> None:
    false, bound, permuted, _ = chance_of(1.5, 0, 60)
    assert false > bound
    assert false <= permuted + 0.3
    assert permuted < 2.5 * false


def test_the_stable_set_and_its_bound_are_as_defined() -> None:
    measured = made(2, planted=10)
    found = stability(measured, {"ms": ms, "free": Shared(ms, by="mean")}, pairs=10, permutations=0)
    own = found.frequencies.filter(set="ms")
    kept, table = stable_set(own, measured, 0.9)
    assert kept.languages == LANGUAGES
    assert set(kept.frame["score"]) <= {0.9, 0.95, 1.0}
    assert len(kept) == own.filter(pl.col("frequency") > 0.89).height
    row = table.filter(language="en").row(0, named=True)
    per_half = own.filter(language="en")["frequency"].sum()
    assert row["per_half"] == pytest.approx(per_half)
    assert row["candidates"] == 100
    assert row["bound"] == pytest.approx(per_half**2 / (0.8 * 100))
    assert row["bound_by_place"] == pytest.approx(row["bound"])
    free, bounds = stable_set(found.frequencies.filter(set="free"), measured, 1.0)
    assert free.language_free
    assert bounds["language"].to_list() == ["*"]
    nothing, bounds = stable_set(own.clear(), measured, 0.9)
    assert len(nothing) == 0
    assert bounds["bound"].to_list() == [0.0] * 3


def test_the_bound_by_place_is_never_the_smaller_one() -> None:
    random = np.random.default_rng(0)
    effects = {("en", 0, site): random.normal(size=(40, width)) for site, width in (("q", 10), ("ffn", 200))}
    effects["en", 0, "q"] *= 20
    measured = effects_from(prompt_table(sides(20)), effects)
    found = stability(measured, {"ms": SafetyNeurons(prompts, top=0.05, pool="layer")}, pairs=10, permutations=0)
    row = stable_set(found.frequencies, measured, 0.9)[1].row(0, named=True)
    assert row["bound_by_place"] > 2 * row["bound"]


def test_empty_sets_have_no_jaccard_and_no_nan() -> None:
    measured = effects_from(prompt_table(sides(20)), {("en", 0, "o"): np.full((40, 5), 0.1)})
    found = stability(measured, {"ms": ms}, permutations=3)
    assert found.frequencies.is_empty()
    row = found.jaccard.row(0, named=True)
    assert [row[name] for name in ("jaccard", "low", "high", "null_jaccard", "p", "pairs")] == [None] * 5 + [0]
    assert found.curve["jaccard"].to_list() == [None] * len(found.curve)


def test_what_cannot_be_split_or_bounded_is_refused() -> None:
    measured = made(0)
    with pytest.raises(DataError, match="too few prompts for half-samples"):
        halves(prompt_table(sides(3)))
    with pytest.raises(DataError, match="too few prompts for half-samples"):
        halves(prompt_table(sides(30), cluster=["all"] * 60))
    with pytest.raises(RecipeError, match="pairs=0"):
        stability(measured, {"ms": ms}, pairs=0)
    with pytest.raises(RecipeError, match="several different"):
        stability(measured, {"ms": ms | SafetyNeurons(prompts, rule="harmful")})
    frequencies = stability(measured, {"a": ms, "b": ms}, pairs=2, permutations=0).frequencies
    with pytest.raises(RecipeError, match="several sets: a, b"):
        stable_set(frequencies, measured)
    with pytest.raises(RecipeError, match=r"share is 0\.5"):
        stable_set(frequencies.filter(set="a"), measured, 0.5)


def test_strata_too_small_to_halve_leave_the_null_out_and_nothing_else() -> None:
    table = prompt_table(sides(8), stratum=[f"s{i // 2}" for i in range(16)])
    effects = {("en", 0, "o"): np.random.default_rng(0).normal(size=(16, 30))}
    found = stability(effects_from(table, effects), {"set": SafetyNeurons(Prompts("made up"), top=0.1)})
    assert found.jaccard["jaccard"].null_count() == 0
    assert found.jaccard.select("null_jaccard", "p").row(0) == (None, None)


def test_equal_sets_are_swept_once_and_have_rows_under_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, sets = made(0), {"b": ms, "a": Shared(ms), "c": ms, "d": Shared(ms)}
    swept: list[list[str]] = []
    here = sys.modules[stability.__module__]
    monkeypatch.setattr(here, "sweep", lambda *a, **k: (swept.append(list(a[1])), sweep.sweep(*a, **k))[1])
    options: dict[str, Any] = {"anchor": LANGUAGES[0], "pairs": 4, "permutations": 3, "null_pairs": 2}
    found = stability(measured, sets, **options)
    assert swept == [["b", "a"]]
    for name, table in vars(found).items():
        apart = pl.concat([vars(stability(measured, {one: node}, **options))[name] for one, node in sets.items()])
        assert table.equals(apart.sort(apart.columns[:-1]) if name == "frequencies" else apart), name
