"""Python and notebooks: what can be asked, that it is the command line's own run, and what a result gives."""

import inspect
import json
import linecache
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal
from ssn_probe.recipes import identify_ms, suppress_ss
from stored import stored_run

from ssn_probe import (
    ASR,
    Amplify,
    Expand,
    NeuronFile,
    Prompts,
    Recipe,
    Result,
    SafetyNeurons,
    Shared,
    Suppress,
    evaluate,
    open_run,
    preview,
    recipe,
    run,
)
from ssn_probe.api.python import _asked
from ssn_probe.api.runner import Options
from ssn_probe.cli.commands import main
from ssn_probe.errors import ModelError, RecipeError, ResultError
from ssn_probe.neurons import NeuronSet

MS = SafetyNeurons(Prompts("organism"), effect="local", rule="paper")
LIMIT = 20
SMALL = """
from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress, recipe


@recipe
def small(model: str = "organism", controls: int = 3):
    \"\"\"Is a run from Python the command line's own?\"\"\"
    prompts = Prompts("organism", languages=("qaa", "qab", "qac"))
    ms = SafetyNeurons(prompts, effect="local", rule="paper")
    return Recipe(
        model=model,
        sets={"ms": ms},
        arms={"ss": Suppress(Shared(ms))},
        controls=controls,
        log_odds_label_sets=0,
        permutations=99,
        half_samples=0,
        measures=(ASR(prompts),),
        primary="ss",
    )
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One results folder, so that its cache serves every test."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def small(out: Path) -> Path:
    """A recipe's file."""
    (out / "small.py").write_text(SMALL, encoding="utf-8")
    return out / "small.py"


@pytest.fixture(scope="module")
def result(small: Path, out: Path) -> Result:
    return run(small, out=out, limit=LIMIT, progress=False, controls=1)


# ── the same run as the command line's ───────────────────────────────────────────────────────────────────────────────


