"""Candidates of the effect by ablation: chosen without labels, so that a null that exchanges labels is valid."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from ssn_probe.recipes import suppress_ss
from studies import bench_for, exchanged_bench

from ssn_probe import Ablation, Prompts, Recipe, SafetyNeurons, preview
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.importance import candidates, importance, score_inputs
from ssn_probe.study.workbench import Workbench

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=30)
MS = SafetyNeurons(PROMPTS, effect=Ablation(0.01))
RECIPE = Recipe(sets={"ms": MS})


@pytest.fixture(scope="module")
def organism() -> Subject:
    return load_subject("organism")


@pytest.fixture(scope="module")
def bench(organism: Subject) -> Workbench:
    return bench_for(RECIPE, organism)


@pytest.mark.parametrize("exchanged", [7, 30])
def test_exchanged_labels_choose_the_same_candidates(organism: Subject, exchanged: int) -> None:
    before, after = bench_for(RECIPE, organism), exchanged_bench(RECIPE, organism, exchanged)
    assert candidates(before, MS, "qaa") == candidates(after, MS, "qaa")
    one, other = (importance(bench, replace(MS, effect="local"))["harmful"].to_numpy() for bench in (before, after))
    assert not np.allclose(one, other)  # the labels have changed


def test_only_candidates_have_an_effect_and_are_chosen(bench: Workbench) -> None:
    found = importance(bench, MS)
    for language in ("qaa", "qab"):
        chosen = candidates(bench, MS, language)
        assert chosen is not None
        rows = found.filter(language=language).select("layer", "site", "index", "harmful", "harmless").iter_rows()
        moved = [(layer, site, index) for layer, site, index, *effects in rows if any(effects)]
        assert sorted(moved) == sorted(chosen)
    assert candidates(bench, replace(MS, effect="local"), "qaa") is None


def test_the_key_says_which_prompts_chose_the_candidates(organism: Subject) -> None:
    bench, changed = bench_for(RECIPE, organism), bench_for(RECIPE, organism)
    frame = changed.data[PROMPTS].frame
    harmless = frame.filter(context="harmless", split="identify")["prompt_id"][0]
    data = {PROMPTS: replace(changed.data[PROMPTS], frame=frame.filter(pl.col("prompt_id") != harmless))}
    keys = [score_inputs(one, MS, "qaa", "harmful") for one in (bench, replace(changed, data=data))]
    assert keys[0]["prompts"] == keys[1]["prompts"]
    assert keys[0]["screened"] != keys[1]["screened"]
    assert "screened" not in score_inputs(bench, replace(MS, effect="local"), "qaa", "harmful")


def test_a_plan_has_both_kinds_of_work_and_what_they_take(organism: Subject, tmp_path: Path) -> None:
    rows = {step.label: step.cost.passes for step in identify_steps(bench_for(RECIPE, organism), RECIPE)}
    neurons = organism.n_layers * sum(organism.widths.values())
    assert rows["local effect of every neuron (organism, first 30)"] == 1
    assert rows["ablation effect of candidates (organism, first 30, 0.01)"] == pytest.approx(0.01 * neurons)
    shown = " ".join(str(preview(suppress_ss(effect="ablation"), out=tmp_path, limit=30, time=False)).split())
    assert "ablation effects, a neuron for a prompt" in shown
