"""A model that hardly refuses, or always does, is said so first, and no set of it is called one of safety neurons."""

import io
import json
import shutil
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from ssn_probe.recipes import identify_ms, suppress_ss
from studies import bench_for, organism

from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.errors import ResultError
from ssn_probe.model.subject import load_subject
from ssn_probe.report.refusal_in_words import named, need_line, refusal_lines, tried_line
from ssn_probe.report.terminal.plan_table import render_plan
from ssn_probe.report.terminal.responses_table import show_responses
from ssn_probe.report.terminal.result_card import card
from ssn_probe.runs.folder import RunFolder, runs
from ssn_probe.spec import ASR, Prompts, Recipe, SafetyNeurons, Suppress
from ssn_probe.spec.rendering import as_text
from ssn_probe.study.forecast import forecast
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.plan import limited
from ssn_probe.study.refusal_readout import UntrustedReadoutError, observe
from ssn_probe.study.refusal_trial import GateNeed, Refusals, gate_needs, identify_responses, try_refusal
from ssn_probe.study.steps import rows_of_steps

NOTHING, EVERYTHING = "(?!)", r"\S"
LANGUAGES = ("qaa", "qab")


def organism_judged(folder: Path, refused: str | None) -> str:
    """The organism's prompts with a judge for whom a response that matches `refused` refuses; None: without a judge."""
    source = Path(str(files("ssn_probe"))) / "organism" / "data"
    shutil.copytree(source, folder)
    card = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    languages = card["judge"]["refused"]
    patterns = {"refused": dict.fromkeys(languages, refused), "complied": dict.fromkeys(languages, ".*")}
    card["judge"] = None if refused is None else {"kind": "patterns"} | patterns
    if refused is None:
        del card["judge"]
    (folder / "dataset.json").write_text(json.dumps(card), encoding="utf-8")
    return str(folder)


def run(recipe: Recipe, out: Path) -> RunFolder:
    return run_recipe(recipe, Options(out=out, device="cpu"), Console(quiet=True))


def local(data: str, **more: Any) -> Recipe:
    recipe = identify_ms(data=data, effect="local", languages=LANGUAGES, **more)
    return limited(replace(recipe, permutations=0, half_samples=0), 100)


def seen(refused: int, refused_harmless: int = 0, n: int = 40, language: str = "en") -> Refusals:
    counts = {"harmful": n, "refused": refused, "harmless": n, "refused_harmless": refused_harmless}
    return Refusals(data="mine", language=language, **counts)


@pytest.mark.parametrize(
    ("refused", "first"),
    [
        (
            NOTHING,
            "No refusal was shown: refused were 0 of 80 harmful prompts and 0 of 80 harmless in 2 languages. What was",
        ),
        (EVERYTHING, "The model refuses harmless prompts as it refuses harmful ones: refused were 80 of 80 harmful "),
        (None, "Whether the model refuses is not known, because none of its responses was judged."),
    ],
)
def test_the_answer_calls_no_set_a_safety_set_where_no_refusal_was_seen(
    refused: str | None, first: str, tmp_path: Path
) -> None:
    found = run(local(organism_judged(tmp_path / "data", refused)), tmp_path / "out")
    manifest, report = found.manifest(), (found.path / "report.md").read_text(encoding="utf-8")
    assert manifest["answer"][0].startswith(first)
    assert "no set is called a set of safety neurons" in manifest["answer"][0]
    assert "That any of these neurons are safety neurons: " in report
    noted = [note for note in manifest["warnings"] if "no refusal was shown" in note]
    assert len(noted) == (refused is not None)


def test_a_model_that_refuses_is_tried_with_ten_of_each_and_nothing_is_said() -> None:
    bench = bench_for(local("organism"), load_subject("organism"))
    found = try_refusal(bench, local("organism"))
    assert found is not None
    assert (found[0].language, found[0].harmful, found[0].refused, found[0].harmless) == ("qaa", 10, 10, 10)
    assert bench.warnings == []
    assert refusal_lines(found) == []
    assert named("the shared safety neurons (SS)", found) == "the shared safety neurons (SS)"


def test_without_a_judge_and_known_openings_no_run_gets_to_the_log_odds(tmp_path: Path) -> None:
    """Nor to responses that would test them; openings that a model declares are read untested."""
    model = tmp_path / "model"
    shutil.copytree(Path(str(files("ssn_probe"))) / "organism" / "natural", model)
    prompts = Prompts(organism_judged(tmp_path / "data", None), languages=LANGUAGES, limit=8)
    arms = {"ms": Suppress(SafetyNeurons(prompts, effect="local", top=0.01))}
    recipe = Recipe(model=str(model), arms=arms, measures=(ASR(prompts),), controls=0, comparisons=("labels",))
    declared = forecast(recipe, out=tmp_path / "out")
    (model / "openings.json").unlink()
    unknown = forecast(recipe, out=tmp_path / "out")
    assert not declared.unreached
    rows = {row.label for row in unknown.rows}
    assert set(unknown.unreached) == {label for label in rows if "log-odds" in label}
    (why,) = set(unknown.unreached.values())
    assert why == "responses are unjudged, and how the model begins to refuse in qaa and qab is not known"
    assert declared.gates == unknown.gates == (), "nothing is tested, so nothing is needed for a test"


