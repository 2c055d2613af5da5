"""The cache as a study sees it: what is shared, what is computed anew, what a plan knows, what a run can prove."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from killing import same_tables
from polars.testing import assert_frame_equal
from rich.console import Console
from safetensors.torch import load_file, save_file

from ssn_probe import ASR, Amplify, MeanOf, Patch, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.verify import verify
from ssn_probe.errors import ModelError, ResultError
from ssn_probe.files import write_json, write_table
from ssn_probe.model import chat
from ssn_probe.model import subject as subjects
from ssn_probe.model.loading import locate
from ssn_probe.report.terminal.plan_table import render_plan
from ssn_probe.runs.folder import RunFolder, digests
from ssn_probe.runs.integrity import Finding
from ssn_probe.runs.manifest import write_manifest
from ssn_probe.spec import Refusal
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.spec.rendering import as_text
from ssn_probe.study import pipeline
from ssn_probe.study.forecast import forecast
from ssn_probe.study.workbench import METHODS
from ssn_probe.tracing.generate import generate

LIMIT = 24
PROMPTS = Prompts("organism", languages=("qaa", "qac"))
MS = SafetyNeurons(PROMPTS, top=0.01)
ARMS = {"ss": Suppress(Shared(MS)), "mean": Suppress(MS, to=MeanOf(PROMPTS)), "patch": Patch(MS)}


def study(**changes: Any) -> Recipe:
    fields = {"arms": ARMS, "controls": 1, "log_odds_label_sets": 1, "permutations": 99, "half_samples": 2}
    return Recipe(**(fields | {"measures": (ASR(PROMPTS),), "primary": "ss", "name": "study"} | changes))


def run(recipe: Recipe, out: Path, **options: Any) -> RunFolder:
    return run_recipe(recipe, Options(out=out, limit=LIMIT, **options), Console(quiet=True))


def agree(one: RunFolder, other: RunFolder) -> None:
    """Sets, words and verdicts are the same; log-odds to 1e-4 (they are of the order of 5)."""
    for table, drop in (("samples", []), ("neurons", ["score"]), ("overlap", [])):
        assert one.table(table).drop(drop).equals(other.table(table).drop(drop)), table
    odds = [found.table("log_odds")["log_odds"] for found in (one, other)]
    assert (odds[0] - odds[1]).abs().max() < 1e-4  # type: ignore[operator]


def computed(found: RunFolder) -> int:
    return found.manifest()["cache"].get("computed", 0)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(study(), tmp_path_factory.mktemp("results"))


@pytest.fixture
def copy(first: RunFolder, tmp_path: Path) -> RunFolder:
    """The results folder of the first run, to be harmed."""
    shutil.copytree(first.path.parent, tmp_path / "results", symlinks=True)
    return RunFolder(tmp_path / "results" / first.name)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder, to be changed."""
    return Path(shutil.copytree(locate("organism"), tmp_path / "model"))


# ── what is shared, and what is not ──────────────────────────────────────────────────────────────────────────────────


def test_another_recipe_takes_what_is_there(copy: RunFolder) -> None:
    """Another question, arm and name on the same scores, baseline and gates: only the new arm is measured."""
    other = study(arms={"twice": Amplify(MS, by=2)}, primary="twice", name="other", half_samples=0, permutations=0)
    found = run(other, copy.path.parent)
    methods = [what["method"] for what in entries(copy.path.parent) if what["by"] == ["Amplify", 1]]
    assert computed(found) == len(methods) > 0
    assert set(methods) == {"responses", "log odds", "changed text"}


