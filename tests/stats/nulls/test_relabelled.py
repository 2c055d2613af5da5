"""Effects under exchanged labels: means weighted by blocks, and the same exchange once more."""

import numpy as np
import polars as pl
import pytest
from made_up_effects import LANGUAGES, effects_from, prompt_table, sides

from ssn_probe.stats.nulls.label_exchange import draw_labels, exchange
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.stats.nulls.relabelled import labelled_means, relabelled

STRATUM = ["x"] * 9 + ["y"] * 6 + ["z"] * 3
LABELS = [True] * 7 + [False] * 2 + [True] * 2 + [False] * 4 + [True] * 3


def measured(random: np.random.Generator, prompts: pl.DataFrame, shift: np.ndarray) -> PromptEffects:
    """Effects of two places in every language, with a `shift` of every prompt."""
    places = [(one, layer, "o") for one in LANGUAGES for layer in (0, 1)]
    return effects_from(prompts, {place: random.normal(size=(len(shift), 6)) + shift[:, None] for place in places})


def weighted(values: np.ndarray, harmful: np.ndarray, block: np.ndarray) -> np.ndarray:
    """The weighted difference of means, block by block."""
    total, differences = 0.0, np.zeros(values.shape[1])
    for code in np.unique(block):
        h, b = (values[(block == code) & side] for side in (harmful, ~harmful))
        weight = len(h) * len(b) / (len(h) + len(b))
        differences += weight * (h.mean(axis=0) - b.mean(axis=0))
        total += weight
    return differences / total


def test_means_are_weighted_by_strata_under_every_draw() -> None:
    prompts = prompt_table(LABELS, stratum=STRATUM)
    effects = measured(np.random.default_rng(0), prompts, np.repeat([9.0, 0.0, -5.0], [9, 6, 3]))
    labels = draw_labels(prompts, 4, 3)[0]
    for draw in range(5):
        found = relabelled(effects, draw, 3)
        now = (labels[draw - 1] if draw else np.array(LABELS))[:15]  # all prompts of stratum z are harmful
        assert (found.prompts["harmful"].to_numpy() == now).all()
        means = labelled_means(found)
        assert means["language"].unique(maintain_order=True).to_list() == sorted(LANGUAGES)
        for (language, layer), rows in means.group_by("language", "layer"):
            values = effects.read(language, layer, "o")[:15]
            wanted = weighted(values, now, np.repeat([0, 1], [9, 6]))
            assert (rows["harmful"] - rows["harmless"]).to_numpy() == pytest.approx(wanted, abs=1e-4)


def test_nothing_of_a_stratum_is_in_the_difference_and_exchange_has_mean_0() -> None:
    """Strata that predict the label, and differ by a thousand times what prompts do."""
    random = np.random.default_rng(1)
    stratum = [f"s{i % 4}" for i in range(80)]
    harmful = [random.random() < (0.8 if i % 4 < 2 else 0.2) for i in range(80)]
    prompts = prompt_table(harmful, stratum=stratum, cluster=[f"c{i // 8 * 4 + i % 4}{harmful[i]}" for i in range(80)])
    shift = np.array([1000.0 * (i % 4) for i in range(80)])
    effects = measured(random, prompts, shift)
    gaps = []
    for draw in range(1, 200):
        means = labelled_means(relabelled(effects, draw, 0)).filter(language="en", layer=0)
        gaps.append((means["harmful"] - means["harmless"]).to_numpy())
    assert np.abs(gaps).max() < 2
    error = np.std(gaps, axis=0) / len(gaps) ** 0.5
    assert (np.abs(np.mean(gaps, axis=0)) < 3.5 * error).all()


def test_exchanged_labels_exchange_as_the_observed_ones_do() -> None:
    for given in ({"stratum": STRATUM}, {"pair_id": [f"p{i // 2}" if i < 16 else None for i in range(18)]}):
        labels = LABELS if "stratum" in given else sides(9)
        prompts = prompt_table(labels, **given)
        effects = measured(np.random.default_rng(0), prompts, np.zeros(18))
        found, again = exchange(prompts), relabelled(effects, 2, 0)
        second = exchange(again.prompts)
        assert second.dropped_prompts == 0
        assert second.log10_relabellings == pytest.approx(found.log10_relabellings)
        assert (second.blocks.code == again.prompts["block"].to_numpy()).all()
        assert (second.blocks.share == again.prompts["share"].to_numpy()).all()
        assert again.key != relabelled(effects, 1, 0).key != relabelled(effects, 1, 1).key


def test_pairs_count_once_whatever_their_size_and_constant_effects_differ_by_0() -> None:
    pair = [name for i in range(6) for name in [f"p{i}"] * (2 + i % 2)]
    harmful = [number == 0 for i in range(6) for number in range(2 + i % 2)]
    prompts = prompt_table(harmful, pair_id=pair)
    values = np.random.default_rng(2).normal(size=(15, 2)).astype(np.float32)
    values[:, 1] = 0.1
    means = labelled_means(relabelled(effects_from(prompts, {("en", 0, "o"): values}), 0, 0))
    gap = (means["harmful"] - means["harmless"]).to_numpy()
    table = prompts.with_columns(value=pl.Series(values[:, 0]))
    sides_of = table.group_by("pair_id", "harmful").agg(pl.col("value").mean())
    by_pair = sides_of.group_by("pair_id").agg((pl.col("value") * pl.when("harmful").then(1).otherwise(-1)).sum())
    assert gap[0] == pytest.approx(by_pair["value"].mean(), abs=1e-5)
    assert gap[1] == 0