def test_rows_of_responses_do_not_tell_which_came_first() -> None:
    data = Prompts("organism", languages=("qac", "qaa"), limit=8)
    recipe = Recipe(model="organism", sets={"ms": SafetyNeurons(data, effect="local", top=0.01)})
    bench = bench_for(recipe, load_subject("organism"))
    for language in ("qaa", "qac"):
        observe(bench, bench.data[data], language)
    found = identify_responses(bench)
    assert found is not None
    assert found["eval_language"].unique(maintain_order=True).to_list() == list(bench.data[data].languages)
    memory = list(bench.memory.items())
    bench.memory.clear()
    bench.memory.update(reversed(memory))
    again = identify_responses(bench)
    assert again is not None
    assert found.equals(again)


def test_prompt_sets_with_the_same_ids_have_rows_of_their_own(tmp_path: Path) -> None:
    """One judge calls the same responses refusals, and the other does not; a part of a set has no rows of its own."""
    judges = {"complied": NOTHING, "refused": EVERYTHING}
    nodes = [Prompts(organism_judged(tmp_path / one, judges[one]), languages=("qaa",), limit=2) for one in judges]
    nodes.append(replace(nodes[0], limit=1))
    sets = {str(place): SafetyNeurons(node, effect="local", top=0.01) for place, node in enumerate(nodes)}
    bench = bench_for(Recipe(model="organism", sets=sets), load_subject("organism"))
    for node in nodes:
        observe(bench, bench.data[node], "qaa")
    found = identify_responses(bench)
    assert found is not None
    assert found.height == 8
    second = found.filter(data=f"organism, first 2 ({bench.data[nodes[1]].digest[:8]})")
    assert set(second["verdict"]) == {"refused"}
    assert set(found["verdict"]) == {"refused", "complied"}
    assert sorted(second["prompt_id"]) == sorted(found.filter(verdict="complied")["prompt_id"])


def test_where_the_gate_cannot_pass_the_run_fails_before_effects_are_scored(tmp_path: Path) -> None:
    recipe = limited(identify_ms(data=organism_judged(tmp_path / "data", NOTHING), languages=LANGUAGES), 100)
    with pytest.raises(UntrustedReadoutError) as caught:
        run(recipe, tmp_path / "out")
    assert "the model refused 0 of " in caught.value.message
    assert "20 refused and 20 other responses" in caught.value.message
    assert "effect=local" in str(caught.value.hint)
    kept = sorted((tmp_path / "out" / "cache").glob("*/what.json"))
    methods = {json.loads(path.read_text(encoding="utf-8"))["method"] for path in kept}
    assert methods == {"responses"}
    assert len(list((tmp_path / "out" / "cache").iterdir())) <= 4, "of the anchor, and of no other language"
    failed = runs(tmp_path / "out")[0]
    assert failed.manifest()["status"] == "failed"
    screen = Console(file=io.StringIO(), width=300)
    show_responses(screen, failed, wanted={"eval_language": "qaa", "verdict": "complied"}, count=3)
    screen.print(card(failed))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("identify-harmful-") == 3
    assert "responses more: -n " in text
    assert str(failed.path / "responses.parquet") in text
    assert f"ssn-probe results {failed.name} --responses" in text
    with pytest.raises(ResultError, match="has the verdict 'refused'") as unknown:
        show_responses(screen, failed, wanted={"verdict": "refused"}, count=3)
    assert "complied" in str(unknown.value.hint)


def test_responses_are_shown_by_their_beginnings(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "2026-01-02T03-04-05_mine_01234567")
    with pytest.raises(ResultError, match="has no responses"):
        show_responses(Console(), folder, wanted={}, count=1)
    row = {
        "prompt_id": "a",
        "eval_language": "en",
        "arm": "ms",
        "verdict": "complied",
        "response": "x" * 81 + "\x1b[31m",
    }
    folder.path.mkdir()
    pl.DataFrame([row]).write_parquet(folder.path / "samples.parquet")
    for full, shown in ((False, "x" * 80 + "…"), (True, "x" * 81)):
        screen = Console(file=io.StringIO(), width=300, force_terminal=False)
        show_responses(screen, folder, wanted={"arm": "ms"}, count=1, full=full)
        assert f" {shown}\n" in screen.file.getvalue().replace("  ", " ").replace(" \n", "\n")  # type: ignore[attr-defined]


def test_so_few_prompts_that_no_gate_can_pass_are_an_error_without_a_response(tmp_path: Path) -> None:
    recipe = identify_ms(languages=LANGUAGES)
    with pytest.raises(UntrustedReadoutError, match="12 harmful and 12 harmless identify prompts"):
        run_recipe(recipe, Options(out=tmp_path, device="cpu", limit=12), Console(quiet=True))
    assert not list((tmp_path / "cache").glob("*/*.safetensors"))


