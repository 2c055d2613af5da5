"""Trainings that compose: one language left out, something done to a trained model, sets found again, whole curves."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from ssn_probe.recipes import expand_controls, leave_one_out
from studies import Counts, planned, samples_of, text_of
from training_case import equal

from ssn_probe import (
    ASR,
    Expand,
    LoRA,
    NeuronFile,
    OverRefusal,
    Prompts,
    RandomLike,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Training,
    Utility,
)
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.verify import verify
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import RecipeError
from ssn_probe.model.chat import encode
from ssn_probe.model.subject import load_subject
from ssn_probe.runs.cache import Cache
from ssn_probe.runs.folder import RunFolder
from ssn_probe.study.arms import arms_of
from ssn_probe.study.forecast import forecast
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.plan import make_plan
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.trained_arms import bench_of, trained_for
from ssn_probe.study.trained_weights import data_of, train
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.edits import suppression
from ssn_probe.tracing.generate import generate
from ssn_probe.training.export.merging import written

pytestmark = pytest.mark.slow

PROMPTS = Prompts("organism", languages=("qaa", "qab", "qac"), limit=24)
MS = SafetyNeurons(PROMPTS, top=0.01)
SS = Shared(MS)
QUICK = Training(lr=1e-3, steps=4, batch=8, schedule="constant")
TRAINED = Expand(SS.union(), PROMPTS, training=QUICK)
ARMS = {
    "left out": Expand(SS.union().leave_one_out(), PROMPTS, training=QUICK),
    "then": (TRAINED, Suppress(SS)),
    "ss": replace(TRAINED, at=(1, 4)),
    "random": Expand(RandomLike(SS.union(), seed=3), PROMPTS, training=QUICK, at=(1, 4)),
    "lora": LoRA(SS.union(), PROMPTS, training=QUICK, at=(1, 4)),
}


def study(**changes: Any) -> Recipe:
    measures = (ASR(PROMPTS), OverRefusal(PROMPTS), Utility(PROMPTS))
    fields = {
        "arms": ARMS,
        "sets": {"ms": MS, "again": MS.after(TRAINED)},
        "controls": 1,
        "comparisons": ("labels", "random"),
    }
    fields |= {"label_sets": 1, "log_odds_label_sets": 1}
    quiet = {"permutations": 0, "half_samples": 0, "measures": measures, "name": "study"}
    return Recipe(**(fields | quiet | changes))


def silent(recipe: Recipe, out: Path) -> RunFolder:
    return run_recipe(recipe, Options(out=out), Console(quiet=True))


def lab_of(recipe: Recipe, cache: Path | None = None) -> Workbench:
    kept = None if cache is None else Cache(root=cache)
    return Workbench(subject=load_subject("organism"), data=make_plan(recipe).data, anchor="qaa", cache=kept)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return silent(study(), tmp_path_factory.mktemp("results"))


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_arm_is_there_and_the_run_verifies(run: RunFolder) -> None:
    samples = run.table("samples")
    curves = {(name, step) for name in ("ss", "random", "lora") for step in (1, 4)}
    names = curves | {("left out", None), ("then", None)}
    assert set(samples.filter(role="tested").select("arm", "step").unique().rows()) == names
    controls = samples.filter(role="random").select("arm", "step").unique().rows()
    assert set(controls) == names - {("lora", 1), ("lora", 4)}, "LoRA has no random set"
    assert all(finding.holds for finding in verify(run))
    assert {"curves", "again", "training"} <= {path.stem for path in run.path.glob("*.parquet")}


def test_the_same_again_computes_nothing_and_gives_the_same(run: RunFolder) -> None:
    again = silent(study(), run.path.parent)
    assert again.manifest()["cache"].get("computed", 0) == 0
    for name in ("samples", "summary", "log_odds", "curves", "again", "training"):
        assert (again.path / f"{name}.parquet").read_bytes() == (run.path / f"{name}.parquet").read_bytes()
    assert (again.path / "plots/curves.svg").read_bytes() == (run.path / "plots/curves.svg").read_bytes()


def test_show_finds_all_of_it_in_the_cache(run: RunFolder) -> None:
    found = forecast(study(), out=run.path.parent)
    assert {row.label: row.prompts for row in found.rows} == {label: n for label, n in found.cached.items() if label}


def test_what_is_done_is_what_was_planned(tmp_path: Path) -> None:
    """Also where everything is in the cache."""
    recipe = study(arms={name: ARMS[name] for name in ("left out", "then", "ss")}, log_odds_label_sets=0)
    bench = lab_of(recipe, tmp_path)
    for _ in range(2):
        bench = replace(bench, tracker=Counts(), memory={}, readouts={})
        for step in identify_steps(bench, recipe):
            step.run()
        samples_of(bench, recipe)
        text_of(bench, recipe)
        assert bench.tracker.done == planned(recipe)  # type: ignore[attr-defined]


# ── one language left out ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_language_that_is_left_out_is_in_neither_set_nor_data(tmp_path: Path) -> None:
    """Set and weights for qab are those of a study that has no prompt of qab at all."""
    recipe = study(arms={"left out": ARMS["left out"]}, sets={})
    bench = lab_of(recipe)
    (arm,) = arms_of(bench, recipe)
    trainings = trained_for(bench, arm, ("qaa", "qab", "qac"))
    assert list(trainings) == ["qab", "qac"], "the anchor is not left out"
    node, find = trainings["qab"]
    neurons = find()
    assert data_of(bench, node).languages == ("qaa", "qac")
    seen = replace(PROMPTS, languages=("qaa", "qac"))
    alone = Recipe(sets={"ss": Shared(SafetyNeurons(seen, top=0.01)).union()})
    assert evaluate(lab_of(alone), alone.sets["ss"]) == neurons
    mine = train(bench, node, neurons, "left out: training").file().delta
    theirs = Expand(alone.sets["ss"], seen, training=QUICK)
    elsewhere = lab_of(study(arms={"x": theirs}, sets={}))
    other = train(elsewhere, theirs, neurons, "x: training").file().delta
    assert equal(mine, other)


def test_it_is_evaluated_with_the_model_that_has_not_seen_it(run: RunFolder) -> None:
    samples = run.table("samples").filter(arm="left out", role="tested")
    assert set(samples.select("eval_language", "set_language").unique().rows()) == {("qab", "qab"), ("qac", "qac")}
    assert {path.stem for path in (run.path / "deltas").glob("left out*")} == {
        "left out.without-qab",
        "left out.without-qac",
    }


def test_nothing_can_be_left_out_of_a_set_that_names_it() -> None:
    recipe = study(arms={"x": Expand(MS.of("qab").leave_one_out(), PROMPTS, training=QUICK)}, sets={})
    with pytest.raises(RecipeError, match="qab' is named within"):
        make_plan(recipe)
    two = Prompts("organism", languages=("qaa", "qab"), limit=24)
    few = Expand(Shared(SafetyNeurons(two)).union().leave_one_out(), two, training=QUICK)
    with pytest.raises(RecipeError, match="two more languages"):
        make_plan(study(arms={"x": few}, sets={}))


def test_a_set_per_language_has_nothing_for_the_one_left_out(tmp_path: Path) -> None:
    recipe = study(arms={"x": Suppress(MS.leave_one_out())}, sets={})
    with pytest.raises(RecipeError, match="no neurons of qab") as caught:
        silent(recipe, tmp_path)
    assert ".union()" in (caught.value.hint or "")


# ── train, then ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_silencing_in_a_trained_model_is_both_at_once(run: RunFolder) -> None:
    """By hand: the delta in the weights, the set's neurons at zero, plain generation."""
    recipe = study()
    bench = lab_of(recipe)
    outcome = train(bench, TRAINED, evaluate(bench, TRAINED.neurons), "x")
    rows = load_prompts(PROMPTS).select("evaluate", "harmful", "qac")
    silenced = evaluate(bench, SS).neurons("qac").select("layer", "site", "index").iter_rows()
    with written(bench.subject.model._module, outcome.file().delta):
        tokens = encode(bench.subject, list(rows["text"]))
        made = generate(bench.subject, tokens, edits=suppression(silenced), max_new_tokens=5)
    kept = run.table("samples").filter(arm="then", role="tested", eval_language="qac", context="harmful")
    assert kept["response"].to_list() == [one.text for one in made]
    other = run.table("samples").filter(arm="ss", step=4, role="tested", eval_language="qac", context="harmful")
    assert kept["response"].to_list() != other["response"].to_list()


