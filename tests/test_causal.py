"""Arms, controls and read-outs on the organism: who is silenced where, and what is left out."""

from dataclasses import replace

import polars as pl
import pytest
import torch

from ssn_probe import ASR, MeanOf, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.arms import arms_of, controls_of, weakened
from ssn_probe.causal import collect_log_odds, collect_samples
from ssn_probe.errors import DataError, ModelError, RecipeError
from ssn_probe.importance import importance
from ssn_probe.lab import Lab, edits_for, tokens_of
from ssn_probe.openings import estimate_openings, readouts
from ssn_probe.plan import make_plan, study_anchor
from ssn_probe.recipe import NeuronFile, RandomLike
from ssn_probe.sets import evaluate
from ssn_probe.subject import Direction, Subject, load_subject
from ssn_probe.tracing.score import refusal_log_odds

PROMPTS = Prompts("organism", limit=24, languages=("qaa", "qab", "qac"))
MS = SafetyNeurons(PROMPTS)
SS = Shared(MS)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject("organism")


def recipe(**changes) -> Recipe:
    fields = {"arms": {"ms": Suppress(MS)}, "measures": (ASR(PROMPTS),), "controls": 2, "log_odds_controls": 2}
    return Recipe(**(fields | changes))


def lab_for(subject: Subject, of: Recipe) -> Lab:
    return Lab(subject=subject, data=make_plan(of).data, anchor="qaa")


@pytest.fixture(scope="module")
def lab(subject: Subject) -> Lab:
    return lab_for(subject, recipe())


def test_each_becomes_one_arm_per_language(lab: Lab) -> None:
    arms = arms_of(lab, recipe(arms={"ms": Suppress(MS.each())}))
    assert [arm.name for arm in arms] == ["ms.of(qaa)", "ms.of(qab)", "ms.of(qac)"]
    assert [arm.set_language for arm in arms] == ["qaa", "qab", "qac"]
    assert edits_for(lab, arms[1].neurons, "qac") == edits_for(lab, evaluate(lab, MS), "qab")


def test_a_language_gets_its_own_neurons(lab: Lab) -> None:
    neurons = evaluate(lab, MS)
    silenced = {language: edits_for(lab, neurons, language) for language in ("qaa", "qab")}
    assert silenced["qaa"] != silenced["qab"]
    assert edits_for(lab, None, "qaa") == ()


def test_silence_can_be_the_harmless_mean(lab: Lab) -> None:
    """The mean over the harmless identify prompts of the evaluated language, neuron by neuron."""
    neurons, mean = evaluate(lab, MS), MeanOf(PROMPTS)
    zeroed, meant = edits_for(lab, neurons, "qab"), edits_for(lab, neurons, "qab", mean)
    assert [edit[:3] for edit in zeroed] == [edit[:3] for edit in meant]
    layer, site, indices, values = meant[-1]
    rows = lab.data[PROMPTS].select("identify", "harmless", "qab")
    seen: list[torch.Tensor] = []
    module = lab.subject.model._module.model.layers[layer].mlp.down_proj
    hook = module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0][0]))
    for tokens in tokens_of(lab, rows):
        lab.subject.model._module(torch.tensor([tokens]))
    hook.remove()
    assert site == "ffn"
    assert isinstance(values, tuple)
    expected = torch.cat(seen).double().mean(0)[list(indices)]
    assert torch.tensor(values, dtype=torch.float64) == pytest.approx(expected, abs=1e-6)


def test_mean_arms_differ_from_zero_arms(lab: Lab) -> None:
    study = recipe(arms={"zero": Suppress(MS), "mean": Suppress(MS, to=MeanOf(PROMPTS))}, controls=0)
    bench = lab_for(lab.subject, study)
    odds = pl.concat(collect_log_odds(bench, study, arms_of(bench, study))).filter(role="tested")
    zero, mean = (odds.filter(arm=name)["log_odds"] for name in ("zero", "mean"))
    assert (zero - mean).abs().max() > 0.01  # type: ignore[operator]


