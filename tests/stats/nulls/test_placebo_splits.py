"""Random halves of harmless prompts: balanced, whole units, many, and nothing harmful in them."""

from collections import Counter
from math import comb

import numpy as np
import polars as pl
import pytest
from made_up_effects import effects_from, prompt_table

from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.placebo_splits import placebo_split
from ssn_probe.stats.nulls.relabelled import labelled_means, placebo_effects


def harmless(n: int, topic: list[str], tokens: list[int] | None = None, **given: list) -> pl.DataFrame:
    """n harmless prompts and as many harmful ones before them."""
    both = {name: [*values, *values] for name, values in given.items()}
    table = prompt_table([True] * n + [False] * n, **both)
    columns = {"topic": pl.Series(topic * 2), "tokens": pl.Series((tokens or [5] * n) * 2)}
    return table.with_columns(**columns)


def test_halves_are_balanced_within_topic_and_length_and_in_all() -> None:
    random = np.random.default_rng(0)
    topic = [str(code) for code in random.integers(0, 5, 61)]
    tokens = random.integers(3, 30, 61).tolist()
    prompts = harmless(61, topic, tokens)
    edges = np.quantile(tokens, [0.25, 0.5, 0.75])
    quarter = [int(code) for code in np.searchsorted(np.unique(edges), tokens)]
    for k in range(30):
        found = placebo_split(prompts, k)
        assert found["prompt_id"].to_list() == [f"p{i}" for i in range(61, 122)]
        sides = found["harmful"].to_numpy()
        assert abs(int(sides.sum()) - 30.5) == 0.5
        cells = Counter(zip(topic, quarter, strict=True))
        taken = Counter(cell for cell, side in zip(zip(topic, quarter, strict=True), sides, strict=True) if side)
        assert all(abs(2 * taken[cell] - size) <= 1 for cell, size in cells.items())


def test_every_split_is_equally_likely_and_has_a_number_of_its_own() -> None:
    prompts = harmless(6, ["a"] * 6)
    splits = [tuple(placebo_split(prompts, k, 4)["harmful"]) for k in range(2000)]
    seen = np.array(list(Counter(splits).values()))
    assert len(seen) == comb(6, 3)
    assert ((seen - 100) ** 2 / 100).sum() < 43.8  # χ² with 19 degrees of freedom, p = .001
    assert splits[7] == tuple(placebo_split(prompts, 7, 4)["harmful"])
    assert splits[:50] != [tuple(placebo_split(prompts, k, 5)["harmful"]) for k in range(50)]


def test_clusters_stay_together_and_no_harmful_prompt_matters() -> None:
    cluster = [f"c{i // 3}" for i in range(36)]
    prompts = harmless(36, ["a", "b"] * 18, cluster=cluster)
    found = placebo_split(prompts, 0).with_columns(cluster=pl.Series(cluster))
    assert (found.group_by("cluster").agg(pl.col("harmful").n_unique())["harmful"] == 1).all()
    other = pl.concat([prompts.filter(~pl.col("harmful")), prompts.filter("harmful").head(1)])
    assert placebo_split(other, 0)["harmful"].to_list() == found["harmful"].to_list()


@pytest.mark.parametrize(
    ("n", "topic", "message"),
    [
        (4, ["a"] * 4, "4 prompts .* have 6, and 19 are needed"),
        (8, [str(i) for i in range(8)], "have 16"),
        (5, ["a", "a", "a", "a", "b"], "have 12"),
        (1, ["a"], "have 0"),
    ],
)
def test_too_few_splits_are_said(n: int, topic: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        placebo_split(harmless(n, topic), 0)


def test_effects_of_a_split_are_those_of_the_harmless_prompts() -> None:
    prompts = harmless(12, ["a"] * 12)
    values = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    effects = placebo_effects(effects_from(prompts, {("en", 0, "o"): values}), 3)
    sides = effects.prompts["harmful"].to_numpy()
    means = labelled_means(effects)
    assert means["harmful"].to_numpy() == pytest.approx(values[12:][sides].mean(axis=0), abs=1e-6)
    assert means["harmless"].to_numpy() == pytest.approx(values[12:][~sides].mean(axis=0), abs=1e-6)
    assert effects.key != placebo_effects(effects_from(prompts, {("en", 0, "o"): values}), 4).key