def test_its_random_sets_are_silenced_in_the_same_trained_model(run: RunFolder) -> None:
    bench = lab_of(study())
    (arm,) = [one for one in arms_of(bench, study()) if one.name == "then"]
    assert arm.training is not None
    assert bench_of(bench, arm, "qab") is bench_of(bench, replace(arm, find=lambda: evaluate(bench, MS.of())), "qab")
    assert "then" in {path.stem for path in (run.path / "deltas").iterdir()}


@pytest.mark.parametrize(
    "arm", [(Suppress(SS), TRAINED), (TRAINED,), (TRAINED, TRAINED), (TRAINED, Suppress(SS), Suppress(MS)), ()]
)
def test_only_training_goes_first_and_something_else_last(arm: tuple) -> None:
    with pytest.raises(RecipeError, match=r"is a tuple of|Expand\(…\) follows a training"):
        study(arms={"x": arm})


def test_one_model_is_trained_before_something_else_is_done() -> None:
    with pytest.raises(RecipeError, match="must be one model"):
        study(arms={"x": (replace(TRAINED, at=(1,)), Suppress(SS))})
    with pytest.raises(RecipeError, match="one trained model"):
        MS.after(ARMS["left out"])  # type: ignore[arg-type]


# ── found again ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_set_that_is_found_again_is_that_of_the_merged_model(run: RunFolder) -> None:
    """The base with the delta written into it for good, as if it were another model."""
    bench = lab_of(study())
    outcome = train(bench, TRAINED, evaluate(bench, TRAINED.neurons), "x")
    with written(bench.subject.model._module, outcome.file().delta):
        merged = evaluate(replace(bench, memory={}, prompt_memory={}, readouts={}, cache=None), MS)
    found = run.table("neurons").filter(set="again").select("language", "layer", "site", "index")
    assert found.sort(found.columns).equals(merged.frame.select(found.columns).sort(found.columns))


