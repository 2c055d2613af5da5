"""Arms, controls and read-outs on the organism: who is silenced where, and what is left out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
import torch
from studies import Counts, bench_for, log_odds_of, planned, samples_of, text_of

from ssn_probe import ASR, Amplify, Expand, MeanOf, Patch, Prompts, Recipe, SafetyNeurons, Shared, Suppress, Utility
from ssn_probe.errors import DataError, ModelError, RecipeError
from ssn_probe.model.openings import Direction
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.spec import NeuronFile, RandomLike
from ssn_probe.study.arm_notes import note_gaps
from ssn_probe.study.arms import arms_of, beside, sets_beside
from ssn_probe.study.edits_of_arms import edits_for
from ssn_probe.study.importance import importance
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.patch_source import Source
from ssn_probe.study.plan import make_plan
from ssn_probe.study.refusal_readout import readouts
from ssn_probe.study.resolve import study_anchor
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.edits import carried_neurons, carrying
from ssn_probe.tracing.effects import refusal_log_odds
from ssn_probe.tracing.generate import generate

PROMPTS = Prompts("organism", limit=24, languages=("qaa", "qab", "qac"))
MS = SafetyNeurons(PROMPTS)
SS = Shared(MS)
SUPPRESS = Suppress(MS)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject("organism")


def recipe(**changes) -> Recipe:
    fields = {"arms": {"ms": Suppress(MS)}, "measures": (ASR(PROMPTS),), "controls": 2, "comparisons": ("random",)}
    return Recipe(**(fields | changes))


@pytest.fixture(scope="module")
def bench(subject: Subject) -> Workbench:
    return bench_for(recipe(), subject)


def test_each_becomes_one_arm_per_language(bench: Workbench) -> None:
    arms = arms_of(bench, recipe(arms={"ms": Suppress(MS.each())}))
    assert [arm.title for arm in arms] == ["ms of qaa", "ms of qab", "ms of qac"]
    assert [arm.set_language for arm in arms] == ["qaa", "qab", "qac"]
    assert edits_for(bench, arms[1].neurons, SUPPRESS, "qac") == edits_for(bench, evaluate(bench, MS), SUPPRESS, "qab")


def test_a_language_gets_its_own_neurons(bench: Workbench) -> None:
    neurons = evaluate(bench, MS)
    silenced = {language: edits_for(bench, neurons, SUPPRESS, language) for language in ("qaa", "qab")}
    assert silenced["qaa"] != silenced["qab"]
    assert edits_for(bench, None, SUPPRESS, "qaa") == ()


def test_silence_can_be_the_harmless_mean(bench: Workbench) -> None:
    """The mean over the harmless identify prompts of the evaluated language, neuron by neuron."""
    neurons, mean = evaluate(bench, MS), Suppress(MS, to=MeanOf(PROMPTS))
    zeroed, meant = edits_for(bench, neurons, SUPPRESS, "qab"), edits_for(bench, neurons, mean, "qab")
    assert [edit[:3] for edit in zeroed] == [edit[:3] for edit in meant]
    layer, site, indices, (how, values) = meant[-1]
    rows = bench.data[PROMPTS].select("identify", "harmless", "qab")
    seen: list[torch.Tensor] = []
    module = bench.subject.model._module.model.layers[layer].mlp.down_proj
    hook = module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0][0]))
    for tokens in tokens_of(bench, rows):
        bench.subject.model._module(torch.tensor([tokens]))
    hook.remove()
    assert (site, how) == ("ffn", "set")
    assert isinstance(values, tuple)
    expected = torch.cat(seen).double().mean(0)[list(indices)]
    assert torch.tensor(values, dtype=torch.float64) == pytest.approx(expected, abs=1e-6)


def test_controls_share_seeds_and_weakening_drops_one_per_language(bench: Workbench) -> None:
    study = recipe()
    (arm,) = arms_of(bench, study)
    few, many = (list(sets_beside(bench, study, arm, "random", count)) for count in (2, 4))
    assert [one.neurons for one in few] == [one.neurons for one in many[:2]]
    assert many[2].neurons != many[3].neurons
    assert arm.neurons is not None
    assert len(beside(arm)[0].neurons or ()) == len(arm.neurons) - len(arm.neurons.languages)


def test_the_anchor_that_the_recipe_names_comes_first(bench: Workbench) -> None:
    named = recipe(arms={"ss": Suppress(Shared(MS, anchor="qab"))})
    plan = make_plan(named)
    assert study_anchor(named, plan.data) == "qab"
    assert study_anchor(recipe(), plan.data) == "qaa"
    (arm,) = arms_of(bench, named)
    assert arm.left_out == ("qab",)
    with pytest.raises(RecipeError, match="several anchors: qaa, qab"):
        make_plan(recipe(arms={"declared": Suppress(SS), "named": Suppress(Shared(MS, anchor="qab"))}))


def test_random_sets_and_neuron_files_are_sets(bench: Workbench, tmp_path) -> None:
    neurons, drawn = evaluate(bench, MS), evaluate(bench, RandomLike(MS, seed=3))
    assert drawn.counts().equals(neurons.counts())
    assert len(drawn & neurons) < len(neurons)
    neurons.frame.write_parquet(tmp_path / "ms.parquet")
    assert evaluate(bench, Shared(NeuronFile(str(tmp_path / "ms.parquet")), anchor="qaa")) == evaluate(bench, SS)


def test_shared_by_mean_and_at_least_are_language_free(bench: Workbench) -> None:
    assert evaluate(bench, Shared(MS, by="mean")).language_free
    in_all, in_any = evaluate(bench, Shared(MS, at_least=3)), evaluate(bench, MS.union())
    assert in_all.language_free
    assert len(in_all) <= len(in_any)
    assert len(in_all - in_any) == 0


def test_compared_sets_generate_on_harmful_prompts_outside_the_left_out(bench: Workbench) -> None:
    study = recipe(arms={"ss": Suppress(SS)}, comparisons=("labels", "random", "placebo"), label_sets=3)
    samples = samples_of(bench_for(study, bench.subject), study)
    for role, numbers in {"labels": {1, 2, 3}, "random": {0, 1}, "placebo": {0, 1}}.items():
        sets = samples.filter(role=role)
        assert set(sets["context"]) == {"harmful"}
        assert set(sets["eval_language"]) == {"qab", "qac"}
        assert set(sets["seed"]) - {0} == numbers - {0}, role
    assert set(samples.filter(role="tested")["eval_language"]) == {"qaa", "qab", "qac"}


def test_what_was_generated_once_is_not_generated_again(bench: Workbench) -> None:
    study = recipe(controls=0)
    fresh = bench_for(study, bench.subject)
    first = samples_of(fresh, study)
    known = len(fresh.memory)
    second = samples_of(fresh, study)
    assert len(fresh.memory) == known
    assert first.equals(second)


def test_v_is_left_out_where_it_duplicates_o(tiny_folder, bench: Workbench) -> None:
    equal_heads = replace(bench.subject, widths=bench.subject.widths | {"v": bench.subject.widths["o"]})
    notes = bench_for(recipe(), equal_heads)
    found = importance(notes, replace(MS, sites=("v", "o"), effect="local"))
    assert set(found["site"]) == {"o"}
    assert "v is left out" in notes.warnings[0]


# ── read-outs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_too_few_refusals_fall_back_visibly(subject: Subject) -> None:
    """12 of 24 prompts cannot give 20 refusals: the gate fails for its size, and the anchor's direction serves."""
    few = recipe()
    bench = bench_for(few, subject)
    found = readouts(bench, next(iter(bench.data.values())))
    assert found["qaa"].origin == "declared"
    assert isinstance(found["qac"].reads, Direction)
    assert any(note.startswith("qac: its own openings failed the AUROC gate") for note in bench.warnings)


