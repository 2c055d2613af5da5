"""A whole run on the organism, small enough for a test: the folder it leaves, and whether its tables agree."""

import errno
import json
from pathlib import Path

import polars as pl
import pytest
from prompt_rows import organism_set
from rich.console import Console

from ssn_probe import ASR, OverRefusal, Prompts, Recipe, SafetyNeurons, Shared, Suppress, Utility
from ssn_probe.api.pages import write_pages
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.verify import verify
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.runs.folder import RunFolder
from ssn_probe.study.summary import AVERAGE

CONTROLS, LOG_ODDS_CONTROLS, LIMIT = 2, 3, 40


def small_recipe(**changes) -> Recipe:
    prompts = Prompts("organism")
    ms = SafetyNeurons(prompts)
    fields = {
        "arms": {"ms": Suppress(ms), "ss": Suppress(Shared(ms))},
        "label_sets": 2,
        "controls": CONTROLS,
        "log_odds_label_sets": LOG_ODDS_CONTROLS,
        "measures": (ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        "primary": "ss",
        "name": "small",
        "question": "Is <b>this</b> | a question?",
    }
    return Recipe(**(fields | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_recipe(small_recipe(), Options(out=tmp_path_factory.mktemp("results"), limit=LIMIT), Console(quiet=True))


def test_the_manifest_says_what_was_done(run: RunFolder) -> None:
    manifest = run.manifest()
    assert (run.path.parent / "latest").resolve() == run.path.resolve()
    assert manifest["status"] == "done"
    assert manifest["model"]["digest"]
    assert manifest["data"][0]["limit"] == LIMIT
    assert set(manifest["seconds"]) >= {"load", "identify", "generate", "log_odds", "summarise"}
    assert manifest["packages"]["torch"].startswith("2.")
    assert manifest["answer"][0].startswith("Silencing the shared safety neurons")
    assert r"Is \<b\>this\</b\> \| a question?" in (run.path / "report.md").read_text(encoding="utf-8")


def test_every_arm_answers_every_prompt(run: RunFolder) -> None:
    samples = run.table("samples")
    counts = {(arm, role): number for arm, role, number in samples.group_by("arm", "role").len().iter_rows()}
    everything = 7 * 3 * LIMIT  # languages, contexts
    assert counts["baseline", "baseline"] == counts["ss", "tested"] == everything
    assert counts["ms", "tested"] == counts["ms", "without top neuron"] == everything
    assert counts["ss", "random"] == CONTROLS * 6 * LIMIT  # the anchor's SS is its MS and is left out
    assert samples["error"].null_count() == samples.height
    tested = samples.filter(role="tested")
    assert (tested["set_language"] == tested["eval_language"]).all()


def test_the_anchors_shared_set_is_its_monolingual_set(run: RunFolder) -> None:
    neurons = run.table("neurons").filter(language="qaa").select("layer", "site", "index", "set")
    ms, ss = (neurons.filter(set=name).drop("set").sort("layer", "site", "index") for name in ("ms", "ss"))
    assert ms.equals(ss)


def test_a_run_without_arms_identifies_only(tmp_path: Path) -> None:
    ms = SafetyNeurons(Prompts("organism", languages=("qaa", "qab")), effect="local", rule="paper")
    found = run_recipe(Recipe(sets={"ms": ms}, name="sets"), Options(out=tmp_path, limit=20), Console(quiet=True))
    assert not (found.path / "samples.parquet").exists()
    assert set(found.table("neurons")["language"]) == {"qaa", "qab"}
    assert found.manifest()["answer"][0].startswith("ms: ")


class PanicException(BaseException):
    """As a library in Rust raises it."""


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), PanicException("drawing went wrong")])
def test_a_run_whose_report_cannot_be_drawn_is_done(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    ms = SafetyNeurons(Prompts("organism", languages=("qaa", "qab")), effect="local", rule="paper")
    recipe, said = Recipe(sets={"ms": ms}, name="sets"), Console(record=True, width=400)
    with monkeypatch.context() as patched:
        patched.setattr("ssn_probe.report.run_report.save_charts", fail)
        run = run_recipe(recipe, Options(out=tmp_path, limit=8), said)
    assert "The run is done, but its report could not be written" in said.export_text()
    assert run.manifest()["status"] == "done"
    assert "neurons.parquet" in run.manifest()["files"]
    found = {finding.what: finding.holds for finding in verify(run)}
    assert found["report.html follows from manifest and tables"] is None
    assert False not in found.values()
    write_pages(run)
    assert all(finding.holds for finding in verify(run))
    monkeypatch.setattr("ssn_probe.report.run_report.save_charts", fail)
    with pytest.warns(UserWarning, match="its report could not be written"):
        run_recipe(recipe, Options(out=tmp_path, limit=8), Console(quiet=True))


def test_a_cell_without_data_says_so(tmp_path: Path) -> None:
    """One language has no harmful prompts to evaluate on, there are no look-alikes and no references at all."""
    rows = load_prompts(Prompts("organism", limit=24, languages=("qaa", "qab", "qac"))).frame
    absent = (pl.col("split") == "evaluate") & (pl.col("context") == "harmful") & (pl.col("language") == "qab")
    rows = rows.filter(~absent & (pl.col("context") != "lookalike")).with_columns(reference=pl.lit(None, pl.String))
    prompts = organism_set(tmp_path / "data", rows, languages=["qaa", "qab", "qac"])
    arms = {"ms": Suppress(SafetyNeurons(prompts))}
    measures = (ASR(prompts), OverRefusal(prompts), Utility(prompts))
    recipe = small_recipe(arms=arms, measures=measures, primary="ms", controls=1, log_odds_label_sets=1)
    found = run_recipe(recipe, Options(out=tmp_path / "results"), Console(quiet=True))
    asr = found.table("summary").filter((pl.col("measure") == "asr") & (pl.col("role") == "tested"))
    assert set(asr["language"]) == {"qaa", "qac", AVERAGE}
    report = (found.path / "report.md").read_text(encoding="utf-8")
    assert "| qab | not measured: no data |" in report
    assert report.count("not measured, for there is no data") == 2  # over-refusal and utility, as a whole


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_any_model_and_any_file_take_the_same_path(family: str, tmp_path: Path, tiny_folder) -> None:
    """A random model of another family, and prompts from a jsonl file with a card beside it."""
    rows = [
        {"prompt_id": f"{context}{i}", "language": language, "context": context, "text": f"w{first + i} w{shift + i}"}
        for context, first in (("harmful", 0), ("harmless", 20))
        for language, shift in (("en", 1), ("de", 2))
        for i in range(16)
    ]
    pl.DataFrame(rows).write_ndjson(tmp_path / "mine.jsonl")
    judge = {"kind": "patterns", "refused": {"en": "w1", "de": "w2"}, "complied": {"en": "w.*", "de": "w.*"}}
    (tmp_path / "mine.json").write_text(json.dumps({"judge": judge, "max_new_tokens": 3}), encoding="utf-8")
    prompts = Prompts(str(tmp_path / "mine.jsonl"))
    ms = SafetyNeurons(prompts, effect="local", rule="harmful", top=0.1)
    arms, measures = {"ms": Suppress(ms), "ss": Suppress(Shared(ms))}, (ASR(prompts), Utility(prompts))
    recipe = small_recipe(model=str(tiny_folder(family)), arms=arms, measures=measures, controls=1)
    found = run_recipe(recipe, Options(out=tmp_path / "results", dtype="float32"), Console(quiet=True))
    manifest = found.manifest()
    assert manifest["model"]["family"] == family
    assert manifest["anchor"] == "en"
    assert any(note.startswith("refusal log-odds not measured") for note in manifest["warnings"])
    assert set(found.table("samples")["arm"]) == {"baseline", "ms", "ss"}
    assert manifest["answer"][0].startswith("The model refuses harmless prompts as it refuses harmful ones")
    assert "ASR outside the anchor en" in manifest["answer"][1]