def test_before_and_after_are_compared(run: RunFolder) -> None:
    again, neurons = run.table("again"), run.table("neurons")
    for row in again.rows(named=True):
        keys = ["layer", "site", "index"]
        sides = [neurons.filter(set=name, language=row["language"]).select(keys) for name in ("ms", "again")]
        both = sides[0].join(sides[1], on=keys).height
        assert (row["before"], row["after"], row["kept"]) == (sides[0].height, sides[1].height, both)
        assert row["jaccard"] == pytest.approx(both / (row["before"] + row["after"] - both))
        assert 0 < row["expected"] < row["before"]
    assert any(line.startswith("again: of the neurons before training, ") for line in run.manifest()["answer"])
    assert "## The sets before and after training" in (run.path / "report.md").read_text(encoding="utf-8")


# ── curves ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_curve_is_one_training_seen_at_several_steps(run: RunFolder) -> None:
    from ssn_probe.training.delta_file.file import read_delta

    trained = {(one["arm"], one["step"]): one for one in run.manifest()["trained"]}
    for name in ("ss", "random", "lora"):
        files = [read_delta(run.path / "deltas" / f"{name}.at-{step}.safetensors") for step in (1, 4)]
        assert [file.about["steps"]["chosen"] for file in files] == [1, 4]
        assert trained[name, 1]["parameters"] == trained[name, 4]["parameters"]
    training = run.table("training").filter(arm="ss")
    assert training["step"].to_list() == [0, 1, 2, 3, 4]
    assert training.filter(step=0)["probe"].null_count() == 0
    table = run.table("curves")
    assert table["curve"].to_list() == ["untouched", "ss", "ss", "random", "random", "lora", "lora"]
    assert table.filter(curve="random")["group"].to_list() == ["random", "random"]
    assert table.filter(curve="lora")["parameters"][0] <= table.filter(curve="ss")["parameters"][0]