def test_without_a_direction_a_language_is_refused(subject: Subject) -> None:
    tiny = Prompts("organism", limit=8, languages=("qaa", "qab"))
    bench = bench_for(recipe(arms={"ms": Suppress(SafetyNeurons(tiny))}, measures=(ASR(tiny),)), subject)
    with pytest.raises(ModelError, match="effect=local"):
        readouts(bench, next(iter(bench.data.values())))


def test_estimated_openings_are_the_declared_ones(subject: Subject) -> None:
    """The organism declares its openings; taken away, they are read off its responses again."""
    whole = Prompts("organism", languages=("qaa", "qab"))
    study = recipe(arms={"ms": Suppress(SafetyNeurons(whole))}, measures=(ASR(whole),))
    bench = bench_for(study, replace(subject, openings=None))
    found = readouts(bench, next(iter(bench.data.values())))["qaa"]
    assert found.origin == "estimated"
    assert subject.openings is not None
    assert found.reads == subject.openings["qaa"]
    assert found.gate.passed


def test_log_odds_that_cannot_be_trusted_are_not_measured(subject: Subject) -> None:
    tiny = Prompts("organism", limit=8, languages=("qaa", "qab"))
    study = recipe(arms={"ms": Suppress(SafetyNeurons(tiny, effect="local", rule="paper"))}, measures=(ASR(tiny),))
    bench = bench_for(study, subject)
    assert log_odds_of(bench, study).is_empty()
    assert bench.warnings[0].startswith("refusal log-odds not measured")


