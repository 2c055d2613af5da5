"""Does the null hold its level where nothing differs, whatever the prompts are like? Sizes and overlaps, by simulation.

Labels are drawn as the exchange draws them: within topics, some of which have mostly harmful prompts, by clusters, or
within pairs. Effects depend on the topic, the cluster and the pair, and translations have most noise in common.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from made_up_effects import effects_from, prompt_table

from ssn_probe.spec import Prompts, SafetyNeurons
from ssn_probe.stats.nulls.permutation_null import permutation_null
from ssn_probe.stats.nulls.prompt_effects import PromptEffects

NEURONS = 40
MS = {rule: SafetyNeurons(Prompts("made up"), rule=rule, top=0.15) for rule in ("difference", "both", "paper")}
Design = Callable[[np.random.Generator], tuple[pl.DataFrame, np.ndarray]]
"""The prompts, with labels that mean nothing, and the code of what a prompt has in common with others."""


def _within(random: np.random.Generator, group: list[int], harmful: list[int]) -> list[bool]:
    """As many harmful units in every group as given, drawn at random."""
    label = np.zeros(len(group), dtype=bool)
    for code, count in enumerate(harmful):
        label[random.choice(np.flatnonzero(np.array(group) == code), count, replace=False)] = True
    return label.tolist()


def topics_that_predict(random: np.random.Generator) -> tuple[pl.DataFrame, np.ndarray]:
    topic = [code for code in range(3) for _ in range(12)]
    labels = _within(random, topic, [9, 6, 3])
    return prompt_table(labels, stratum=[f"t{code}" for code in topic]), np.array(topic)


def topics_of_unequal_size(random: np.random.Generator) -> tuple[pl.DataFrame, np.ndarray]:
    topic = [code for code, size in enumerate((20, 9, 5, 2)) for _ in range(size)]
    labels = _within(random, topic, [4, 6, 3, 1])
    return prompt_table(labels, stratum=[f"t{code}" for code in topic]), np.array(topic)


def clusters_of_unequal_size(random: np.random.Generator) -> tuple[pl.DataFrame, np.ndarray]:
    cluster = [code for code in range(16) for _ in range(1 + code % 4)]
    label = _within(random, [code % 2 for code in range(16)], [5, 3])
    table = prompt_table(
        [label[code] for code in cluster],
        cluster=[f"c{code}" for code in cluster],
        stratum=[f"t{code % 2}" for code in cluster],
    )
    return table, np.array(cluster)


def pairs_and_others(random: np.random.Generator) -> tuple[pl.DataFrame, np.ndarray]:
    """Minimal pairs, and harmful prompts without one, which differ and take no part."""
    first = random.random(14) < 0.5
    labels = [bool(side) for one in first for side in (one, ~one)] + [True] * 6
    pair = [f"{number // 2}" if number < 28 else None for number in range(34)]
    return prompt_table(labels, pair_id=pair), np.array([number // 2 if number < 28 else 14 for number in range(34)])


DESIGNS: list[Design] = [topics_that_predict, topics_of_unequal_size, clusters_of_unequal_size, pairs_and_others]


def made(design: Design, seed: int, neurons: int = NEURONS) -> PromptEffects:
    random = np.random.default_rng(seed)
    prompts, group = design(random)
    common = 2 * random.normal(size=(group.max() + 1, neurons))[group] + random.normal(size=(len(group), neurons))
    noise = {one: 0.3 * random.normal(size=common.shape) for one in ("en", "de")}
    return effects_from(prompts, {(one, 0, "o"): common + found for one, found in noise.items()})


def rejected(design: Design, studies: int, draws: int, neurons: int = NEURONS) -> dict[str, list[bool]]:
    """Whether p ≤ .05, per statistic and rule, in every study."""
    found: dict[str, list[bool]] = {}
    for seed in range(studies):
        table = permutation_null(made(design, seed, neurons), MS, anchor="en", draws=draws, seed=seed)
        for row in table.filter(pl.col("language_a") == "en").rows(named=True):
            found.setdefault(f"{row['set']} {row['statistic']}", []).append(row["p"] <= 0.05)
    return found


def most(studies: int) -> float:
    """A level of .05 is exceeded by this share in one of 200 simulations."""
    return 0.05 + 2.6 * (0.05 * 0.95 / studies) ** 0.5


@pytest.mark.parametrize("design", DESIGNS)
def test_the_level_holds(design: Design) -> None:
    for statistic, found in rejected(design, 60, 19).items():
        assert np.mean(found) <= most(60), statistic


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_the_level_holds_in_many_studies_of_more_neurons(design: Design) -> None:
    shares = {name: np.mean(found) for name, found in rejected(design, 250, 39, 400).items()}
    assert max(shares.values()) <= most(250), shares
    assert max(shares.values()) > 0.01, "a test that never rejects would hold any level"


def test_labels_that_the_design_does_not_draw_are_found_out() -> None:
    """The simulation can fail: labels by cluster, exchanged as if prompts were independent."""
    found = []
    for seed in range(60):
        measured = made(clusters_of_unequal_size, seed)
        alone = measured.prompts.with_columns(cluster="prompt_id")
        wrong = effects_from(alone, {(one, 0, "o"): measured.read(one, 0, "o") for one in measured.languages})
        table = permutation_null(wrong, MS, anchor="en", draws=19, seed=seed)
        found.append((table.filter(set="paper", language_a="en")["p"] <= 0.05).any())
    assert np.mean(found) > 0.3


@pytest.mark.parametrize("design", [topics_that_predict, topics_of_unequal_size])
def test_what_topics_have_in_common_is_in_no_figure_of_the_null(design: Design) -> None:
    """Plain means would give the null as many neurons as the topics of harmful prompts have in excess."""
    measured = made(design, 0)
    topic = measured.prompts["stratum"].rank("dense").to_numpy() - 1
    shift = 64.0 * np.random.default_rng(9).integers(-4, 5, (topic.max() + 1, NEURONS))[topic]
    shifted = {(one, 0, "o"): measured.read(one, 0, "o") + shift for one in measured.languages}
    tables = [
        permutation_null(effects, {"ms": MS["difference"]}, anchor="en", draws=99).drop("observed_all")
        for effects in (measured, effects_from(measured.prompts, shifted))
    ]
    assert tables[0].equals(tables[1])
