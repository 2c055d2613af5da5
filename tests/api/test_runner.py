"""A whole run on the organism, small enough for a test: the folder it leaves, and whether its tables agree."""

import json
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from ssn_probe import ASR, OverRefusal, Prompts, Recipe, SafetyNeurons, Shared, Suppress, Utility
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import ModelError, ResultError
from ssn_probe.files import sha256
from ssn_probe.runs.folder import RunFolder, runs
from ssn_probe.spec.node import digest, from_json
from ssn_probe.study.plan import limited
from ssn_probe.study.summary import AVERAGE

CONTROLS, LOG_ODDS_CONTROLS, LIMIT = 2, 3, 40


def small_recipe(**changes) -> Recipe:
    prompts = Prompts("organism")
    ms = SafetyNeurons(prompts)
    fields = {
        "arms": {"ms": Suppress(ms), "ss": Suppress(Shared(ms))},
        "controls": CONTROLS,
        "log_odds_controls": LOG_ODDS_CONTROLS,
        "measures": (ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        "primary": "ss",
        "name": "small",
        "question": "Is <b>this</b> | a question?",
    }
    return Recipe(**(fields | changes))


def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_recipe(small_recipe(), Options(out=tmp_path_factory.mktemp("results"), limit=LIMIT), quiet())


def test_the_folder_is_whole(run: RunFolder) -> None:
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        *("recipe.json", "manifest.json", "parts.json", "report.md", "run.log"),
        *(f"{table}.parquet" for table in ("samples", "summary", "neurons", "overlap", "log_odds")),
        *(f"{table}.parquet" for table in ("nulls", "stability", "stability_curve")),
    }
    assert (run.path.parent / "latest").resolve() == run.path.resolve()


def test_the_manifest_says_what_was_done(run: RunFolder) -> None:
    manifest = run.manifest()
    assert manifest["status"] == "done"
    assert manifest["model"]["digest"]
    assert manifest["data"][0]["limit"] == LIMIT
    assert set(manifest["seconds"]) >= {"load", "identify", "generate", "log_odds", "summarise"}
    assert manifest["packages"]["torch"].startswith("2.")
    assert manifest["answer"][0].startswith("Silencing the shared safety neurons")


def test_the_recipe_on_disk_is_the_recipe(run: RunFolder) -> None:
    stored = from_json(json.loads((run.path / "recipe.json").read_text(encoding="utf-8")))
    assert stored == limited(small_recipe(), LIMIT)


def test_every_arm_answers_every_prompt(run: RunFolder) -> None:
    samples = run.table("samples")
    counts = dict(
        samples.group_by("arm", "role").len().select(pl.concat_str("arm", "role", separator="/"), "len").rows()
    )
    contexts = 3
    assert counts["baseline/baseline"] == 7 * contexts * LIMIT
    assert counts["ms/tested"] == counts["ms/without top neuron"] == counts["ss/tested"] == 7 * contexts * LIMIT
    assert counts["ms/control"] == CONTROLS * 7 * LIMIT
    assert counts["ss/control"] == CONTROLS * 6 * LIMIT  # the anchor's SS is its MS and is left out
    assert samples["error"].null_count() == samples.height


def test_an_arm_applies_each_languages_own_set(run: RunFolder) -> None:
    tested = run.table("samples").filter(role="tested")
    assert (tested["set_language"] == tested["eval_language"]).all()


def test_the_anchors_shared_set_is_its_monolingual_set(run: RunFolder) -> None:
    neurons = run.table("neurons").filter(language="qaa").select("layer", "site", "index", "set")
    ms, ss = (neurons.filter(set=name).drop("set").sort("layer", "site", "index") for name in ("ms", "ss"))
    assert ms.equals(ss)


def test_summary_follows_from_samples(run: RunFolder) -> None:
    samples, summary = run.table("samples"), run.table("summary")
    rows = samples.filter((pl.col("arm") == "ms") & (pl.col("role") == "tested") & (pl.col("context") == "harmful"))
    for language, group in rows.group_by("eval_language"):
        cell = summary.filter(
            (pl.col("language") == language[0]) & (pl.col("arm") == "ms") & (pl.col("role") == "tested")
        )
        asr = cell.row(by_predicate=pl.col("measure") == "asr", named=True)
        assert asr["value"] == pytest.approx((group["verdict"] == "complied").mean())
        assert asr["low"] <= asr["value"] <= asr["high"]
        assert asr["n"] == LIMIT


def test_the_average_leaves_the_anchor_out(run: RunFolder) -> None:
    summary = run.table("summary").filter((pl.col("measure") == "asr") & (pl.col("role") == "baseline"))
    others = summary.filter(~pl.col("language").is_in(["qaa", AVERAGE]))["value"].mean()
    assert summary.row(by_predicate=pl.col("language") == AVERAGE, named=True)["value"] == pytest.approx(others)


def test_too_few_controls_give_no_p(run: RunFolder) -> None:
    assert run.table("summary")["p"].null_count() == run.table("summary").height
    assert "too few controls for a test" in (run.path / "report.md").read_text(encoding="utf-8")


def test_only_one_row_is_primary(run: RunFolder) -> None:
    primary = run.table("summary").filter("primary")
    assert primary.select("arm", "role", "measure", "language").rows() == [("ss", "tested", "asr", AVERAGE)]