def test_the_table_repeats_the_summary(run: RunFolder) -> None:
    summary, table = run.table("summary"), run.table("curves")
    for row in table.filter(pl.col("step") > 0).rows(named=True):
        cells = summary.filter(arm=row["curve"], step=row["step"], role="tested", language="average")
        for measure in ("asr", "over_refusal", "utility"):
            (cell,) = cells.filter(measure=measure).rows(named=True)
            assert [row[f"{measure}{end}"] for end in ("", "_low", "_high")] == [
                cell[name] for name in ("value", "low", "high")
            ]


def test_the_answer_compares_with_the_random_set_that_is_drawn_like_it(run: RunFolder) -> None:
    lines = [line for line in run.manifest()["answer"] if "random set after " in line]
    assert [line.partition(" less ")[0] for line in lines] == ["ss"]
    samples = run.table("samples").filter(role="tested", context="harmful").filter(pl.col("eval_language") != "qaa")
    asr = {
        (arm, step): rows.group_by("eval_language").agg((pl.col("verdict") == "complied").mean())["verdict"].mean()
        for (arm, step), rows in samples.group_by("arm", "step")
    }
    difference = 100 * (asr["ss", 4] - asr["random", 4])  # type: ignore[operator]
    assert f"after 4 steps: ASR {difference:+.1f} points, 95 % interval" in lines[0]


def test_the_delta_says_what_was_measured_of_it(run: RunFolder) -> None:
    from ssn_probe.training.delta_file.file import read_delta

    measured = read_delta(run.path / "deltas" / "ss.at-4.safetensors").about["measured"]
    assert measured["run"] == run.name
    cell = run.table("summary").filter(arm="ss", step=4, role="tested", measure="asr", language="qac")
    (effect,) = [row for row in measured["effects"] if (row["language"], row["measure"]) == ("qac", "asr")]
    assert (effect["after"], effect["n"]) == (cell["value"][0], cell["n"][0])
    assert {"lora after 4 steps", "random after 4 steps", "1 random set of as many neurons"} <= {
        row["arm"] for row in measured["controls"]
    }
    left = read_delta(run.path / "deltas" / "left out.without-qab.safetensors").about["measured"]
    assert {row["language"] for row in left["effects"]} == {"qab"}


def test_a_curve_cannot_go_beyond_its_training_or_be_the_primary_arm() -> None:
    with pytest.raises(RecipeError, match="up to 4") as caught:
        replace(TRAINED, at=(2, 5))
    assert "rising order" in (caught.value.hint or "")
    epochs = replace(TRAINED, training=Training(epochs=1, batch=8), at=(1, 10_000))
    with pytest.raises(RecipeError, match="the training has 1"):
        make_plan(study(arms={"x": epochs}))
    with pytest.raises(RecipeError, match="one per language or step"):
        study(primary="ss")


# ── what could go wrong without a word ───────────────────────────────────────────────────────────────────────────────


def test_the_union_of_a_set_found_again_leaves_the_anchor_out_too() -> None:
    recipe = study(sets={"one": SS.after(TRAINED).union(), "two": SS.union().after(TRAINED)}, arms={}, measures=())
    bench = lab_of(recipe)
    assert evaluate(bench, recipe.sets["one"]) == evaluate(bench, recipe.sets["two"])