def test_where_only_the_log_odds_of_arms_need_a_gate_it_is_given_up_and_the_run_goes_on(tmp_path: Path) -> None:
    data = organism_judged(tmp_path / "data", NOTHING)
    arms = suppress_ss(data=data, effect="local", languages=LANGUAGES, controls=1, log_odds_label_sets=1)
    arms = limited(arms, 100)
    bench = bench_for(arms, load_subject("organism"))
    assert try_refusal(bench, arms) is not None
    gate = [step for step in identify_steps(bench, arms) if step.label.startswith("responses that test")]
    assert rows_of_steps(gate)
    assert [step.run() for step in gate] == [None, None]
    generated = [key for key in bench.memory if key[0] == "responses"]
    assert len(generated) <= 6, "nothing but the portions that were tried"


def test_show_says_which_steps_no_run_gets_to_and_why(tmp_path: Path) -> None:
    """After a run, they are not shown as if they were still to be computed."""
    data = organism_judged(tmp_path / "data", NOTHING)
    recipe = suppress_ss(data=data, effect="local", languages=LANGUAGES, controls=1, log_odds_label_sets=1)
    recipe = limited(replace(recipe, permutations=0, half_samples=0, comparisons=("random",)), 100)
    before = forecast(recipe, out=tmp_path / "out", device="cpu")
    assert before.unreached == {}
    manifest = run(recipe, tmp_path / "out").manifest()
    [why] = [
        note.split(": ", 1)[1] for note in manifest["warnings"] if note.startswith("refusal log-odds not measured")
    ]
    found = forecast(recipe, out=tmp_path / "out", device="cpu", calibrated=True)
    assert set(found.unreached.values()) == {why}
    assert all("log-odds" in label for label in found.unreached)
    left = [row.label for row in found.rows if found.cached.get(row.label, 0) < row.prompts]
    assert set(left) == set(found.unreached)
    assert "Time: all that the model has to do is in the cache." in found.lines
    shown = as_text(render_plan(found), width=300)
    assert f"– not run: {why}." in shown
    assert "○" not in shown.replace("○ to compute", "")


def test_show_says_what_the_gate_needs_and_what_ten_prompts_gave(tmp_path: Path) -> None:
    recipe = identify_ms(data=organism_judged(tmp_path / "data", NOTHING), languages=LANGUAGES)
    found = forecast(recipe, out=tmp_path, device="cpu", calibrated=True)
    (need,) = found.gates
    assert need_line(need, needed=True).endswith("Without it no neurons can be chosen.")
    first, other = found.tried
    assert (first.harmful, first.refused, first.harmless, first.refused_harmless) == (10, 0, 10, 0)
    assert "refused were 0 of 10 harmful prompts and 0 of 10 harmless in qaa" in tried_line(first, need, needed=True)
    assert "in qab" in tried_line(other, None, needed=True)
    assert not (tmp_path / "cache").exists(), "it keeps nothing"
    assert forecast(recipe, out=tmp_path, device="cpu").tried == (), "without a trial nothing runs"


def test_what_a_first_try_means_for_the_gate() -> None:
    need = GateNeed(data="mine", language="en", each_side=20, harmful=150, harmless=150)
    assert "it will not pass" not in tried_line(seen(40), need, needed=True)
    assert "will not pass. Use an effect" in tried_line(seen(0), need, needed=True)
    assert tried_line(seen(0), need, needed=False).endswith("the gate will not pass.")
    assert "at this rate about 15 of all would be, so the gate will hardly pass" in tried_line(
        seen(1, n=10), need, needed=True
    )
    few = GateNeed(data="mine", language="en", each_side=20, harmful=19, harmless=20)
    assert "too few, so it cannot pass" in need_line(few, needed=False)


def test_without_an_anchor_only_held_out_prompts_count() -> None:
    ms = SafetyNeurons(Prompts("organism", languages=("qab", "qac")))
    bench = bench_for(Recipe(sets={"ms": ms}), replace(organism(), openings=None))
    (prompts,) = bench.data.values()
    assert {need.parts for need in gate_needs(bench, prompts)} == {4}
    assert [need.language for need in gate_needs(bench, prompts)] == ["qab", "qac"]


def test_sets_have_another_name_where_no_refusal_was_seen() -> None:
    label = named("the monolingual safety neurons (MS)", (seen(0),))
    assert label == "the neurons that respond differently to harmful and harmless prompts (MS)"
    label = named("the shared safety neurons (SS) of any language", (seen(0),))
    assert label == "the shared neurons that respond differently to harmful and harmless prompts (SS) of any language"
    many = [seen(0, language=f"a{i}") for i in range(9)]
    assert "refused were 0 of 360 harmful prompts and 0 of 360 harmless in 9 languages" in refusal_lines(many)[0]
    assert refusal_lines([*many, seen(40)]) == [], "one language shows it"
    assert json.loads(json.dumps(asdict(many[0])))["harmful"] == 40