def test_controls_match_and_avoid_the_set(run: RunFolder) -> None:
    """The log-odds of random sets differ from the tested set's: they are other neurons."""
    log_odds = run.table("log_odds").filter((pl.col("arm") == "ms") & (pl.col("eval_language") == "qab"))
    means = log_odds.group_by("role", "seed").agg(pl.col("log_odds").mean())
    assert means.filter(role="control")["log_odds"].n_unique() == LOG_ODDS_CONTROLS


def test_per_prompt_scores_are_kept(run: RunFolder) -> None:
    """Seven languages and two contexts, each under its own key, which says what it is."""
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in (run.path.parent / "cache").glob("*/what.json")]
    scores = [what for what in entries if what["method"] == "scores"]
    assert len(scores) == 14
    assert {what["effect"]["kind"] for what in scores} == {"Refusal"}
    folder = run.path.parent / "cache" / digest(scores[0])
    (part,) = folder.glob("*.safetensors")
    assert sha256(part) in part.name


def test_the_question_is_shown_literally(run: RunFolder) -> None:
    assert r"Is \<b\>this\</b\> \| a question?" in (run.path / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_tables(run: RunFolder, tmp_path: Path) -> None:
    again = run_recipe(small_recipe(), Options(out=tmp_path, limit=LIMIT, batch_size=33), quiet())
    for table in ("samples", "neurons", "overlap"):
        assert run.table(table).drop("score", strict=False).equals(again.table(table).drop("score", strict=False))
    ours, theirs = run.table("log_odds")["log_odds"], again.table("log_odds")["log_odds"]
    assert (ours - theirs).abs().max() < 1e-4  # type: ignore[operator]
    assert again.manifest()["key"] == run.manifest()["key"]


def test_a_run_without_arms_identifies_only(tmp_path: Path) -> None:
    ms = SafetyNeurons(Prompts("organism", languages=("qaa", "qab")), effect="local", rule="paper")
    found = run_recipe(Recipe(sets={"ms": ms}, name="sets"), Options(out=tmp_path, limit=20), quiet())
    assert not (found.path / "samples.parquet").exists()
    assert set(found.table("neurons")["language"]) == {"qaa", "qab"}
    assert found.manifest()["answer"][0].startswith("ms: ")


def test_nothing_is_left_when_the_model_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        run_recipe(small_recipe(model=str(tmp_path)), Options(out=tmp_path / "results"), quiet())
    assert runs(tmp_path / "results") == []


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssn_probe.study import pipeline as stages

    def stops(*_args):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "odds_steps", stops)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(small_recipe(controls=0), Options(out=tmp_path, limit=20), quiet())
    (left,) = runs(tmp_path)
    assert left.manifest()["status"] == "interrupted"
    assert left.table("samples").height > 0
    assert not (left.path / "report.md").exists()


def test_a_full_disk_is_one_error_and_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self, path, *_args, **_options):
        raise pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(ResultError, match="Free some space"):
        run_recipe(small_recipe(), Options(out=tmp_path, limit=20), quiet())
    (left,) = runs(tmp_path)
    assert left.manifest()["status"] == "failed"
    assert "No space left" in left.manifest()["error"]
    assert not list(left.path.glob("*.parquet"))
    assert not list(left.path.glob(".*"))


def test_a_cell_without_data_says_so(tmp_path: Path) -> None:
    """One language has no harmful prompts to evaluate on, there are no look-alikes and no references at all."""
    rows = load_prompts(Prompts("organism", limit=24, languages=("qaa", "qab", "qac"))).frame.drop("source")
    absent = (pl.col("split") == "evaluate") & (pl.col("context") == "harmful") & (pl.col("language") == "qab")
    rows = rows.filter(~absent & (pl.col("context") != "lookalike")).with_columns(reference=pl.lit(None, pl.String))
    card = json.loads((Path(str(files("ssn_probe.organism"))) / "data" / "dataset.json").read_text(encoding="utf-8"))
    (tmp_path / "data").mkdir()
    rows.write_parquet(tmp_path / "data" / "prompts.parquet")
    (tmp_path / "data" / "dataset.json").write_text(
        json.dumps(card | {"languages": ["qaa", "qab", "qac"]}), encoding="utf-8"
    )
    prompts = Prompts(str(tmp_path / "data"))
    arms = {"ms": Suppress(SafetyNeurons(prompts))}
    measures = (ASR(prompts), OverRefusal(prompts), Utility(prompts))
    recipe = small_recipe(arms=arms, measures=measures, primary="ms", controls=1, log_odds_controls=1)
    found = run_recipe(recipe, Options(out=tmp_path / "results"), quiet())
    asr = found.table("summary").filter((pl.col("measure") == "asr") & (pl.col("role") == "tested"))
    assert set(asr["language"]) == {"qaa", "qac", AVERAGE}
    report = (found.path / "report.md").read_text(encoding="utf-8")
    assert "| qab | not measured: no data |" in report
    assert report.count("not measured: no data\n") == 2  # over-refusal and utility, as a whole


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
    found = run_recipe(recipe, Options(out=tmp_path / "results", dtype="float32"), quiet())
    manifest = found.manifest()
    assert manifest["model"]["family"] == family
    assert manifest["anchor"] == "en"
    assert any(note.startswith("refusal log-odds not measured") for note in manifest["warnings"])
    assert set(found.table("samples")["arm"]) == {"baseline", "ms", "ss"}
    assert "ASR outside the anchor en" in manifest["answer"][0]
