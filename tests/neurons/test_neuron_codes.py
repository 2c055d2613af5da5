"""Rows as numbers: equal where their keys are, and in their order, whatever the keys hold."""

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ssn_probe.neurons import KEYS, SCHEMA, NeuronSet
from ssn_probe.neurons.neuron_codes import codes, contained

whole = st.one_of(st.integers(-3, 3), st.sampled_from([2**20 - 1, 2**20, 2**31 - 1]))
keys = st.tuples(st.sampled_from(["en", "é", "zh", "zh-Hant", "Zh", ""]), whole, st.sampled_from(["q", "ffn"]), whole)
sets = st.sets(keys, max_size=12)
LANGUAGES = ("en", "é", "zh", "zh-Hant", "Zh", "")


def rows_of(some: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame([(*key, None) for key in some], schema=SCHEMA, orient="row")


@settings(deadline=None, max_examples=60)
@given(sets, sets, st.randoms())
def test_numbers_are_equal_and_ordered_as_the_keys_are(first: set, second: set, random: Any) -> None:
    lists = [sorted(first), sorted(second)]
    for one in lists:
        random.shuffle(one)
    numbers = codes([rows_of(one) for one in lists], KEYS)
    every = [*zip(lists[0], numbers[0], strict=True), *zip(lists[1], numbers[1], strict=True)]
    assert [key for key, _ in sorted(every)] == [key for key, _ in sorted(every, key=lambda pair: pair[1])]
    assert len({number for _, number in every}) == len(first | second)
    assert contained(*numbers).tolist() == [key in second for key in lists[0]]
    mine, theirs = (NeuronSet(rows_of(one), LANGUAGES) for one in lists)
    for found, wanted in (
        (mine & theirs, first & second),
        (mine - theirs, first - second),
        (mine | theirs, first | second),
    ):
        assert found.frame.select(KEYS).rows() == sorted(wanted)
