"""Sets beside a tested set, from what the study measured."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from differing import differing

from ssn_probe.errors import RecipeError
from ssn_probe.model.subject import load_subject
from ssn_probe.neurons import NeuronSet
from ssn_probe.neurons.overlap import overlap_table
from ssn_probe.neurons.random_controls import random_like
from ssn_probe.neurons.size_matching import sizes_of
from ssn_probe.spec import NeuronFile, Prompts, RandomLike, Recipe, SafetyNeurons, SetExpression, Shared
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.drawn_sets import important_set, measured_by, own_set
from ssn_probe.study.importance import importance
from ssn_probe.study.plan import make_plan
from ssn_probe.study.robustness import own_sets
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=40)
MS = SafetyNeurons(PROMPTS, effect="local", sites=("o", "ffn"), top=0.05)
SS = Shared(MS)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench(subject=load_subject("organism"), data=make_plan(Recipe(sets={"ms": MS})).data, anchor="qaa")


def test_sets_as_important_are_so_in_fact(bench: Workbench) -> None:
    neurons = evaluate(bench, SS)
    common = (
        importance(bench, MS)
        .group_by("layer", "site", "index")
        .agg(common=(pl.col("harmful").abs().mean() + pl.col("harmless").abs().mean()) / 2)
    )

    def mean(some: NeuronSet) -> float:
        return float(np.mean(some.frame.join(common, on=["layer", "site", "index"])["common"].to_numpy()))

    drawn = [important_set(bench, SS, neurons, number, 0) for number in range(19)]
    assert max(abs(mean(one) / mean(neurons) - 1) for one in drawn) < 0.05
    assert all(one.counts().equals(neurons.counts()) for one in drawn)
    assert differing(neurons, drawn) > 0.2 * len(neurons)
    assert mean(random_like(neurons, bench.widths(), 0)) < 0.8 * mean(neurons)


def test_the_overlap_of_languages_is_told_of_sets_that_they_chose_by_themselves(bench: Workbench) -> None:
    """The languages of a random set share as many neurons as those of the set that it is drawn like."""
    sets = {
        "ms": MS,
        "shared": SS,
        "shared, weakened": SS.without_strongest(),
        "left out": SS.union().leave_one_out(),
        "random": RandomLike(MS, seed=1),
    }
    ms, random = (overlap_table(evaluate(bench, sets[name]), bench.widths(), name) for name in ("ms", "random"))
    assert ms["shared"].to_list() == random["shared"].to_list()
    assert list(own_sets(sets)) == ["ms"]


def test_own_sets_differ_from_the_shared_one_outside_the_anchor_alone(bench: Workbench) -> None:
    neurons, ms = evaluate(bench, SS), evaluate(bench, MS)
    drawn = [own_set(bench, SS, neurons, number, 0) for number in range(5)]
    assert all(one.counts().equals(neurons.counts()) and not len(one - ms) for one in drawn)
    assert all(one.of("qaa") == ms.of("qaa") for one in drawn)
    assert 0 < differing(neurons, drawn) < len(neurons)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(
    ("expression", "node"),
    [
        (SS.union(), MS),
        (SS - replace(MS, rule="harmful", top=0.3), MS),
        (MS | replace(MS, sites=("o",)), None),
        (MS | NeuronFile("file.csv"), None),
        (MS.whole_layers(), None),
    ],
)
def test_what_measures_the_importance_of_a_set(expression: SetExpression, node: SafetyNeurons | None) -> None:
    found = measured_by(expression)
    assert (found is None) == (node is None)
    assert found is None or (found.prompts, found.effect, found.sites) == (MS.prompts, MS.effect, MS.sites)


def test_sets_that_a_comparison_does_not_apply_to(bench: Workbench) -> None:
    neurons = evaluate(bench, MS)
    with pytest.raises(RecipeError, match="not known to be shared neurons"):
        own_set(bench, MS, neurons, 0, 0)
    with pytest.raises(RecipeError, match="importance of the set's neurons is not known"):
        important_set(bench, MS.whole_layers(), neurons, 0, 0)


def test_a_placebo_is_as_large_as_the_set_and_whole_layers_stay_whole(bench: Workbench) -> None:
    neurons, one = evaluate(bench, SS), MS.only(layers=[0, 1], sites=["o"], languages=["qab"]).whole_layers()
    assert sizes_of(COMPARISONS["placebo"].find(bench, SS, neurons, 3, 0)) == sizes_of(neurons)
    layers = evaluate(bench, one)
    widths = bench.widths()
    found = COMPARISONS["placebo"].find(bench, one, layers.only(layers=[0]), 3, 0)
    assert len(found) == sum(width for (layer, _), width in widths.items() if layer in set(found.frame["layer"]))