def test_controls_share_seeds_and_weakening_drops_one_per_language(lab: Lab) -> None:
    (arm,) = arms_of(lab, recipe())
    few, many = list(controls_of(lab, arm, 2, seed=0)), list(controls_of(lab, arm, 4, seed=0))
    assert [one.neurons for one in few] == [one.neurons for one in many[:2]]
    assert many[2].neurons != many[3].neurons
    assert arm.neurons is not None
    assert len(weakened(arm).neurons or ()) == len(arm.neurons) - len(arm.neurons.languages)


def test_the_anchor_that_the_recipe_names_comes_first(lab: Lab) -> None:
    named = recipe(arms={"ss": Suppress(Shared(MS, anchor="qab"))})
    plan = make_plan(named)
    assert study_anchor(named, plan.data) == "qab"
    assert study_anchor(recipe(), plan.data) == "qaa"
    (arm,) = arms_of(lab, named)
    assert arm.left_out == ("qab",)
    with pytest.raises(RecipeError, match="several anchors: qaa, qab"):
        make_plan(recipe(arms={"declared": Suppress(SS), "named": Suppress(Shared(MS, anchor="qab"))}))
    with pytest.raises(RecipeError, match="several anchors"):
        make_plan(
            recipe(
                arms={
                    "a": Suppress(SS),
                    "b": Suppress(Shared(MS, anchor="qab")),
                    "c": Suppress(Shared(MS, anchor="qac")),
                }
            )
        )


def test_random_like_follows_the_expression(lab: Lab) -> None:
    drawn = evaluate(lab, RandomLike(MS, seed=3))
    assert drawn.counts().equals(evaluate(lab, MS).counts())
    assert not len(drawn & evaluate(lab, MS))


def test_a_neuron_file_is_a_set(lab: Lab, tmp_path) -> None:
    neurons = evaluate(lab, MS)
    neurons.frame.write_parquet(tmp_path / "ms.parquet")
    assert evaluate(lab, NeuronFile(str(tmp_path / "ms.parquet"))) == neurons
    from_file = evaluate(lab, Shared(NeuronFile(str(tmp_path / "ms.parquet")), anchor="qaa"))
    assert from_file == evaluate(lab, SS)


def test_shared_by_mean_and_at_least_are_language_free(lab: Lab) -> None:
    assert evaluate(lab, Shared(MS, by="mean")).language_free
    in_all, in_any = evaluate(lab, Shared(MS, at_least=3)), evaluate(lab, MS.union())
    assert in_all.language_free
    assert len(in_all) <= len(in_any)
    assert len(in_all - in_any) == 0


def test_controls_generate_on_harmful_prompts_outside_the_left_out(lab: Lab) -> None:
    study = recipe(arms={"ss": Suppress(SS)})
    samples = pl.concat(collect_samples(lab_for(lab.subject, study), study, arms_of(lab, study)))
    controls = samples.filter(role="control")
    assert set(controls["context"]) == {"harmful"}
    assert set(controls["eval_language"]) == {"qab", "qac"}
    assert set(samples.filter(role="tested")["eval_language"]) == {"qaa", "qab", "qac"}


def test_what_was_generated_once_is_not_generated_again(lab: Lab) -> None:
    study = recipe(controls=0)
    fresh = lab_for(lab.subject, study)
    first = pl.concat(collect_samples(fresh, study, arms_of(lab, study)))
    known = len(fresh.memory)
    second = pl.concat(collect_samples(fresh, study, arms_of(lab, study)))
    assert len(fresh.memory) == known
    assert first.equals(second)


def test_v_is_left_out_where_it_duplicates_o(tiny_folder, lab: Lab) -> None:
    equal_heads = replace(lab.subject, widths=lab.subject.widths | {"v": lab.subject.widths["o"]})
    notes = lab_for(equal_heads, recipe())
    found = importance(notes, replace(MS, sites=("v", "o"), effect="local"))
    assert set(found["site"]) == {"o"}
    assert "v is left out" in notes.warnings[0]


# ── read-outs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_too_few_refusals_fall_back_visibly(subject: Subject) -> None:
    """12 of 24 prompts cannot give 20 refusals: the gate fails for its size, and the anchor's direction serves."""
    few = recipe()
    bench = lab_for(subject, few)
    found = readouts(bench, next(iter(bench.data.values())))
    assert found["qaa"].origin == "declared"
    assert isinstance(found["qac"].reads, Direction)
    assert any(note.startswith("qac: its own openings do not serve") for note in bench.warnings)