def test_it_is_the_command_lines_run(result: Result, small: Path, tmp_path: Path) -> None:
    arguments = ["run", str(small), "-T", "controls=1", "--limit", str(LIMIT), "-o", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    other = open_run(out=tmp_path)
    assert other.manifest["key"] == result.manifest["key"]
    assert other.path.name.rpartition("_")[2] == result.path.name.rpartition("_")[2]
    assert other.manifest["arguments"] == result.manifest["arguments"]
    assert {path.name for path in other.path.iterdir()} == {path.name for path in result.path.iterdir()}
    for name in ("recipe.json", "recipe.py"):
        assert (other.path / name).read_text(encoding="utf-8") == (result.path / name).read_text(encoding="utf-8")
    for name in ("samples", "neurons", "summary"):
        assert_frame_equal(other.table(name), result.table(name))
    assert other.answer == result.answer


def test_a_result_gives_its_tables_and_its_sets(result: Result) -> None:
    assert result.samples.height > 0
    assert result.summary["measure"][0] == "asr"
    assert set(result.overlap["set"]) == {"ms"}
    assert result.table("nulls").height > 0
    assert result.answer.startswith("Silencing the shared safety neurons")
    assert result.recipe.name == "small"
    sets = result.neurons
    assert list(sets) == ["ms", "ss"]
    assert isinstance(sets["ms"], NeuronSet)
    assert sets["ms"].languages == ("qaa", "qab", "qac")
    assert sets["ss"] == sets["ms"] & sets["ms"].of("qaa"), "what is shared is what is the anchor's, too"
    assert len(sets["ms"]) == result.table("neurons").filter(set="ms").height
    with pytest.raises(ResultError, match="the run has no set 'mss'\nDid you mean"):
        sets["mss"]
    assert "mss" not in sets


def test_a_language_without_neurons_is_still_a_language(tmp_path: Path) -> None:
    found = stored_run(tmp_path, sets={"ms": {"aa": 1, "bb": 0}})
    row = {"set": "ms", "language": "aa", "layer": 0, "site": "q", "index": 3, "score": 0.5, "rank": 1}
    pl.DataFrame([row]).write_parquet(tmp_path / "neurons.parquet")
    neurons = Result(found).neurons["ms"]
    assert neurons.languages == ("aa", "bb")
    assert neurons.neurons("bb").is_empty()


def test_it_is_found_again(result: Result, out: Path) -> None:
    assert open_run(out=out).path.resolve() == (out / "latest").resolve()
    assert open_run(result.path) == Result(replace(result.folder, path=result.path.resolve()))
    with pytest.raises(ResultError, match="no run 'nothing'"):
        open_run("nothing", out=out)


def test_a_run_that_failed_shows_how(tmp_path: Path) -> None:
    found = Result(stored_run(tmp_path, status="failed", error="[red]the disk[/red] is full"))
    assert str(found) == f"{tmp_path.name}: failed. [red]the disk[/red] is full"


def test_its_json_runs_again(result: Result, out: Path) -> None:
    again = run(result.path / "recipe.json", out=out, progress=False)
    assert again.manifest["key"] == result.manifest["key"]


# ── what can be asked ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_expression_is_found(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = run(Shared(MS), model="organism", out=out, limit=LIMIT, progress=False, permutations=99, half_samples=0)
    assert list(found.neurons) == ["ss"]
    assert found.recipe.permutations == 99
    assert capfd.readouterr() == ("", "")
    for table in ("samples", "summary"):
        with pytest.raises(ResultError, match="does not make this table"):
            getattr(found, table)
    assert "\n**\n" not in (found.path / "report.md").read_text(encoding="utf-8")


def test_a_set_alone_is_what_the_run_found_and_nothing_is_measured_again(
    result: Result, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, whole, found = {path for path in out.glob("*/*")}, result.recipe, result.neurons
    ss, ms = whole.arms["ss"].neurons, whole.sets["ms"]
    assert evaluate(ms, model="organism", out=out, progress=False) == found["ms"]
    assert evaluate(ss, model=whole.model, out=out, progress=False) == found["ss"]
    assert capfd.readouterr() == ("", "")
    beyond = evaluate((ms - ss) | ms.of("qab"), model="organism", out=out)
    assert beyond == (found["ms"] - found["ss"]) | found["ms"].of("qab")
    assert "local effect of every neuron" in capfd.readouterr().out
    assert {path for path in out.glob("*/*")} == before, "no run, and no entry of the cache"


def test_a_part_of_a_recipe_measures_nothing_that_the_whole_did(result: Result, out: Path) -> None:
    before = {path.parent for path in out.glob("cache/*/what.json")}
    for name in ("ss", "ms"):
        alone = run(result.recipe.part(name), out=out, progress=False)
        assert alone.neurons[name] == result.neurons[name]
        assert alone.manifest["cache"]["read"] > 0
        if name == "ss":
            assert_frame_equal(alone.summary, result.summary)
            assert_frame_equal(alone.comparisons, result.comparisons)
    new = {path for path in out.glob("cache/*/what.json") if path.parent not in before}
    methods = {json.loads(path.read_text(encoding="utf-8"))["method"] for path in new}
    assert methods <= {"null"}, "the null of fewer sets, which is made of the same effects"


@pytest.mark.parametrize("what", [Suppress(Shared(MS)), MS.each(), "suppress_ss", Recipe(sets={"ms": MS})])
def test_what_is_no_set_is_not_evaluated(what: Any) -> None:
    with pytest.raises(RecipeError, match="is no set of neurons"):
        evaluate(what, model="organism")


def test_progress_is_shown(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(MS, model="organism", out=out, limit=LIMIT, permutations=0, half_samples=0)
    assert "local effect of every neuron" in capsys.readouterr().out


def test_a_set_is_named_after_its_kind_and_an_arm_is_measured_as_suppress_ss_is() -> None:
    for expression, name in ((MS, "ms"), (Shared(MS), "ss"), (Shared(MS, at_least=2), "set"), (MS - MS, "set")):
        asked = _asked(expression, "organism", {}).recipe
        assert (asked.name, dict(asked.sets)) == (name, {name: expression})
    asked = _asked(Suppress(Shared(MS)), "m", {"controls": 3, "seed": 5}).recipe
    shipped = suppress_ss(model="m", effect="local", rule="paper", controls=3, seed=5)
    assert asked.arms == {"suppress": shipped.arms["ss"]}
    assert asked.measures == shipped.measures
    assert (asked.primary, asked.controls, asked.seed, asked.model) == ("suppress", 3, 5, "m")
    assert _asked(Amplify(MS.each(), by=2), "m", {}).recipe.primary is None, "one arm per language is no one test"
    curve = Expand(MS.of(), Prompts("organism"), at=(1, 2))
    assert _asked(curve, "m", {}).recipe.primary is None, "nor is a whole curve"


@pytest.mark.parametrize(
    "arm", [Suppress(NeuronFile("x.csv")), Suppress(MS | SafetyNeurons(Prompts("organism", limit=9), top=0.1))]
)
def test_what_to_measure_an_arm_on_must_be_plain(arm: Any) -> None:
    with pytest.raises(RecipeError, match="cannot tell which prompt set to measure the arm on") as error:
        run(arm, model="organism")
    assert "measures=(ASR(prompts)" in str(error.value.hint)


def test_a_declared_recipe_takes_its_parameters() -> None:
    asked = _asked(suppress_ss, "m", {"controls": 5, "top": None})
    assert asked.recipe == suppress_ss(model="m", controls=5)
    assert asked.arguments == {"controls": "5", "top": "None", "model": "m"}
    assert asked.source == Path(inspect.getfile(suppress_ss.build)).read_text(encoding="utf-8")


def test_a_name_and_a_file_stand_for_a_recipe(tmp_path: Path) -> None:
    assert _asked("suppress_ss", None, {"controls": 5}).recipe == suppress_ss(controls=5)
    path = tmp_path / "mine.py"
    path.write_text(inspect.getsource(inspect.getmodule(identify_ms.build)), encoding="utf-8")  # type: ignore[arg-type]
    asked = _asked(path, "m", {"top": 0.01})
    assert asked.recipe == identify_ms(model="m", top=0.01)
    executed = path.read_text(encoding="utf-8")
    path.write_text("changed since", encoding="utf-8")
    assert asked.source == executed


def test_the_cell_of_a_notebook_is_kept() -> None:
    """IPython keeps a cell's text where Python looks for source lines, under a file name that is no file."""
    cell = "@recipe\ndef mine(top: float = 0.1):\n    return Recipe(sets={'ms': MS})\n"
    name = "/nowhere/ipykernel/1.py"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"recipe": recipe, "Recipe": Recipe, "MS": MS}
    exec(compile(cell, name, "exec"), scope)
    assert _asked(scope["mine"], None, {}).source == cell


def test_a_model_replaces_the_recipes_own() -> None:
    made = Recipe(sets={"ms": MS}, name="mine", question="Which?")
    assert _asked(made, None, {}).recipe == made
    assert _asked(made, "other", {}).recipe == replace(made, model="other")
    assert _asked(made, Path("folder"), {}).recipe.model == "folder"


@pytest.mark.parametrize(
    ("what", "given", "words"),
    [
        (Shared(MS), {}, "names no model"),
        (MS, {"model": "organism", "control": 3}, "Did you mean 'controls'"),
        (MS, {"model": "organism", "measures": ()}, "takes no parameter 'measures'"),
        (Recipe(sets={"ms": MS}), {"controls": 3}, "parameters of a Recipe are settled"),
        ("recipe.json", {"controls": 3}, "recipe.json"),
        (suppress_ss, {"control": 3}, "Did you mean 'controls'"),
        (suppress_ss, {"results": "folder"}, "has no parameter 'results'\nKnown: model, data, .*, out, batch_size, "),
        (suppress_ss, {"limt": 3}, "Did you mean 'limit'"),
        ("suppress_ss", {"outt": "folder"}, "Did you mean 'out'"),
        (MS, {"model": "organism", "limt": 3}, "Did you mean 'limit'"),
        ("supress_ss", {}, "Did you mean 'suppress_ss'"),
        (ASR(Prompts("organism")), {}, "a ASR cannot be run"),
        (MS.each(), {"model": "organism"}, "cannot be run"),
        (suppress_ss.build, {}, "a function cannot be run"),
        (None, {}, "cannot be run"),
        (suppress_ss, {"limit": 0}, "limit is 0"),
        (suppress_ss, {"limit": "5"}, "limit is '5'"),
        (suppress_ss, {"batch_size": 0}, "batch_size is 0"),
        (suppress_ss, {"batch_size": True}, "batch_size is True"),
    ],
)
def test_a_mistake_is_told_before_anything_is_loaded(
    what: Any, given: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=words):
        run(what, progress=False, **given)
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        run(identify_ms, model=tmp_path / "none", out=tmp_path / "results", progress=False)
    assert not list((tmp_path / "results").glob("2*"))


def test_every_setting_reaches_the_runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ssn_probe.api import runner

    seen: list[Options] = []

    def noted(_recipe: Recipe, options: Options, _console: object) -> Any:
        seen.append(options)
        return stored_run(tmp_path)

    monkeypatch.setattr(runner, "run_recipe", noted)
    given: dict[str, Any] = {"device": "cpu", "dtype": "float32", "limit": 3, "fresh": True}
    run(identify_ms, out=str(tmp_path), batch_size=7, **given)
    run(identify_ms, batch_size="auto")
    assert {name: getattr(seen[0], name) for name in given} == given
    assert (seen[0].out, seen[0].batch_size) == (tmp_path, 7)
    assert seen[1].batch_size is None
    assert seen[1] == Options(source=seen[0].source), "the same defaults as the runner's"


# ── before a run ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_preview_is_what_show_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["show", "suppress_ss", "-T", "controls=3", "--limit", "9", "--no-time"]
    done = CliRunner().invoke(main, arguments, env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    printed = [line.rstrip() for line in done.output.splitlines()]
    assert printed == str(preview(suppress_ss, controls=3, limit=9, time=False)).splitlines()
    assert not list(tmp_path.iterdir()), "it runs nothing"


def test_any_question_can_be_previewed() -> None:
    few = SafetyNeurons(Prompts("organism", languages=("qaa", "qab")), effect="local")
    text = str(preview(few, model="organism", limit=5))
    assert "local effect of every neuron" in text
    assert "Time: about" in text
    with pytest.raises(RecipeError, match="names no model"):
        preview(MS)


# ── the notebook ─────────────────────────────────────────────────────────────────────────────────────────────────────


NOTEBOOKS = ("first_answer", "own_recipe", "remote_study", "scores_against_truth")


def test_every_notebook_is_known() -> None:
    found = (Path(__file__).parents[2] / "notebooks").glob("*.ipynb")
    assert {path.stem for path in found} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_as_it_ran(name: str) -> None:
    """It ran from top to bottom without a warning, loads nothing, and shows nothing of the machine that it ran on."""
    path = Path(__file__).parents[2] / "notebooks" / f"{name}.ipynb"
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"execute_result", "display_data", "stream"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    text = json.dumps(outputs)
    for word in ("/home", "/root", "/tmp", "/work", "\\u001b", "site-packages", "<script", "src=", "href="):
        assert word not in text, word
    assert "prompts: " in text, "progress, as it ended"
    assert "━" not in text, "and no bar of it"
