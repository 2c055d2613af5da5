"""Sets under many labellings at once, against the slow and plain way: one labelling at a time."""

from dataclasses import replace
from itertools import product

import numpy as np
import polars as pl
import pytest
from made_up_effects import LANGUAGES, effects_from, prompt_table
from polars.testing import assert_frame_equal
from scipy.stats import false_discovery_control

from ssn_probe.errors import DataError
from ssn_probe.neurons import EVERY, KEYS, NEURON, NeuronSet
from ssn_probe.neurons.selection import averaged, scored, select_neurons
from ssn_probe.spec import Prompts, SafetyNeurons
from ssn_probe.stats.nulls.false_discoveries import binned, discoveries, null_bins, p_of_bin
from ssn_probe.stats.nulls.label_exchange import exchange
from ssn_probe.stats.nulls.label_sets import discovered_under, ranked_under, stable_under
from ssn_probe.stats.nulls.prompt_effects import Group, PromptEffects, read_group
from ssn_probe.stats.nulls.relabelled import labelled_means, placebo_effects, relabelled
from ssn_probe.stats.nulls.stability import stability
from ssn_probe.stats.nulls.stable_neurons import stable_set
from ssn_probe.stats.nulls.unit_contrasts import contrasts, weights

MS = SafetyNeurons(Prompts("made up"), top=0.1)
STRATUM = ["x"] * 12 + ["y"] * 12
HARMFUL = [i % 3 != 0 for i in range(12)] + [i % 4 == 0 for i in range(12)]
"""Topics that predict the label, so that means are weighted."""


def made(pairs: bool = False, planted: int = 0) -> PromptEffects:
    """Three languages, two layers of two sites, effects of few values so that ties are common; de lacks a prompt."""
    random = np.random.default_rng(3)
    labels = [i % 2 == 0 for i in range(24)] if pairs else HARMFUL
    named = {"pair_id": [f"p{i // 2}" if i < 22 else None for i in range(24)]} if pairs else {"stratum": STRATUM}
    prompts = prompt_table(labels, **named)
    effects = {}
    for language, layer, (site, width) in product(LANGUAGES, range(2), (("o", 20), ("ffn", 30))):
        values = random.integers(-3, 6, size=(24, width)) / 4
        values[:, :planted] += 9 * np.array(labels)[:, None]
        effects[language, layer, site] = values
    effects["de", 0, "o"][5] = effects["de", 1, "o"][5] = effects["de", 0, "ffn"][5] = np.nan
    effects["de", 1, "ffn"][5] = np.nan
    return effects_from(prompts, effects)


def under(effects: PromptEffects, numbers: range) -> dict[int, PromptEffects]:
    return {number: relabelled(effects, number, 7) for number in numbers}


def slow(labelled: PromptEffects, node: SafetyNeurons, *, by_mean: bool) -> pl.DataFrame:
    """One labelling: the rows that `select_neurons` takes of the means, with the mean score."""
    assert node.top is not None
    means = labelled_means(labelled)
    taken = select_neurons(averaged(means) if by_mean else means, rule=node.rule, top=node.top, pool=node.pool)
    mean = scored(averaged(means), node.rule).select(*NEURON, mean="score")
    return taken.frame.join(mean, on=NEURON).sort(KEYS)


@pytest.mark.parametrize("pairs", [False, True], ids=["strata", "pairs"])
@pytest.mark.parametrize("pool", ["site", "layer"])
@pytest.mark.parametrize("rule", ["difference", "harmful", "both", "paper"])
def test_ranked_sets_are_those_of_one_labelling_at_a_time(rule: str, pool: str, pairs: bool) -> None:
    node = replace(MS, rule=rule, pool=pool, top=0.3 if rule == "paper" else 0.1)
    labelled = under(made(pairs), range(2, 6))
    found = ranked_under(labelled, node)
    for number, by_mean in product(labelled, (False, True)):
        here = found.filter((pl.col("language") == EVERY) == by_mean, labels=number).drop("labels")
        assert here.height > 0
        assert_frame_equal(here, slow(labelled[number], node, by_mean=by_mean), rel_tol=1e-12)