def test_the_direction_speaks_the_units_of_the_log_odds(bench: Workbench) -> None:
    """So that a language read along it weighs as much in an average as one read by openings."""
    prompts = next(iter(bench.data.values()))
    found = readouts(bench, prompts)
    assert isinstance(found["qac"].reads, Direction)
    rows = pl.concat([prompts.select("identify", context, "qaa") for context in ("harmful", "harmless")])
    gaps = []
    for reads in (found["qaa"].reads, found["qac"].reads):
        odds = refusal_log_odds(bench.subject, tokens_of(bench, rows), reads)
        gaps.append(float(odds[: PROMPTS.limit].mean() - odds[PROMPTS.limit :].mean()))
    assert gaps[1] == pytest.approx(gaps[0], rel=1e-3)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (MS - MS, "is empty"),
        (MS.only(layers=[99]), "is empty"),
        (MS.only(languages=["qab"]), "no language 'qaa'"),
    ],
)
def test_a_set_that_cannot_be_tested_is_found_before_anything_is_generated(
    bench: Workbench, expression, message: str
) -> None:
    study = recipe(arms={"x": Suppress(expression)})
    with pytest.raises((DataError, RecipeError), match=message):
        arms_of(bench_for(study, bench.subject), study)


LONE = SafetyNeurons(PROMPTS, effect="local", sites=("q",), pool="layer", top=1e-4).only(layers=[1])
"""A single neuron of each language, and every language has another one."""


def test_that_no_language_shares_a_neuron_is_a_result(subject: Subject) -> None:
    """Other arms are measured; what changes nothing outside the anchor is compared with nothing."""
    study = recipe(arms={"ms": Suppress(LONE), "ss": Suppress(Shared(LONE))}, controls=1, log_odds_label_sets=0)
    bench = bench_for(study, subject)
    samples = samples_of(bench, study)
    assert set(samples.filter(role="random")["arm"]) == {"ms"}
    rows = {arm: samples.filter(arm=arm, role=role)["response"] for arm, role in (("ss", "tested"), ("baseline",) * 2)}
    outside = samples.filter(arm="baseline")["eval_language"] != "qaa"
    assert rows["ss"].filter(outside).to_list() == rows["baseline"].filter(outside).to_list()
    assert bench.warnings[0].startswith("no language shares a safety neuron with the anchor qaa, whose highest score")
    assert "ss has no neurons in the languages qab, qac: nothing is changed there" in bench.warnings


@pytest.mark.parametrize("neurons", [Shared(LONE).union(), Shared(LONE).union().leave_one_out()], ids=["all", "each"])
def test_no_neuron_can_be_trained(subject: Subject, neurons: Any) -> None:
    study = recipe(arms={"x": Expand(neurons, PROMPTS)})
    with pytest.raises(DataError, match="the set of the arm 'x' is empty"):
        arms_of(bench_for(study, subject), study)


def test_every_language_that_is_left_out_needs_neurons_to_train(subject: Subject) -> None:
    few = SafetyNeurons(PROMPTS, effect="local", sites=("q",), pool="layer", top=0.02).only(layers=[1])
    study = recipe(arms={"x": Expand(Shared(few).union().leave_one_out(), PROMPTS)})
    with pytest.raises(DataError, match="without qac the set of neurons to train is empty"):
        arms_of(bench_for(study, subject), study)