def test_without_a_direction_a_language_is_refused(subject: Subject) -> None:
    tiny = Prompts("organism", limit=8, languages=("qaa", "qab"))
    bench = lab_for(subject, recipe(arms={"ms": Suppress(SafetyNeurons(tiny))}, measures=(ASR(tiny),)))
    with pytest.raises(ModelError, match="effect=local"):
        readouts(bench, next(iter(bench.data.values())))


def test_estimated_openings_are_the_declared_ones(subject: Subject) -> None:
    """The organism declares its openings; taken away, they are read off its responses again."""
    whole = Prompts("organism", languages=("qaa", "qab"))
    study = recipe(arms={"ms": Suppress(SafetyNeurons(whole))}, measures=(ASR(whole),))
    bench = lab_for(replace(subject, openings=None), study)
    found = readouts(bench, next(iter(bench.data.values())))["qaa"]
    assert found.origin == "estimated"
    assert subject.openings is not None
    assert found.reads == subject.openings["qaa"]
    assert found.gate.passed


@pytest.mark.parametrize(
    ("refused", "complied", "expected"),
    [
        ([(1, 2)], [(3, 4)], (((1,),), ((3,),))),
        ([(1, 2), (1, 3)], [(1, 4)], (((1, 2), (1, 3)), ((1, 4),))),
        ([(1, 2, 3)], [(1, 2, 3)], ((), ())),
        ([(5,), (6,), (6,)], [(7,)], (((6,), (5,)), ((7,),))),
    ],
)
def test_openings_grow_until_they_separate(refused, complied, expected) -> None:
    assert estimate_openings(refused, complied) == expected


def test_log_odds_that_cannot_be_trusted_are_not_measured(subject: Subject) -> None:
    tiny = Prompts("organism", limit=8, languages=("qaa", "qab"))
    study = recipe(arms={"ms": Suppress(SafetyNeurons(tiny, effect="local", rule="paper"))}, measures=(ASR(tiny),))
    bench = lab_for(subject, study)
    assert list(collect_log_odds(bench, study, arms_of(bench, study))) == []
    assert bench.warnings[0].startswith("refusal log-odds not measured")


def test_the_direction_speaks_the_units_of_the_log_odds(lab: Lab) -> None:
    """So that a language read along it weighs as much in an average as one read by openings."""
    prompts = next(iter(lab.data.values()))
    found = readouts(lab, prompts)
    assert isinstance(found["qac"].reads, Direction)
    rows = pl.concat([prompts.select("identify", context, "qaa") for context in ("harmful", "harmless")])
    gaps = []
    for reads in (found["qaa"].reads, found["qac"].reads):
        odds = refusal_log_odds(lab.subject, tokens_of(lab, rows), reads)
        gaps.append(float(odds[: PROMPTS.limit].mean() - odds[PROMPTS.limit :].mean()))
    assert gaps[1] == pytest.approx(gaps[0], rel=1e-3)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (MS - MS, "is empty"),
        (MS.only(layers=[99]), "is empty"),
        (MS.only(languages=["qab"]), "no language 'qaa'"),
        (replace(MS, effect="local", rule="harmful", top=0.9), "no random control can be drawn"),
    ],
)
def test_a_set_that_cannot_be_tested_is_found_before_anything_is_generated(lab: Lab, expression, message: str) -> None:
    study = recipe(arms={"x": Suppress(expression)})
    with pytest.raises((DataError, RecipeError), match=message):
        arms_of(lab_for(lab.subject, study), study)


def test_a_set_without_scores_has_no_strongest_member(lab: Lab) -> None:
    study = recipe(arms={"x": Suppress(RandomLike(MS, 1))}, controls=0)
    bench = lab_for(lab.subject, study)
    samples = pl.concat(collect_samples(bench, study, arms_of(bench, study)))
    assert set(samples["role"]) == {"baseline", "tested"}
    assert any("no scores" in note for note in bench.warnings)
