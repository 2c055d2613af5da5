"""Expand as an arm: trained once and kept, measured in the weights, beside random sets trained alike, and taken out."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from ssn_probe.recipes import expand_ss
from studies import Counts, log_odds_of, planned, samples_of, text_of
from training_case import equal, merge

from ssn_probe import (
    ASR,
    Expand,
    LoRA,
    OverRefusal,
    Prompts,
    RandomLike,
    Recipe,
    SafetyNeurons,
    Shared,
    Training,
    Utility,
)
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.errors import RecipeError
from ssn_probe.model.subject import load_subject
from ssn_probe.runs.cache import Cache, VanishedError
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.node import digest
from ssn_probe.study.arms import arms_of
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.plan import make_plan
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.trained_weights import stated, train, training_inputs
from ssn_probe.study.workbench import Workbench

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=24)
SS = Shared(SafetyNeurons(PROMPTS, top=0.01)).union()
QUICK = Training(lr=1e-3, steps=10, batch=8)


def study(**changes: Any) -> Recipe:
    fields = {"arms": {"x": Expand(SS, PROMPTS, training=QUICK)}, "controls": 2, "comparisons": ("random",)}
    measures = (ASR(PROMPTS), OverRefusal(PROMPTS), Utility(PROMPTS))
    quiet = {"permutations": 0, "half_samples": 0, "measures": measures, "primary": "x", "name": "study"}
    return Recipe(**(fields | quiet | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_recipe(study(), Options(out=tmp_path_factory.mktemp("results")), Console(quiet=True))


def test_an_arm_is_trained_and_measured_beside_random_sets(run: RunFolder) -> None:
    samples, odds = run.table("samples"), run.table("log_odds")
    assert set(samples.select("arm", "role").unique().rows()) == {
        ("baseline", "baseline"), ("x", "tested"), ("x", "random")
    }  # fmt: skip
    assert set(odds.filter(role="random")["seed"]) == {0, 1}, "no random set is trained for the log-odds alone"
    means = {role: rows["log_odds"].mean() for (role,), rows in odds.group_by("role")}
    assert means["tested"] > means["baseline"], "refusals were learned"
    assert means["random"] != means["baseline"]


def test_a_delta_states_how_the_model_of_its_study_was_asked(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssn_probe.training.delta_file.file import read_delta

    file, asked = read_delta(run.path / "deltas" / "x.safetensors"), {"system_prompt": "w3", "chat": "plain"}
    assert "asked" not in file.about
    monkeypatch.setattr("ssn_probe.study.trained_weights.data_of", lambda *_: SimpleNamespace(describe=dict))
    bench: Any = SimpleNamespace(subject=SimpleNamespace(name="tiny", identity=asked | {"family": "llama"}))
    node = study().arms["x"]
    assert stated(bench, node, "x", file).about["asked"] == asked
    assert stated(bench, node, "x", file).about["neurons"].startswith("the shared safety neurons (SS) of any language")
    other = replace(node, neurons=RandomLike(node.neurons))
    assert stated(bench, other, "x", file).about["neurons"] == f"the set x, key {other.neurons.key[:16]}"


def test_the_run_keeps_delta_curve_and_what_was_trained(run: RunFolder) -> None:
    from ssn_probe.training.delta_file.file import read_delta

    told = run.manifest()["trained"][0]
    file = read_delta(run.path / "deltas" / "x.safetensors")
    neurons = run.table("neurons").filter(set="x").select("layer", "site", "index").rows()
    assert sorted(file.delta.neurons) == sorted(neurons)
    assert told["parameters"][-1]["site"] == "all"
    assert told["steps"]["done"] == QUICK.steps
    assert run.table("training")["step"].to_list() == list(range(QUICK.steps + 1))
    assert any("parameters" in line and "% of the model" in line for line in run.manifest()["answer"])


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_done_is_what_was_planned(kept: bool, tmp_path: Path) -> None:
    recipe, tracker = study(controls=1), Counts()
    plan = make_plan(recipe)
    cache = Cache(root=tmp_path) if kept else None
    bench = Workbench(subject=load_subject("organism"), data=plan.data, anchor="qaa", cache=cache, tracker=tracker)
    before = {name: weight.clone() for name, weight in bench.subject.model._module.state_dict().items()}
    for step in identify_steps(bench, recipe):
        step.run()
    arms = arms_of(bench, recipe)
    samples_of(bench, recipe, arms)
    log_odds_of(bench, recipe, arms)
    text_of(bench, recipe, arms)
    rows = planned(recipe)
    assert tracker.done == rows
    after = bench.subject.model._module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the base is as it was, bit for bit"
    again = replace(bench, tracker=Counts(), memory={}, readouts={})
    samples_of(again, recipe)
    if kept:
        assert again.tracker.done["x: training"] == rows["x: training"]


def test_responses_are_those_of_the_merged_model(tmp_path: Path, run: RunFolder) -> None:
    """The whole path against a hand-made one: the delta of the run folder, merged, plain generation."""
    from ssn_probe.model.chat import encode
    from ssn_probe.tracing.generate import generate
    from ssn_probe.training.delta_file.file import read_delta

    subject = load_subject("organism")
    merge(subject.model._module, read_delta(run.path / "deltas" / "x.safetensors"))
    rows = make_plan(study()).data[PROMPTS].select("evaluate", "harmful", "qab")
    found = [one.text for one in generate(subject, encode(subject, list(rows["text"])), max_new_tokens=5)]
    kept = run.table("samples").filter(arm="x", role="tested", eval_language="qab", context="harmful")
    assert kept["response"].to_list() == found


@pytest.mark.slow
def test_a_run_says_how_much_rounding_takes_from_what_was_trained(tmp_path: Path) -> None:
    """Steps of 5e-5 vanish in bfloat16, those of an adapter's many small changes most."""
    arms = {"x": Expand(SS, PROMPTS, training=replace(QUICK, lr=5e-5)), "y": LoRA(SS, PROMPTS, training=QUICK)}
    recipe = study(arms=arms, controls=0, comparisons=(), log_odds_label_sets=0, measures=(ASR(PROMPTS),), primary=None)
    for dtype, times in (("bfloat16", 2), ("float32", 1)):  # the second run finds all in the cache
        for _ in range(times):
            found = run_recipe(recipe, Options(out=tmp_path, dtype=dtype), Console(quiet=True)).manifest()["warnings"]
            notes = [note for note in found if "rounds away much of what was trained" in note]
            assert len(notes) == (dtype == "bfloat16")
            assert all(re.search(r": x [2-9]\d % and y [2-9]\d %\. ", note) for note in notes), notes