def test_a_set_without_scores_has_no_strongest_member(bench: Workbench) -> None:
    study = recipe(arms={"x": Suppress(RandomLike(MS, 1))}, controls=0)
    bench = bench_for(study, bench.subject)
    samples = samples_of(bench, study)
    assert "tested" in set(samples["role"])
    assert "without top neuron" not in set(samples["role"])
    note_gaps(bench, study, arms_of(bench, study))
    assert any("no scores" in note for note in bench.warnings)


# ── amplified and patched arms ───────────────────────────────────────────────────────────────────────────────────────


def measured_by(subject: Subject, study: Recipe, memory: dict | None = None) -> tuple[pl.DataFrame, pl.DataFrame, dict]:
    """Samples, log-odds and the rows of progress of a whole study, its sets taken from `memory`."""
    counts = Counts()
    bench = replace(bench_for(study, subject), tracker=counts, memory={} if memory is None else dict(memory))
    arms = arms_of(bench, study)
    samples, odds = samples_of(bench, study, arms), log_odds_of(bench, study, arms)
    text_of(bench, study, arms)
    return samples, odds, counts.done


INTERVENTIONS: dict[str, Callable[[Any], Any]] = {
    "suppressed": Suppress,
    "amplified": lambda neurons: Amplify(neurons, by=2),
    "patched at the last position": Patch,
    "patched at every step": lambda neurons: Patch(neurons, positions="response"),
    "patched from another language": lambda neurons: Patch(neurons, source="qab"),
}


@pytest.mark.parametrize("does", INTERVENTIONS.values(), ids=INTERVENTIONS)
@pytest.mark.parametrize("neurons", [MS, SS, MS.each()], ids=["ms", "ss", "each"])
def test_what_is_done_is_what_was_planned(bench: Workbench, does: Callable[[Any], Any], neurons: Any) -> None:
    """Row by row: prompts run under every arm, its random sets, and in the source language."""
    study = recipe(
        arms={"x": does(neurons)}, measures=(ASR(PROMPTS), Utility(PROMPTS)), controls=1, log_odds_label_sets=1
    )
    _samples, _odds, done = measured_by(bench.subject, study, bench.memory)
    rows = planned(study)
    assert {label: rows[label] for label in done} == done
    assert all(label in done for label in rows if label.startswith(("baseline", "x")))


@pytest.mark.parametrize("positions", ["last", "response"])
def test_patching_is_the_parallel_prompts_own_values(bench: Workbench, positions: str) -> None:
    """The whole path against a hand-made one: parallel prompts by id, λ's own neurons, values from the source."""
    study = recipe(arms={"x": Patch(MS, source="qab", positions=positions)}, controls=0, log_odds_label_sets=1)
    bench = bench_for(study, bench.subject)
    prompts = bench.data[PROMPTS]
    samples, odds, _ = measured_by(bench.subject, study)
    rows = prompts.select("evaluate", "harmful", "qac")
    parallel = rows.select("prompt_id").join(
        prompts.select("evaluate", "harmful", "qab"), on="prompt_id", maintain_order="left"
    )
    edits = carrying(evaluate(bench, MS).neurons("qac").select("layer", "site", "index").iter_rows(), "by hand")
    steps = prompts.max_new_tokens if positions == "response" else 0
    carried = capture(bench.subject, tokens_of(bench, parallel), carried_neurons(edits), max_new_tokens=steps)
    made = generate(bench.subject, tokens_of(bench, rows), edits=edits, carried=carried, max_new_tokens=5)
    tested = pl.col("role") == "tested"
    assert samples.filter(tested, eval_language="qac")["response"].to_list() == [one.text for one in made]
    reads = readouts(bench, prompts)["qac"].reads
    wanted = refusal_log_odds(bench.subject, tokens_of(bench, rows), reads, edits=edits, carried=carried)
    found = odds.filter(tested, eval_language="qac")["log_odds"].to_numpy()
    assert found == pytest.approx(wanted.numpy(), abs=1e-4)
    untouched = odds.filter(role="baseline", eval_language="qac")["log_odds"].to_numpy()
    assert abs(found - untouched).max() > 0.01