def entries(root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((root / "cache").glob("*/what.json")):
        yield {"by": None} | json.loads(path.read_text(encoding="utf-8"))


def test_fresh_computes_everything_and_finds_the_same(copy: RunFolder) -> None:
    again = run(study(), copy.path.parent, fresh=True)
    assert again.manifest()["cache"].get("read", 0) < computed(again) / 4  # only what it has computed itself
    assert same_tables(copy, again)


@pytest.mark.parametrize(
    ("method", "rests"),
    [("log odds", None), ("null", None), ("mean activations", None), ("activations", ["Patch", 1])],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_methods_version_invalidates_its_results_and_what_rests_on_them(
    method: str, rests: list[Any] | None, copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(entries(copy.path.parent))
    own = (method, "direction") if method == "log odds" else (method,)  # the direction is scaled by log-odds
    before = sum(what["method"] in own or (rests is not None and what["by"] == rests) for what in found)
    monkeypatch.setitem(METHODS, method, METHODS[method] + 1)
    found = run(study(), copy.path.parent)
    assert computed(found) == before
    if method != "log odds":
        assert same_tables(copy, found)
        return
    for table in ("log_odds", "summary", "comparisons"):  # anew they do not come from the generation's own pass
        assert_frame_equal(copy.table(table), found.table(table), abs_tol=1e-4)


def test_a_nodes_version_invalidates_its_results(copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(entries(copy.path.parent))
    monkeypatch.setattr(Refusal, "version", Refusal.version + 1)
    found = run(study(), copy.path.parent)
    anew = [what["method"] for what in entries(copy.path.parent) if what not in before]
    assert anew.count("scores") == 4, "two languages, two contexts"
    assert set(anew) == {"scores", "null", "stability", "exchange", "label sets"}, "what rests on them"
    assert computed(found) == len(anew)


def parts(found: RunFolder, method: str = "") -> list[Path]:
    """The parts that a method has in the cache, or all of them."""
    whats = sorted((found.path.parent / "cache").glob("*/what.json"))
    folders = [path.parent for path in whats if method in ("", json.loads(path.read_text("utf-8"))["method"])]
    return [path for folder in folders for path in sorted(folder.glob("*.*.*"))]


def damage(paths: list[Path]) -> list[Path]:
    """Cuts off the ends of files."""
    assert paths
    for path in paths:
        path.write_bytes(path.read_bytes()[:-7])
    return paths


def test_every_damaged_file_is_reported_and_computed_again(copy: RunFolder) -> None:
    damaged = damage(parts(copy))
    again = run(study(), copy.path.parent)
    reported = [line for line in again.manifest()["warnings"] if "damaged" in line]
    assert sorted(reported) == [f"{path} in the cache is damaged: its values are computed again" for path in damaged]
    assert same_tables(copy, again)


def test_a_damaged_file_that_nothing_needs_is_harmless_and_verify_lists_it(copy: RunFolder) -> None:
    """A Patch's responses are in the cache: the activations that they were made from are not read again."""
    missing, *damaged = damage(parts(copy, "activations"))
    missing.unlink()
    again = run(study(), copy.path.parent)
    assert (computed(again), again.manifest()["warnings"]) == (0, copy.manifest()["warnings"])
    assert same_tables(copy, again)
    (unread,) = [finding for finding in verify(copy) if not finding.holds]
    assert unread.holds is None
    names = [f"{missing} (activations) is missing", *(f"{path} (activations) is damaged" for path in damaged[:2])]
    assert unread.why == f"{'; '.join(names)}; and {len(damaged) - 2} more"


def test_a_model_that_changed_between_runs_is_another_model(model: Path, tmp_path: Path) -> None:
    recipe = study(model=str(model), arms={}, sets={"ms": MS}, measures=(), primary=None)
    before = run(recipe, tmp_path / "results")
    assert computed(run(recipe, tmp_path / "results")) == 0
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"][0, 0] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    after = run(recipe, tmp_path / "results")
    assert computed(after) == computed(before)
    assert after.manifest()["model"]["digest"] != before.manifest()["model"]["digest"]


def test_a_model_that_changes_while_it_is_used_changes_nothing(model: Path) -> None:
    """Weights on a CPU are mapped from their files unless they are copied: overwriting these changed the model."""
    subject = subjects.load_subject(str(model))
    prompt = chat.encode(subject, ["user"])
    before = generate(subject, prompt, max_new_tokens=3)
    file = model / "model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 4)
        stream.write(b"\x7f" * (file.stat().st_size // 2))
    assert generate(subject, prompt, max_new_tokens=3) == before
    with file.open("r+b") as stream:
        stream.truncate(1000)
    assert generate(subject, prompt, max_new_tokens=3) == before


def test_a_model_that_changes_while_it_is_read_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, config = subjects.read_weights, model / "config.json"

    def changing(*arguments: Any) -> Any:
        config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
        return read(*arguments)

    monkeypatch.setattr(subjects, "read_weights", changing)
    with pytest.raises(ModelError, match="changed while they were read"):
        subjects.load_subject(str(model))


def test_a_runs_own_recipe_repeats_it(copy: RunFolder) -> None:
    recipe = find_recipe(str(copy.path / "recipe.json"), {})
    again = run_recipe(recipe, Options(out=copy.path.parent), Console(quiet=True))
    assert computed(again) == 0
    assert again.path != copy.path
    assert again.manifest()["key"] == copy.manifest()["key"]
    assert same_tables(copy, again)


@pytest.mark.slow
def test_where_the_memory_runs_out_batches_shrink_and_nothing_changes_but_by_rounding(
    copy: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever runs more than seven sequences at a time finds no memory: scoring, generation, log-odds, capture.

    Two threads add up in another order, too.
    """
    embed, refused = torch.nn.Embedding.forward, []

    def crowded(self: Any, ids: torch.Tensor) -> torch.Tensor:
        if ids.shape[0] > 7:
            refused.append(ids.shape[0])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return embed(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", crowded)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = run(study(), tmp_path / "other")
    finally:
        torch.set_num_threads(threads)
    assert refused
    agree(other, copy)
    with pytest.raises(ModelError, match="does not hold a batch of 50"):
        run(study(), tmp_path / "third", batch_size=50)


# ── what a plan knows ────────────────────────────────────────────────────────────────────────────────────────────────


def states(recipe: Recipe, out: Path) -> dict[str, float]:
    """The cached share of every row of a plan."""
    found = forecast(recipe, LIMIT, out=out)
    return {row.label: found.cached.get(row.label, 0) / row.prompts for row in found.rows}


def test_a_plan_finds_what_was_run_and_makes_nothing(first: RunFolder, tmp_path: Path) -> None:
    assert set(states(study(), first.path.parent).values()) == {1.0}
    assert set(states(study(), tmp_path / "results").values()) == {0.0}
    assert not (tmp_path / "results").exists()


def test_a_plan_shows_what_is_new(first: RunFolder) -> None:
    found = states(study(arms=ARMS | {"twice": Amplify(MS, by=2)}, controls=2), first.path.parent)
    assert found["twice"] == 0
    assert found["ss"] == found["baseline"] == found["patch: log-odds only"] == 1
    assert found["ss: 2 random sets of as many neurons"] == 0.5


def test_a_plan_after_half_a_run_knows_which_half(copy: RunFolder) -> None:
    """Without the scores of one language no set is known, and so no arm; the baseline is."""
    shutil.rmtree(parts(copy, "scores")[0].parent)
    found = states(study(), copy.path.parent)
    assert found["baseline"] == 1
    assert found["ss"] == found["patch"] == 0
    assert sorted(value for label, value in found.items() if label.startswith("refusal effect")) == [0.75]


def test_a_plan_tells_the_time_of_what_is_left(copy: RunFolder) -> None:
    found = forecast(study(arms=ARMS | {"twice": Amplify(MS, by=2)}), LIMIT, out=copy.path.parent, calibrated=True)
    assert all(found.seconds[row.label] > 0 for row in found.rows)
    assert any(line.startswith("Time: about ") for line in found.lines)
    shown = as_text(render_plan(found))
    assert "○" in shown
    assert "✓" in shown
    done = forecast(study(), LIMIT, out=copy.path.parent, calibrated=True)
    assert "Time: all that the model has to do is in the cache." in done.lines
    assert not done.seconds, "nothing is loaded to time what need not be done"


# ── what a run can prove ─────────────────────────────────────────────────────────────────────────────────────────────


def wrong(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.why for finding in findings if finding.holds is False}


def test_a_run_verifies(first: RunFolder) -> None:
    findings = verify(first)
    assert all(finding.holds for finding in findings)
    assert {finding.what for finding in findings} >= {
        "samples.parquet is as it was written",
        "verdicts follow from the responses",
        "summary follows from samples and log_odds",
        "nulls follows from the cache",
        "samples follows from the cache",
        "parts of the cache that no table needs are as they were written",
    }


def forged(run: RunFolder, table: str, **columns: pl.Expr) -> None:
    """A table with other values, and a manifest that agrees with it."""
    write_table(run.path / f"{table}.parquet", run.table(table).with_columns(**columns))
    write_manifest(run.path / "manifest.json", run.manifest() | {"files": digests(run)})


def test_a_changed_file_is_found_by_its_digest(copy: RunFolder) -> None:
    (copy.path / "report.md").write_text("All is well.", encoding="utf-8")
    (copy.path / "neurons.parquet").unlink()
    found = wrong(verify(copy))
    assert found["report.md is as it was written"] == "its SHA-256 does not match"
    assert found["neurons.parquet is as it was written"] == "it is missing"


FORGED: dict[str, tuple[str, dict[str, pl.Expr], dict[str, str]]] = {
    "verdict": (
        "samples",
        {"verdict": pl.lit("refused")},
        {
            "verdicts follow from the responses": "verdicts are not the judge's",
            "summary follows from samples and log_odds": "other values in",
            "comparisons follow from samples and log_odds": "other values in",
            "samples follows from the cache": "other values in verdict",
        },
    ),
    "summary": (
        "summary",
        {"value": pl.col("value") + 0.01},
        {
            "summary follows from samples and log_odds": "other values in value",
            "summary follows from the cache": "other values in value",
        },
    ),
    "response": (
        "samples",
        {"response": pl.lit("zindle")},
        {
            "verdicts follow from the responses": "verdicts are not the judge's",
            "samples follows from the cache": "other values in response",
        },
    ),
}


@pytest.mark.parametrize(("table", "columns", "expected"), FORGED.values(), ids=FORGED)
def test_a_forged_table_is_found(
    table: str, columns: dict[str, pl.Expr], expected: dict[str, str], copy: RunFolder
) -> None:
    forged(copy, table, **columns)
    found = wrong(verify(copy))
    assert found.keys() == expected.keys()
    for what, why in expected.items():
        assert why in found[what]


def test_what_cannot_be_verified_is_reported(copy: RunFolder) -> None:
    shutil.rmtree(copy.path.parent / "cache")
    findings = verify(copy)
    assert not wrong(findings)
    (unknown,) = [finding for finding in findings if finding.holds is None]
    assert "no longer holds all of it" in unknown.why


FORGERIES = {
    "warnings": (["All is well."], "warnings"),
    "arguments": ({"controls": "9"}, None),
    "started": ("2020-01-01T00:00:00+00:00", "report.html"),
    "seconds": ({"load": 0.0}, "report"),
    "options": ({"batch_size": None, "dtype": "auto", "limit": 3}, "limit"),
    "files": ({}, "file"),
    "neurons": ({"layers": 5, "per_layer": {}}, "neurons"),
}
"""Field of the manifest → another value, and what recomputing finds even where the digest was written anew."""


@pytest.mark.parametrize("field", FORGERIES)
def test_every_statement_of_a_manifest_is_verified(field: str, copy: RunFolder) -> None:
    value, word = FORGERIES[field]
    write_json(copy.path / "manifest.json", copy.manifest() | {field: value})
    assert wrong(verify(copy))["manifest.json is as it was written"] == "its SHA-256 does not match"
    write_manifest(copy.path / "manifest.json", copy.manifest())
    found = wrong(verify(copy))
    assert any(word in f"{what} {why}" for what, why in found.items()) if word else not found


def test_a_forged_licence_is_found(copy: RunFolder) -> None:
    (data,) = copy.manifest()["data"]
    write_manifest(copy.path / "manifest.json", copy.manifest() | {"data": [data | {"license": "none"}]})
    assert wrong(verify(copy)) == {"the prompts are those of the run": "they changed, or what is said of them: license"}


def test_the_words_of_another_release_are_no_failure(copy: RunFolder) -> None:
    """What it measured is verified all the same."""
    manifest = copy.manifest()
    others = {"answer": ["It is so."], "packages": manifest["packages"] | {"ssn-probe": "0.0.9"}}
    table = copy.table("summary").with_columns(value=pl.col("value") + 0.01)
    for changed, failed in (
        (False, set()),
        (True, {"summary follows from samples and log_odds", "summary follows from the cache"}),
    ):
        if changed:
            write_table(copy.path / "summary.parquet", table)
        write_manifest(copy.path / "manifest.json", manifest | others | {"files": digests(copy)})
        findings = verify(copy)
        assert wrong(findings).keys() == failed
        words = {finding.what: finding.why for finding in findings if finding.holds is None}
        assert set(words) >= {"the manifest says what was found", "report.md follows from manifest and tables"}
        assert words["the manifest says what was found"] == "another release wrote it (answer of the manifest differ)"


def test_files_that_were_added_are_named(copy: RunFolder) -> None:
    (copy.path / "extra.parquet").write_bytes(b"")
    (copy.path / "notes.txt").write_bytes(b"")
    (copy.path / "run.log").write_bytes(b"All is well.")
    findings = {finding.what: finding.holds for finding in verify(copy) if not finding.holds}
    assert findings == {
        "extra.parquet is a file of the run": False,
        "notes.txt is a file of the run": None,
        "run.log has the warnings of the manifest": False,
    }


@pytest.mark.parametrize("parts", [None, 1, [1], ["a"], ["../../x.0.parquet"], [["a"]]])
def test_a_list_of_parts_that_no_run_writes(parts: Any, copy: RunFolder) -> None:
    write_json(copy.path / "parts.json", {"parts": parts})
    assert wrong(verify(copy))["parts.json names parts of the cache"] == "it is damaged"


def test_damage_in_the_cache_is_no_fault_of_the_run(copy: RunFolder) -> None:
    damage(parts(copy, "responses")[:1])
    findings = verify(copy)
    assert not wrong(findings)
    assert any("the cache is damaged" in finding.why and finding.holds is None for finding in findings)


def test_a_run_whose_prompts_are_too_few_for_a_null_verifies(tmp_path: Path) -> None:
    recipe = Recipe(sets={"ms": SafetyNeurons(PROMPTS, effect="local")}, permutations=99, half_samples=2)
    found = run_recipe(recipe, Options(out=tmp_path, limit=2), Console(quiet=True))
    assert any("no valid null exists" in warning for warning in found.manifest()["warnings"])
    assert [finding for finding in verify(found) if not finding.holds] == []


def test_a_run_that_is_not_done_is_not_verified(copy: RunFolder) -> None:
    write_json(copy.path / "manifest.json", copy.manifest() | {"status": "failed"})
    with pytest.raises(ResultError, match="it is failed"):
        verify(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"arms": {"stable": Suppress(SafetyNeurons(PROMPTS, top=0.05, stable=0.8))}, "primary": "stable"},
        {"arms": {"half": Amplify(MS, by=0.5), "ms": Suppress(MS)}, "controls": 3, "primary": "ms"},
    ],
    ids=["stable", "amplify"],
)
def test_every_kind_of_run_verifies_and_its_plan_is_complete(changes: dict[str, Any], tmp_path: Path) -> None:
    """A set by half-samples has no placebo: its rows are no rows, once that is known."""
    recipe = study(**changes)
    found = run(recipe, tmp_path)
    assert [finding for finding in verify(found) if not finding.holds] == []
    assert set(states(recipe, tmp_path).values()) == {1.0}


def test_another_day_in_the_template_is_another_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys hold the tokens that run: a template may tell the date."""
    from ssn_probe.study import measurements as module

    recipe = study(arms={}, sets={"ms": SafetyNeurons(PROMPTS, effect="local")}, measures=(), primary=None)
    before = run(recipe, tmp_path)
    encode = module.encode
    monkeypatch.setattr(module, "encode", lambda subject, texts: [[*row, row[-1]] for row in encode(subject, texts)])
    assert computed(run(recipe, tmp_path)) == computed(before)


@pytest.mark.slow
def test_a_cache_that_was_computed_anew_since_is_no_evidence_against_a_run(copy: RunFolder) -> None:
    run(study(), copy.path.parent, fresh=True, batch_size=5)
    findings = verify(copy)
    assert not wrong(findings)
    for finding in findings:
        assert finding.holds or "computed anew since" in finding.why


def test_forged_words_are_found(copy: RunFolder) -> None:
    text = (copy.path / "report.md").read_text(encoding="utf-8")
    (copy.path / "report.md").write_text(text.replace(" %", "9 %", 1), encoding="utf-8")
    manifest = copy.manifest() | {"answer": ["All is well."], "seed": 3, "files": digests(copy)}
    manifest["model"]["digest"] = "0" * 64
    write_manifest(copy.path / "manifest.json", manifest)
    found = wrong(verify(copy))
    assert found["the model is that of the run"] == "these differ: digest"
    assert "seed" in found["the manifest is that of the recipe"]
    assert "of the report" in found["report.md follows from manifest and tables"]
    assert "answer" in found["the manifest says what was found"]


@pytest.mark.slow
def test_scores_that_another_run_computes_anew_meanwhile_are_read_again(copy: RunFolder) -> None:
    """A fresh run replaces the batches that this one has found: it looks for them again, and ends as it should."""
    robustness_of = pipeline.robustness_of

    def meanwhile(*arguments: Any) -> Any:
        run(study(arms={}, sets={"ms": MS}, measures=(), primary=None), copy.path.parent, fresh=True, batch_size=5)
        return robustness_of(*arguments)

    for path in parts(copy):
        if path.suffix == ".parquet":
            path.unlink()  # the nulls have to be computed
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipeline, "robustness_of", lambda *arguments: (patched.undo(), meanwhile(*arguments))[1])
        again = run(study(), copy.path.parent)
    assert again.manifest()["status"] == "done"
    assert same_tables(copy, again) or again.table("neurons").equals(copy.table("neurons"))
