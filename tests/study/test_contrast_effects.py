"""The per-prompt effects of a contrast, and sets under labellings of its prompts, against sets of the means."""

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_effects import sets_from_masks

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.model.subject import load_subject
from ssn_probe.runs.cache import Cache
from ssn_probe.spec import (
    Combine,
    Exchanged,
    Of,
    Placebo,
    Prompts,
    Recipe,
    SafetyNeurons,
    SetExpression,
    Shared,
    UnionOf,
)
from ssn_probe.stats.nulls.relabelled import labelled_means
from ssn_probe.study import contrast_effects
from ssn_probe.study.contrast_effects import prompt_effects
from ssn_probe.study.importance import effects_at, importance
from ssn_probe.study.plan import make_plan
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=40)
MS = SafetyNeurons(PROMPTS, effect="local", sites=("o", "ffn"), top=0.02)


@pytest.fixture(scope="module", params=["memory", "disk"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    plan = make_plan(Recipe(sets={"ms": MS}))
    cache = Cache(root=tmp_path_factory.mktemp("cache")) if request.param == "disk" else None
    return Workbench(subject=load_subject("organism"), data=plan.data, anchor="qaa", cache=cache)


def test_the_means_of_the_evidence_are_the_importance(bench: Workbench) -> None:
    measured, found = prompt_effects(bench, MS), importance(bench, MS)
    harmful = measured.prompts["harmful"].to_numpy()
    assert harmful.sum() == 40
    assert measured.prompts["stratum"].n_unique() > 1  # topics; all of the organism's prompts have one length
    for language, layer, site in (("qaa", 0, "ffn"), ("qab", 3, "o")):
        effects = measured.read(language, layer, site)
        here = found.filter(language=language, layer=layer, site=site)
        assert effects.shape == (80, here.height)
        assert np.allclose(effects[harmful].mean(0), here["harmful"], rtol=1e-4)
        assert np.allclose(effects[~harmful].mean(0), here["harmless"], rtol=1e-4)


@pytest.mark.parametrize("kept", [True, False])
def test_small_effects_are_read_once_and_large_ones_each_time(
    bench: Workbench, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = sum(bench.widths()[layer, site] for layer in range(bench.subject.n_layers) for site in ("o", "ffn"))
    monkeypatch.setattr(contrast_effects, "KEPT_BYTES", 4 * 80 * 2 * widths - (not kept))
    read: list[tuple] = []
    monkeypatch.setattr(contrast_effects, "effects_at", lambda *a: (read.append(a[2:]), effects_at(*a))[1])
    fresh = replace(bench, memory={})
    measured, other = prompt_effects(fresh, MS), prompt_effects(fresh, replace(MS, sites=("o",)))
    first, again = (measured.read("qab", 1, "o") for _ in range(2))
    assert (first == again).all()
    once = [("qab", side, 1, "o") for side in ("harmful", "harmless")]
    assert read == once * (1 if kept else 2)
    other.read("qaa", 0, "o")
    measured.read("qab", 1, "o")
    assert read[-2:] == once, "effects of two contrasts are never kept"
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


def test_a_language_that_lacks_a_prompt_has_a_row_of_nan(tmp_path: Path) -> None:
    words = [word for word in load_subject("organism").tokenizer.get_vocab() if word.isalpha()]
    keys = [key for key in product(("harmful", "harmless"), range(12), ("aa", "bb")) if key != ("harmful", 3, "bb")]
    rows = [
        {"prompt_id": f"{context}{i}", "language": language, "context": context, "split": "identify"}
        | {"text": " ".join(words[number : number + 4])}
        for number, (context, i, language) in enumerate(keys)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "prompts.parquet")
    node = SafetyNeurons(Prompts(str(tmp_path)), effect="local", sites=("ffn",))
    bench = Workbench(subject=load_subject("organism"), data=make_plan(Recipe(sets={"ms": node})).data)
    measured = prompt_effects(bench, node)
    missing = measured.prompts["prompt_id"].to_list().index("harmful3")
    assert np.isnan(measured.read("bb", 0, "ffn")[missing]).all()
    assert np.isfinite(measured.read("aa", 0, "ffn")).all()


def test_the_placebo_contrasts_harmless_prompts_of_the_same_topics(bench: Workbench) -> None:
    placebo = replace(MS, labels=Placebo(split=1))
    measured, rows = prompt_effects(bench, placebo), bench.data[PROMPTS].select("identify", "harmless")
    topics = dict(rows.select("prompt_id", "topic").iter_rows())
    assert set(measured.prompts["prompt_id"]) == set(topics)
    sides = (Counter(topics[one] for one in measured.prompts.filter(harmful=side)["prompt_id"]) for side in (0, 1))
    first, second = sides
    assert all(abs(first[name] - second[name]) <= 1 for name in set(topics.values()))
    means = labelled_means(measured)
    assert means.null_count().sum_horizontal()[0] == 0
    assert evaluate(bench, placebo) != evaluate(bench, MS)


def test_sets_under_exchanged_labels(bench: Workbench) -> None:
    """Draw 0 is the observed labels of the prompts that take part; the others are different for every number."""
    sets = [evaluate(bench, replace(MS, labels=Exchanged(draw=draw))) for draw in range(3)]
    assert len(sets[0] & sets[1]) < len(sets[0])
    assert sets[1] != sets[2]
    prompts = [prompt_effects(bench, replace(MS, labels=Exchanged(draw=draw))).prompts for draw in range(2)]
    assert prompts[0]["prompt_id"].equals(prompts[1]["prompt_id"])
    assert prompts[0]["harmful"].sum() == prompts[1]["harmful"].sum()


def test_no_placebo_of_few_prompts(tmp_path: Path, bench: Workbench) -> None:
    data = bench.data[PROMPTS]
    data.frame.drop("source").write_parquet(tmp_path / "prompts.parquet")
    node = SafetyNeurons(Prompts(str(tmp_path), limit=4), effect="local", sites=("ffn",), labels=Placebo())
    bare = Workbench(subject=bench.subject, data=make_plan(Recipe(sets={"ms": node})).data)
    with pytest.raises(DataError, match="too few balanced splits for a placebo"):
        evaluate(bare, node)


def test_stable_neurons_are_taken_by_most_halves_and_fewer_than_the_rule_takes(bench: Workbench) -> None:
    found, all_of_them = evaluate(bench, replace(MS, stable=0.9)), evaluate(bench, MS)
    assert 0 < len(found) < len(all_of_them)
    assert any("are expected to be there by chance" in warning for warning in bench.warnings)
    looser = evaluate(bench, replace(MS, stable=0.6))
    assert len(found - looser) == 0
    assert len(looser) >= len(found)


def test_fdr_takes_as_many_as_pass(bench: Workbench) -> None:
    few, more = (
        evaluate(bench, SafetyNeurons(PROMPTS, effect="local", sites=("o", "ffn"), fdr=rate)) for rate in (0.001, 0.05)
    )
    assert 0 < len(few) < len(more)
    assert len(few - more) == 0
    assert (more.frame["score"] > 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fdr": 0.0}, "fdr is 0.0"),
        ({"fdr": 0.05, "top": 0.01}, "fdr decides how many neurons it takes"),
        ({"fdr": 0.05, "rule": "paper"}, "does not rank by"),
        ({"stable": 0.5}, "stable is 0.5"),
        ({"stable": float("inf")}, "stable is inf|SafetyNeurons.stable"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        SafetyNeurons(PROMPTS, **fields)


def test_the_mean_over_languages_is_ranked_and_nothing_else() -> None:
    with pytest.raises(RecipeError, match="by='mean' ranks neurons"):
        Shared(SafetyNeurons(PROMPTS, fdr=0.05), by="mean")


BASES = (MS, Shared(MS), Shared(MS, at_least=2), Shared(MS, by="mean"))
PARTS = ({"layers": [0, 3]}, {"sites": ["ffn"]}, {"languages": ["qab"]}, {"languages": ["qab", "qaa"], "sites": ["o"]})


def larger(inner: st.SearchStrategy[SetExpression]) -> st.SearchStrategy[SetExpression]:
    """Expressions that are made of others."""
    return st.one_of(
        st.builds(Combine, st.sampled_from(["and", "or", "minus"]), inner, inner),
        st.builds(Of, inner, st.sampled_from([None, "qaa", "qab"])),
        st.builds(UnionOf, inner),
        st.builds(lambda found, part: found.only(**part), inner, st.sampled_from(PARTS)),
        st.builds(lambda found, count: Shared(found, at_least=count), inner, st.integers(1, 3)),
        st.builds(lambda found, anchor: Shared(found, anchor=anchor), inner, st.sampled_from([None, "qab"])),
    )


@pytest.mark.parametrize("bench", ["memory"], indirect=True)
@settings(deadline=None, max_examples=150)
@given(st.recursive(st.sampled_from(BASES), larger, max_leaves=4))
def test_masks_and_neuron_sets_give_an_expression_the_same_meaning(bench: Workbench, expression: SetExpression) -> None:
    measured = prompt_effects(bench, MS)
    labels = measured.prompts["harmful"].to_numpy()[None]
    try:
        wanted = evaluate(bench, expression)
    except DataError:  # a set is empty, which is no error under exchanged labels
        return
    except RecipeError:
        with pytest.raises(RecipeError):
            sets_from_masks(measured, expression, labels)
        return
    (found,) = sets_from_masks(measured, expression, labels)
    assert found == wanted
    assert found.languages == wanted.languages