def test_a_patch_is_not_run_in_its_source(bench: Workbench) -> None:
    study = recipe(arms={"anchor": Patch(SS), "other": Patch(SS, source="qab")}, controls=1)
    samples, odds, _ = measured_by(bench.subject, study, bench.memory)
    ran = {(arm, role): set(rows["eval_language"]) for (arm, role), rows in samples.group_by("arm", "role")}
    assert ran["anchor", "tested"] == ran["anchor", "without top neuron"] == ran["anchor", "random"] == {"qab", "qac"}
    assert ran["other", "tested"] == ran["other", "without top neuron"] == {"qaa", "qac"}
    assert ran["other", "random"] == {"qac"}  # qab is its source, qaa the anchor of a shared set
    assert set(odds.filter(arm="other", role="tested")["eval_language"]) == {"qaa", "qac"}


def test_a_source_run_in_place_of_itself_changes_nothing(bench: Workbench) -> None:
    """Why the source is left out of a Patch. Bit for bit where both runs are padded alike; held here to rounding."""
    bench = bench_for(recipe(), bench.subject)
    prompts, neurons = bench.data[PROMPTS], evaluate(bench, MS)
    rows = prompts.select("evaluate", "harmful", "qaa")
    for node in (Patch(MS), Patch(MS, positions="response")):
        steps = prompts.max_new_tokens if node.positions == "response" else 0
        given = {"neurons": lambda: neurons, "languages": ["qaa"], "max_new_tokens": steps, "label": "by hand"}
        source = Source(lambda: bench, rows, **given)
        edits = edits_for(bench, neurons, node, "qaa", "qaa")
        carried = source.values(list(rows["prompt_id"]), edits)
        reads = readouts(bench, prompts)["qaa"].reads
        tokens = tokens_of(bench, rows)
        patched = generate(bench.subject, tokens, edits=edits, carried=carried, max_new_tokens=5)
        assert patched == generate(bench.subject, tokens, max_new_tokens=5)
        odds = refusal_log_odds(bench.subject, tokens, reads, edits=edits, carried=carried)
        assert torch.allclose(odds, refusal_log_odds(bench.subject, tokens, reads), atol=1e-4)


def test_arms_that_come_to_one_edit_share_one_measurement(bench: Workbench) -> None:
    """Both positions read the same log-odds; the same factor twice is one arm; another source is another edit."""
    arms = {"last": Patch(MS), "response": Patch(MS, positions="response"), "again": Patch(MS, source="qaa")}
    study = recipe(arms=arms, controls=0)
    bench = replace(bench_for(study, bench.subject), memory=dict(bench.memory))
    samples_of(bench, study)
    log_odds_of(bench, study)
    runs = {run for key in bench.memory if key[0] == "responses" for run in carried_from(key[-1])}
    assert runs == {"qaa, last", "qaa, response"}
    assert {run for key in bench.memory if key[0] == "log odds" for run in carried_from(key[-1])} == {"qaa, last"}
    elsewhere = edits_for(bench, evaluate(bench, MS), Patch(MS), "qac", "qab")
    assert elsewhere != edits_for(bench, evaluate(bench, MS), Patch(MS), "qac", "qaa")
    twice = [edits_for(bench, evaluate(bench, MS), Amplify(MS, by=by), "qac") for by in (2, 2.0, 3)]
    assert twice[0] == twice[1] != twice[2]


def carried_from(edits: Any) -> set[str]:
    return {action[1] for *_, action in edits if action[0] == "carry"}


def test_random_sets_get_the_same_treatment(bench: Workbench) -> None:
    study = recipe(arms={"x": Amplify(MS, by=3)})
    (arm,) = arms_of(bench, study)
    for control in sets_beside(bench, study, arm, "random", 2):
        edits = edits_for(bench, control.neurons, control.does, "qab", control.source)
        assert {action for *_, action in edits} == {("scale", 3.0)}
        assert control.does == arm.does


def test_amplifying_safety_neurons_moves_the_log_odds_up_with_the_dose(bench: Workbench) -> None:
    doses = {"half": 0.5, "twice": 2.0, "thrice": 3.0}
    study = recipe(arms={name: Amplify(MS, by=by) for name, by in doses.items()}, controls=0, log_odds_label_sets=1)
    _, odds, _ = measured_by(bench.subject, study, bench.memory)
    mean = {
        (arm, role): rows["log_odds"].mean()
        for (arm, role), rows in odds.filter(eval_language="qab").group_by("arm", "role")
    }
    dose = [mean["half", "tested"], mean["baseline", "baseline"], mean["twice", "tested"], mean["thrice", "tested"]]
    assert dose == sorted(dose)