def test_sets_found_again_are_verified_in_the_trained_model_and_the_run_says_so(tmp_path: Path) -> None:
    few = Prompts("organism", languages=("qaa", "qab"), limit=6)
    ms = SafetyNeurons(few, effect="final", rule="harmful", top=0.02, sites=("k",), verify=0.1)
    strong = Expand(ms.union(), PROMPTS, training=replace(QUICK, lr=1e-2))
    recipe = study(sets={"ms": ms, "again": ms.after(strong)}, arms={"strong": strong}, controls=0)
    recipe = replace(recipe, log_odds_label_sets=0, label_sets=0)
    found = silent(recipe, tmp_path)
    table = found.table("verification")
    assert table.select("after", "language").rows() == [
        (name, one) for name in (None, "strong") for one in few.languages or ()
    ]
    before, after = table.drop("after").partition_by("language", maintain_order=True)[0].rows()
    assert before != after, "another model has other effects"
    notes = [note for note in found.manifest()["warnings"] if "verified by ablation" in note]
    assert [note.partition(":")[0] for note in notes] == [
        "effect=final, rule=harmful",
        "effect=final, rule=harmful, after=strong",
    ]
    assert "final, harmful, top 2 %, after strong" in (found.path / "report.md").read_text(encoding="utf-8")
    assert all(finding.holds for finding in verify(found))


def test_figures_before_are_those_of_the_languages_after(tmp_path: Path) -> None:
    """Of qab's neurons applied everywhere the average is over qac alone, and so must be what it is compared with."""
    arm = Expand(MS.of("qab"), PROMPTS, training=QUICK)
    found = silent(study(arms={"x": arm}, sets={}, primary="x", controls=0, log_odds_label_sets=0), tmp_path)
    rows = found.table("summary").filter(measure="asr", language="qac")
    before, after = (100 * rows.filter(role=role)["value"][0] for role in ("baseline", "tested"))
    first = found.manifest()["answer"][0]
    assert re.search(rf"ASR on the average of qac (went )?from {before:.1f} % to {after:.1f} %", first)


