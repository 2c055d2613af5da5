"""Neurons of several languages as one list: the figures of polars' groups, to the bit."""

import numpy as np
import polars as pl
import pytest

from ssn_probe.neurons import NEURON, SCHEMA
from ssn_probe.neurons.language_means import merged

LANGUAGES = 9


def rows(spread: int = 1, missing: float = 0.3) -> pl.DataFrame:
    """Some neurons of each of nine languages, with scores of many sizes, some of them missing."""
    draw = np.random.default_rng(0)
    every = pl.DataFrame(
        [
            (f"l{language}", layer, site, spread * index, None if draw.random() < missing else draw.standard_normal())
            for language in range(LANGUAGES)
            for layer in (0, 3)
            for site in ("ffn", "q")
            for index in range(40)
            if draw.random() < 0.6
        ],
        schema=SCHEMA,
        orient="row",
    )
    return every.with_columns(score=pl.col("score") * 10.0 ** pl.Series(draw.integers(-8, 8, every.height)))


def by_groups(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by(NEURON, maintain_order=True).agg(languages=pl.len(), score=pl.col("score").mean())


def by_merging(frame: pl.DataFrame) -> pl.DataFrame:
    found = merged(frame)
    figures = {"languages": pl.Series(found.count, dtype=pl.UInt32), "score": found.mean(frame["score"])}
    return frame.select(NEURON)[found.rows].with_columns(**figures)


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("spread", [1, 50_000_000], ids=["dense", "far apart"])
def test_means_are_those_of_groups_in_the_order_of_the_rows(spread: int, missing: float) -> None:
    frame = rows(spread, missing)
    assert by_merging(frame).equals(by_groups(frame))
    whole = frame.filter(pl.col("language") == "l0")
    assert by_merging(whole).equals(by_groups(whole))
    assert by_merging(frame.clear()).equals(by_groups(frame.clear()))


def test_rows_may_come_in_any_order() -> None:
    frame = rows().sample(fraction=1, shuffle=True, seed=0)
    found, groups = by_merging(frame), by_groups(frame)
    assert found.drop("score").equals(groups.drop("score"))
    assert found["score"].is_null().equals(groups["score"].is_null())
    assert np.allclose(found["score"].drop_nulls(), groups["score"].drop_nulls(), rtol=1e-9, atol=1e-12)


def test_a_value_that_is_not_finite_stays_with_its_neuron() -> None:
    values = [1.0, float("inf"), float("nan"), 2.0, 5.0, 3.0]
    names = ["en"] * 3 + ["de"] * 3
    frame = pl.DataFrame({"language": names, "layer": 0, "site": "q", "index": [0, 1, 2] * 2, "score": values})
    assert by_merging(frame)["score"].to_list()[:2] == [1.5, float("inf")]
    assert by_merging(frame).equals(by_groups(frame))