def test_a_training_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = study()
    plan, node = make_plan(recipe), recipe.arms["x"]
    bench = Workbench(subject=load_subject("organism"), data=plan.data, anchor="qaa", cache=Cache(root=tmp_path))
    neurons = evaluate(bench, SS)
    whole = train(replace(bench, cache=None, memory=dict(bench.memory)), node, neurons, "x: training").file()
    import ssn_probe.training.loop.training_steps as steps

    one_step, done = steps._one_step, []

    def stops(*arguments: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return one_step(*arguments)

    monkeypatch.setattr(steps, "_one_step", stops)
    with pytest.raises(KeyboardInterrupt):
        train(bench, node, neurons, "x: training")
    monkeypatch.setattr(steps, "_one_step", one_step)
    outcome = train(bench, node, neurons, "x: training")
    file, history = outcome.file(), outcome.history
    assert equal(file.delta, whole.delta)
    assert history["step"].to_list() == list(range(QUICK.steps + 1))


def test_a_result_that_is_deleted_meanwhile_says_what_to_do(tmp_path: Path) -> None:
    import shutil

    recipe = study()
    bench = Workbench(
        subject=load_subject("organism"), data=make_plan(recipe).data, anchor="qaa", cache=Cache(root=tmp_path)
    )
    outcome = train(bench, recipe.arms["x"], evaluate(bench, SS), "x: training")
    shutil.rmtree(tmp_path)
    with pytest.raises(VanishedError) as caught:
        outcome.file()
    assert "same command again" in (caught.value.hint or "")


def test_settings_data_and_neurons_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(study())
    bench = Workbench(subject=load_subject("organism"), data=plan.data, anchor="qaa")
    neurons, node = evaluate(bench, SS), study().arms["x"]
    others = [
        replace(node, training=replace(QUICK, lr=2e-3)),
        replace(node, contexts=("harmful",)),
        replace(node, languages=("qaa",)),
        replace(node, at=(1, 3)),
        LoRA(node.neurons, node.data, training=node.training),
    ]
    keys = {digest(training_inputs(bench, one, neurons)) for one in (node, *others)}
    keys.add(digest(training_inputs(bench, node, neurons.without_strongest())))
    assert len(keys) == 7
    assert "control_tokens" not in training_inputs(bench, node, neurons)
    monkeypatch.setattr("ssn_probe.study.trained_weights.spells", lambda *_: True)
    spelled = training_inputs(replace(bench, prompt_memory={}), node, neurons)
    assert digest(spelled) not in keys, "rows that spell control tokens train other weights than they once did"


def test_a_set_per_language_is_refused(tmp_path: Path) -> None:
    recipe = study(arms={"x": Expand(SafetyNeurons(PROMPTS), PROMPTS, training=QUICK)})
    with pytest.raises(RecipeError, match="trains one model") as caught:
        run_recipe(recipe, Options(out=tmp_path), Console(quiet=True))
    assert ".union()" in (caught.value.hint or "")


def test_the_shipped_recipe_trains_at_three_lengths() -> None:
    recipe = expand_ss(controls=3)
    labels = list(planned(recipe))
    assert [name for name in recipe.arms] == ["8 steps", "20 steps", "60 steps"]
    assert "20 steps: training" in labels
    assert not any("strongest" in label or "placebo" in label for label in labels)