def test_fresh_trains_anew(run: RunFolder, tmp_path: Path) -> None:
    recipe = study(arms={"x": TRAINED}, sets={}, controls=0, label_sets=0, log_odds_label_sets=0)
    silent(recipe, tmp_path)
    assert not list(tmp_path.glob("cache/*/checkpoint.safetensors")), "what is done needs no checkpoint"
    silent(recipe, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/delta.*")}
    assert len(times) == 1
    run_recipe(recipe, Options(out=tmp_path, fresh=True), Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/delta.*")} != times


def test_a_random_set_is_no_control_of_another_training() -> None:
    from ssn_probe.study.training_curves import _matched

    hot = Training(lr=1e-2, steps=4, batch=8, schedule="constant")
    arms = ARMS | {"hot": replace(TRAINED, training=hot, at=(1, 4))}
    assert _matched(study(arms=arms)) == {"ss": ["random"]}, "neither the one at another rate nor LoRA has any"


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        (SS.union().leave_one_out().of("qab"), "leave_one_out\\(\\) is within Of"),
        (SS.union().leave_one_out().union(), "leave_one_out\\(\\) is within UnionOf"),
        (SS.union().leave_one_out().each(), "leave_one_out\\(\\) is within Each"),
        ((SS.union() | NeuronFile("x.csv")).leave_one_out(), "may come from the language"),
    ],
)
def test_nothing_brings_back_what_is_left_out(neurons: Any, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text("language,layer,site,index\n*,0,ffn,1\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        make_plan(study(arms={"x": Suppress(neurons)}, sets={}))
    only = study(arms={"x": replace(ARMS["left out"], languages=("qab",))}, sets={})
    with pytest.raises(RecipeError, match="there is none to train on"):
        make_plan(only)


def test_an_arm_that_is_evaluated_nowhere_is_an_error(tmp_path: Path) -> None:
    anchor = replace(PROMPTS, languages=("qaa",))
    recipe = study(arms={"x": ARMS["left out"]}, sets={}, measures=(ASR(anchor),))
    with pytest.raises(RecipeError, match="evaluated in no language"):
        silent(recipe, tmp_path)


def test_a_set_to_train_first_is_looked_at_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "big.csv").write_text("language,layer,site,index\n*,0,ffn,9999\n", encoding="utf-8")
    other = Expand(NeuronFile(str(tmp_path / "big.csv")), PROMPTS, training=QUICK)
    for recipe in (study(arms={"x": other.then(Suppress(SS))}, sets={}), study(arms={}, sets={"x": MS.after(other)})):
        with pytest.raises(RecipeError, match="which the model does not have"):
            silent(replace(recipe, measures=recipe.measures if recipe.arms else ()), tmp_path / "results")


def test_ids_that_are_learned_and_measured_are_said() -> None:
    from ssn_probe.report.cautions_on_data import learned_and_measured

    recipe = study()
    data = make_plan(recipe).data
    assert learned_and_measured(recipe, data) == []
    frame = data[PROMPTS].frame
    same = frame.filter(split="evaluate")["prompt_id"][0]
    moved = pl.when(pl.col("split") == "train").then(pl.lit(same)).otherwise("prompt_id").alias("prompt_id")
    leaking = {PROMPTS: replace(data[PROMPTS], frame=frame.with_columns(moved))}
    assert "have 1 id in common" in learned_and_measured(recipe, leaking)[0]


# ── sets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_shared_neurons_of_any_language_leave_the_anchor_out() -> None:
    """The anchor's own row is its whole MS: with it the union would be that, and no more."""
    bench = lab_of(study())
    shared, union = evaluate(bench, SS), evaluate(bench, SS.union())
    assert union == shared.only(languages=["qab", "qac"]).union()
    assert len(union) < len(evaluate(bench, MS.of("qaa")))


def test_whole_layers_are_every_neuron_of_the_layers_that_a_set_touches() -> None:
    recipe = Recipe(sets={"whole": MS.only(layers=[1, 3]).whole_layers(), "of": MS.of()})
    bench = lab_of(recipe)
    found = evaluate(bench, recipe.sets["whole"])
    widths = {place: width for place, width in bench.widths().items() if place[0] in (1, 3)}
    counts = {(layer, site): n for layer, site, n in found.frame.group_by("layer", "site").len().iter_rows()}
    assert counts == widths
    assert found.language_free
    assert evaluate(bench, recipe.sets["of"]) == evaluate(bench, MS.of("qaa")), "the anchor's, where none is named"


def test_the_shipped_recipes_spend_the_same_rows() -> None:
    controls = expand_controls(random=2)
    edits = [name for name in controls.arms if name.startswith("edit")]
    trainings = {name: (arm.training, arm.data, arm.at) for name, arm in controls.arms.items() if name not in edits}
    assert len({repr(spent) for spent in trainings.values()}) == 1
    assert list(trainings)[-5:] == ["random 1", "random 2", "lora", "nest", "layers"]
    assert [controls.arms[name].rank for name in edits] == [1, 2, 4]
    assert {arm.data for arm in controls.arms.values()} == {controls.arms["lora"].data}
    assert "layers" not in expand_controls(full=False).arms
    assert not [name for name in expand_controls(rivals=False).arms if name.startswith(("nest", "edit"))]
    assert not [name for name in expand_controls(answers=False).arms if name.startswith("edit")], "nothing to keep"
    left = leave_one_out()
    assert left.primary == "left out"
    assert left.arms["left out"].neurons.neurons == left.arms["seen"].neurons
