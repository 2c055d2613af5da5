"""Who is exchangeable with whom: units, swaps, strata, what is dropped, and when there is no test."""

from collections import Counter
from math import comb, log10

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_effects import prompt_table, sides

from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.label_exchange import draw_labels, exchange, units

DRAWS = 400


def pairs_of(n: int) -> pl.DataFrame:
    """n minimal pairs."""
    return prompt_table(sides(n), pair_id=[f"pair {i // 2}" for i in range(2 * n)])


def test_minimal_pairs_swap_and_nothing_else() -> None:
    prompts = pairs_of(8)
    labels, kept = draw_labels(prompts, DRAWS, 0)
    assert kept.all()
    assert (labels[:, ::2] != labels[:, 1::2]).all()
    assert 0.4 < labels[:, 0].mean() < 0.6
    assert len(np.unique(labels, axis=0)) > 100
    found = exchange(prompts)
    assert (found.pairs_swapped, found.strata, found.dropped_prompts) == (8, 0, 0)
    assert found.log10_relabellings == pytest.approx(8 * log10(2))


def test_units_join_clusters_and_pairs_transitively() -> None:
    prompts = prompt_table(
        [True, False, True, False, True],
        cluster=["a", "b", "b", "c", "d"],
        pair_id=["1", "1", None, "2", None],
    )
    assert units(prompts).tolist() == [0, 0, 0, 1, 2]


def test_strata_keep_their_counts_and_clusters_move_whole() -> None:
    harmful = [True, True, True, False, False, False, True, False, False, False]
    cluster = ["a", "a", "b", "c", "c", "d", "e", "f", "g", "h"]
    stratum = ["x"] * 6 + ["y"] * 4
    labels, kept = draw_labels(prompt_table(harmful, cluster=cluster, stratum=stratum), DRAWS, 1)
    assert kept.all()
    assert (labels[:, 0] == labels[:, 1]).all()
    assert (labels[:, 3] == labels[:, 4]).all()
    by_unit = labels[:, [0, 2, 3, 5]]
    assert (by_unit.sum(axis=1) == 2).all()
    assert (labels[:, 6:].sum(axis=1) == 1).all()
    seen = Counter(map(tuple, by_unit.tolist()))
    assert len(seen) == comb(4, 2)
    assert min(seen.values()) > DRAWS / 6 / 2


def test_every_relabelling_is_equally_likely() -> None:
    labels, _ = draw_labels(prompt_table([True] * 3 + [False] * 3), 20_000, 2)
    seen = np.array(list(Counter(map(tuple, labels.tolist())).values()))
    assert len(seen) == comb(6, 3)
    assert ((seen - 1000) ** 2 / 1000).sum() < 43.8  # χ² with 19 degrees of freedom, p = .001


def test_strata_with_one_label_are_dropped_and_counted() -> None:
    prompts = prompt_table([True, False] * 5 + [True, True, False], stratum=["x"] * 10 + ["y", "y", None])
    labels, kept = draw_labels(prompts, 20, 0)
    found = exchange(prompts)
    assert kept.tolist() == [True] * 10 + [False] * 3
    assert (found.dropped_prompts, found.dropped_strata, found.strata) == (3, 2, 1)
    assert (labels[:, 10:] == [True, True, False]).all()
    assert found.log10_relabellings == pytest.approx(log10(comb(10, 5)))


def test_where_there_are_pairs_single_prompts_take_no_part() -> None:
    pair = [f"pair {i // 2}" if i < 10 else None for i in range(18)]
    prompts = prompt_table(sides(9), pair_id=pair)
    labels, kept = draw_labels(prompts, DRAWS, 0)
    found = exchange(prompts)
    assert kept.tolist() == [True] * 10 + [False] * 8
    assert (labels[:, :10:2] != labels[:, 1:10:2]).all()
    assert (labels[:, 10:] == sides(4)).all()
    assert found.paired
    assert (found.pairs_swapped, found.strata, found.dropped_prompts, found.dropped_strata) == (5, 0, 8, 0)
    assert found.log10_relabellings == pytest.approx(5 * log10(2))


def test_a_cluster_with_both_labels_is_no_pair_and_leaves_the_strata_in() -> None:
    prompts = prompt_table(sides(6), cluster=["both", "both", *(f"c{i}" for i in range(10))])
    labels, kept = draw_labels(prompts, DRAWS, 0)
    assert kept.all()
    assert (labels[:, 0] != labels[:, 1]).all()
    assert (labels[:, 2:].sum(axis=1) == 5).all()
    assert exchange(prompts).log10_relabellings == pytest.approx(log10(2 * comb(10, 5)))


def test_prompts_are_a_unit_where_all_their_clusters_are_equal() -> None:
    action = ["mix", "mix", "mix", "steal", "steal", "mix"]
    thing = ["bomb", "bomb", "cake", "cake", "cake", None]
    crossed = prompt_table([True] * 6, cluster=action).with_columns(cluster_2=pl.Series(thing))
    assert units(crossed).tolist() == [0, 0, 1, 2, 2, 3]


def test_a_draw_does_not_depend_on_how_many_are_asked_for() -> None:
    prompts = prompt_table(sides(12), stratum=[f"s{i % 3}" for i in range(24)])
    assert (draw_labels(prompts, 3, 7)[0] == draw_labels(prompts, 50, 7)[0][:3]).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 2)), min_size=8, max_size=40))
def test_any_structure_moves_units_whole(rows: list[tuple[bool, int, int]]) -> None:
    harmful, cluster, stratum = zip(*rows, strict=True)
    names = {"cluster": [f"c{i}" for i in cluster], "stratum": [f"s{i}" for i in stratum]}
    try:
        prompts = prompt_table(harmful, **names)
        labels, kept = draw_labels(prompts, 10, 0)
    except DataError:
        return
    moved = labels ^ np.array(harmful)
    for unit in set(cluster):
        members = np.array(cluster) == unit
        assert len(set(kept[members].tolist())) == 1
        assert (moved[:, members].all(axis=1) | ~moved[:, members].any(axis=1)).all()


def test_a_seed_repeats_its_draws() -> None:
    prompts = pairs_of(8)
    first, again, other = (draw_labels(prompts, 10, seed)[0] for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_sources_that_tell_the_label_are_confounded() -> None:
    source = ["a" if harmful else "b" for harmful in sides(5)]
    assert exchange(prompt_table(sides(5), source=source)).confounded
    assert not exchange(prompt_table(sides(5), source=["a", "a", *source[2:]])).confounded
    assert not exchange(prompt_table(sides(5), source=[None] * 10)).confounded


def test_too_little_to_exchange_is_an_error_that_names_the_fix() -> None:
    with pytest.raises(DataError, match="no prompts are exchangeable"):
        exchange(prompt_table(sides(5), stratum=[str(harmful) for harmful in sides(5)]))
    with pytest.raises(DataError, match="there are 16 distinct ways"):
        exchange(pairs_of(4))
    assert exchange(prompt_table([True] * 3 + [False] * 3)).log10_relabellings == pytest.approx(log10(20))
    with pytest.raises(DataError, match="there are 2 distinct ways"):
        exchange(prompt_table(sides(30), cluster=["all"] * 60))