def test_a_labelling_is_the_same_whatever_else_is_swept() -> None:
    effects = made()
    many = ranked_under(under(effects, range(9)), MS)
    few = ranked_under(under(effects, range(4, 6)), MS)
    assert_frame_equal(few, many.filter(pl.col("labels").is_in([4, 5])), rel_tol=1e-12)


def test_placebo_splits_are_swept_alike() -> None:
    effects = made()
    labelled = {number: placebo_effects(effects, number) for number in range(3)}
    found = ranked_under(labelled, MS).filter(pl.col("language") != EVERY, labels=2).drop("labels")
    assert_frame_equal(found, slow(labelled[2], MS, by_mean=False), rel_tol=1e-12)


def test_effects_are_read_once_and_prompts_must_be_the_same() -> None:
    effects, read = made(), []

    def counted(*place) -> np.ndarray:
        read.append(place)
        return effects.read(*place)

    ranked_under(under(replace(effects, read=counted), range(30)), MS)
    assert len(read) == len(set(read)) == 12
    with pytest.raises(DataError, match="different prompts"):
        ranked_under({0: effects, 1: relabelled(effects, 1, 0), 2: placebo_effects(effects, 0)}, MS)


@pytest.mark.parametrize("pairs", [False, True], ids=["strata", "pairs"])
def test_discoveries_are_those_of_each_labelling_by_itself(pairs: bool) -> None:
    """z of the contrast under its own labels, its p in the common null, and scipy's q."""
    effects = made(pairs, planted=4)
    null = null_bins(discoveries(effects, draws=400).null)
    labelled = under(effects, range(4))
    found = discovered_under(labelled, null, 0.2)
    assert found.filter(labels=0).height >= 2 * 3 * 4
    for number, one in labelled.items():
        means = scored(labelled_means(one), "difference")
        for language in LANGUAGES:
            z = np.concatenate([_z(read_group(one, [place]), one, language) for place in sorted(one.places)])
            q = false_discovery_control(np.where(np.isnan(z), 1, p_of_bin(null[language])[binned(np.nan_to_num(z))]))
            every = means.filter(language=language).sort(NEURON).filter(pl.Series(q <= 0.2))
            here = found.filter(labels=number, language=language).select(*KEYS, "score")
            assert_frame_equal(here, every, rel_tol=1e-9)


def _z(group: Group, one: PromptEffects, language: str) -> np.ndarray:
    """z of every neuron, NaN where relabelling changes nothing, by the definition of `unit_contrasts`."""
    plan = exchange(one.prompts)
    contrast = next(found for found in contrasts(group, plan) if found.language == language)

    z = weights(plan, plan.harmful[None]) @ contrast.standardised
    return np.where(contrast.sd > 0, z[0], np.nan)


def test_discoveries_of_the_observed_labels_are_those_of_discoveries() -> None:
    effects = made(planted=4)
    whole = discoveries(effects, draws=400, rate=0.2)
    found = discovered_under(under(effects, range(1)), null_bins(whole.null), 0.2)
    passed = whole.neurons.filter(pl.col("q") <= 0.2, pl.col("language") != EVERY)
    assert NeuronSet(found, LANGUAGES) == NeuronSet(passed, LANGUAGES)


@pytest.mark.parametrize("pool", ["site", "layer"])
def test_stable_neurons_are_those_of_each_labelling_by_itself(pool: str) -> None:
    node = replace(MS, stable=0.6, pool=pool)
    labelled = under(made(pairs=True, planted=2), range(3))
    found = stable_under(labelled, node, 0.6)
    for number, one in labelled.items():
        frequencies = stability(one, {"ms": replace(node, stable=None)}, permutations=0).frequencies
        chosen, _ = stable_set(frequencies, one, 0.6)
        rows = found.filter(labels=number)
        assert NeuronSet(rows, LANGUAGES) == chosen
        wanted = rows.select(KEYS).join(scored(labelled_means(one), "difference"), on=KEYS, how="left")
        assert_frame_equal(rows.select(*KEYS, "score"), wanted, rel_tol=1e-12)
