"""Every kind of set under exchanged labels, as `evaluate` gives it, against the slow way: the means of each draw."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ssn_probe.errors import DataError
from ssn_probe.model.subject import load_subject
from ssn_probe.neurons import KEYS, NeuronSet
from ssn_probe.neurons.selection import averaged, scored, select_neurons, shared_with_anchor
from ssn_probe.runs.cache import Cache
from ssn_probe.spec import Exchanged, Placebo, Prompts, Recipe, SafetyNeurons, SetExpression, Shared
from ssn_probe.spec.node import Node, rewrite
from ssn_probe.stats.nulls.relabelled import labelled_means
from ssn_probe.study import relabelled_sets
from ssn_probe.study.contrast_effects import prompt_effects
from ssn_probe.study.plan import make_plan
from ssn_probe.study.relabelled_sets import TOGETHER
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

PROMPTS = Prompts("organism", languages=("qaa", "qab", "qac"), limit=40)
MS = SafetyNeurons(PROMPTS, effect="local", sites=("o", "ffn"), top=0.02)
SS = Shared(MS)


def bench_with(cache: Cache | None = None) -> Workbench:
    return Workbench(
        subject=load_subject("organism"), data=make_plan(Recipe(sets={"ms": MS})).data, anchor="qaa", cache=cache
    )


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return bench_with()


def under(expression: SetExpression, draw: int) -> SetExpression:
    def changed(node: Node) -> Node:
        return replace(node, labels=Exchanged(draw=draw, seed=2)) if isinstance(node, SafetyNeurons) else node

    found = rewrite(expression, changed)
    assert isinstance(found, SetExpression)
    return found


def means(bench: Workbench, draw: int) -> pl.DataFrame:
    return labelled_means(prompt_effects(bench, replace(MS, labels=Exchanged(draw=draw, seed=2))))


def chosen(frame: pl.DataFrame, **fields: object) -> NeuronSet:
    node = replace(MS, **fields)
    assert node.top is not None
    return select_neurons(frame, rule=node.rule, top=node.top, pool=node.pool)


def assert_same(found: NeuronSet, wanted: NeuronSet) -> None:
    """The same neurons with the same scores."""
    assert set(found.languages) == set(wanted.languages)
    assert_frame_equal(found.frame.sort(KEYS), wanted.frame.sort(KEYS), rel_tol=1e-10)


def shared(frame: pl.DataFrame) -> NeuronSet:
    return shared_with_anchor(chosen(frame), "qaa", scored(averaged(frame), "difference").drop("language"))


SETS: dict[str, tuple[SetExpression, Callable[[pl.DataFrame], NeuronSet]]] = {
    "ms": (MS, chosen),
    "pooled": (replace(MS, pool="layer"), lambda frame: chosen(frame, pool="layer")),
    "paper": (replace(MS, rule="paper", top=0.1), lambda frame: chosen(frame, rule="paper", top=0.1)),
    "ss": (SS, shared),
    "by mean": (Shared(MS, by="mean"), lambda frame: chosen(averaged(frame))),
    "without top": (SS.without_strongest(), lambda frame: shared(frame).without_strongest()),
    "several": (
        SS | replace(MS, rule="harmful").only(sites=["o"]),
        lambda frame: shared(frame) | chosen(frame, rule="harmful").only(sites=["o"]),
    ),
    "of": (SS.of("qab") - replace(MS, top=0.01), lambda frame: shared(frame).of("qab") - chosen(frame, top=0.01)),
}


@pytest.mark.parametrize(("expression", "slow"), SETS.values(), ids=SETS)
def test_a_set_of_a_draw_is_that_of_its_own_means(
    bench: Workbench, expression: SetExpression, slow: Callable[[pl.DataFrame], NeuronSet]
) -> None:
    for draw in (0, 3, TOGETHER + 1):
        assert_same(evaluate(bench, under(expression, draw)), slow(means(bench, draw)))


def test_whole_layers_are_those_of_the_draw(bench: Workbench) -> None:
    one = MS.only(layers=[0, 1], sites=["o"], languages=["qab"])
    found = evaluate(bench, under(one.whole_layers(), 4))
    assert set(found.frame["layer"]) == set(evaluate(bench, under(one, 4)).frame["layer"])


def test_leave_one_out_finds_every_language_without_its_own_prompts(bench: Workbench) -> None:
    found = evaluate(bench, under(SS.union().leave_one_out(), 2))
    for language, other in (("qab", "qac"), ("qac", "qab")):
        data = replace(PROMPTS, languages=("qaa", other))
        alone = under(Shared(replace(MS, prompts=data)).union(), 2)
        without = Workbench(subject=bench.subject, data=make_plan(Recipe(sets={"x": alone})).data, anchor="qaa")
        assert found.of(language) == evaluate(without, alone)


@pytest.mark.parametrize("fields", [{"fdr": 0.05}, {"stable": 0.9}], ids=["fdr", "stable"])
def test_a_set_that_a_draw_leaves_empty_is_empty(bench: Workbench, fields: dict) -> None:
    """Of exchanged labels most sets are empty; the observed ones of the same prompts give a set."""
    node = replace(MS, top=None if "fdr" in fields else 0.02, **fields)
    observed = evaluate(bench, under(node, 0))
    assert set(observed.frame["language"]) == {"qaa", "qab", "qac"}
    sizes = [len(evaluate(bench, under(node, draw))) for draw in range(1, 8)]
    assert min(sizes) == 0
    assert np.mean(sizes) < len(observed) / 10
    empty = 1 + sizes.index(0)
    nothing = evaluate(bench, under(Shared(node).without_strongest(), empty))
    assert (len(nothing), nothing.languages) == (0, observed.languages)


def test_no_neuron_need_be_in_so_many_languages_under_other_labels(bench: Workbench) -> None:
    """For the labels that the prompts have, that is an error; a draw without any would end a run amid its arms."""
    rare = Shared(replace(MS, top=0.005), at_least=3)
    assert len(evaluate(bench, under(rare, 0)))
    sizes = [len(evaluate(bench, under(rare, draw))) for draw in range(1, 8)]
    assert min(sizes) == 0
    with pytest.raises(DataError, match="in 3 languages or more"):
        evaluate(bench, Shared(MS.only(layers=[99]), at_least=3))


def test_placebo_sets_are_those_of_their_own_means(bench: Workbench) -> None:
    for split in range(2):
        node = replace(MS, labels=Placebo(split=split))
        assert_same(evaluate(bench, node), chosen(labelled_means(prompt_effects(bench, node))))


def test_draws_are_kept_and_swept_together(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new bench reads no effect, whichever of a sweep's draws it asks for first."""
    cache = Cache(root=tmp_path)
    first = evaluate(bench_with(cache), under(SS, 3))
    swept = []
    monkeypatch.setattr(relabelled_sets, "_swept", lambda *_: swept.append(1))
    again = bench_with(cache)
    evaluate(again, under(SS, TOGETHER - 1))
    assert evaluate(again, under(SS, 3)) == first
    assert not swept
