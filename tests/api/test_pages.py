"""`ssn-probe report`: the page of a run again, whatever became of the run."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pages import STUDIES, Study, failed, failing, without_report, written

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Suppress
from ssn_probe.api import runner
from ssn_probe.api.pages import PAGE, UNREDACTED, write_pages
from ssn_probe.cli.commands import main
from ssn_probe.data.redistribution import why_redacted
from ssn_probe.report.rerun_command import rerun_command
from ssn_probe.runs.folder import RunFolder, digests
from ssn_probe.runs.integrity import file_findings, manifest_finding
from ssn_probe.runs.manifest import write_manifest
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.plan import limited, make_plan


@pytest.fixture
def done(tmp_path: Path) -> RunFolder:
    """A finished run with the digests of its files."""
    run = written(tmp_path / "smallest", STUDIES["smallest"]())
    write_manifest(run.path / "manifest.json", run.manifest() | {"files": digests(run)})
    return run


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def asked(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["report", *arguments], catch_exceptions=False)


def test_the_report_is_written_again_and_its_digests_follow(done: RunFolder) -> None:
    page, report = text(done.path / PAGE), text(done.path / "report.md")
    for name in (PAGE, "report.md"):
        (done.path / name).write_text("edited", encoding="utf-8")
    assert write_pages(done) == done.path / PAGE
    assert (text(done.path / PAGE), text(done.path / "report.md")) == (page, report)
    write_pages(done, unredacted=True)
    findings = [manifest_finding(done), *file_findings(done, done.manifest()["files"])]
    assert [finding for finding in findings if not finding.holds] == []
    assert UNREDACTED in done.manifest()["files"]


def test_a_manifest_that_was_changed_gets_no_new_digest(done: RunFolder) -> None:
    path = done.path / "manifest.json"
    path.write_text(text(path).replace('"seed": 0', '"seed": 1'), encoding="utf-8")
    write_pages(done)
    assert manifest_finding(done).holds is False


def test_a_failed_run_gets_a_page_with_its_error_and_what_is_there(tmp_path: Path) -> None:
    run = failed(tmp_path, failing())
    before = text(tmp_path / "manifest.json")
    page = text(write_pages(run))
    assert "This run is not finished: failed." in page
    assert "the model ran out of memory in a batch of one prompt" in page
    assert "samples.parquet" in page
    assert "a response in en" in page
    assert "ssn-probe run recipe.json -o .." in page
    assert text(tmp_path / "manifest.json") == before


def test_a_killed_run_that_left_nothing_gets_a_page(tmp_path: Path) -> None:
    run = failed(tmp_path, failing())
    manifest = run.manifest() | {"status": "running"}
    del manifest["error"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "recipe.json").unlink()
    (tmp_path / "samples.parquet").unlink()
    page = text(write_pages(run))
    assert "This run is not finished: killed." in page
    assert "No table was written." in page


def real_prompts(**changes: Any) -> Study:
    """A made-up study of prompts that can be read: the manifest has their digest."""
    prompts = Prompts("organism", languages=("qaa", "qab"), limit=4)
    recipe = Recipe(name="real", arms={"ms": Suppress(SafetyNeurons(prompts))}, measures=(ASR(prompts),))
    source = {"source": "organism", "name": "organism", "sha256": make_plan(recipe).data[prompts].digest}
    return Study(
        recipe=recipe, languages=("qaa", "qab"), anchor="qaa", prompts=4, manifest={"data": [source]} | changes
    )


def test_whole_requests_and_responses_are_in_a_page_of_their_own(tmp_path: Path) -> None:
    study = real_prompts()
    run = written(tmp_path, replace(study, says=lambda language: (f"begins {'x' * 100} and ends in {language}",)))
    [prompts] = make_plan(study.recipe).data.values()
    request = prompts.select("evaluate", "harmful", "qab")["text"][0]
    write_pages(run, unredacted=True)
    assert request in text(tmp_path / UNREDACTED)
    assert "and ends in qab" in text(tmp_path / UNREDACTED)
    assert "Not for others." in text(tmp_path / UNREDACTED)
    assert request not in text(tmp_path / PAGE)
    assert "and ends in qab" not in text(tmp_path / PAGE)


def test_what_may_not_be_passed_on_stays_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written(tmp_path, real_prompts())
    monkeypatch.setattr("ssn_probe.api.pages.why_redacted", lambda *_: "their owner says so")
    page = text(write_pages(run, unredacted=True))
    assert "left out: their owner says so." in page
    assert "Not for others." not in page
    assert "The request" not in page
    changed = written(tmp_path / "changed", real_prompts(data=[{"name": "organism", "sha256": "0" * 64}]))
    assert "have changed since" in text(write_pages(changed, unredacted=True))


@pytest.mark.parametrize(
    ("source", "license", "may"),
    [
        ("organism", None, True),
        ("my/folder/prompts.csv", None, False),
        ("my/folder/prompts.csv", "CC0-1.0", True),
        ("multijail", "mit", True),
        ("walledai/XSTest", "cc-by-4.0", False),
        ("xstest", "cc-by-4.0", False),
        ("xstest:prompts.csv", "cc-by-4.0", True),
        ("someone/else", "mit", False),
        ("advbench-x:table.csv", "Unknown", False),
    ],
)
def test_rows_are_shown_only_where_their_licence_allows_it(source: str, license: str | None, may: bool) -> None:
    assert (why_redacted(source, license) is None) == may


def test_the_command(done: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", lambda url: opened.append(url) or 0)
    found = asked("smallest", "-o", str(done.path.parent), "--open")
    assert found.exit_code == 0
    assert found.output == f"Written to {done.path / PAGE}\n"
    assert opened == [(done.path / PAGE).as_uri()]
    assert asked("smallest", "-o", str(done.path.parent), "--unredacted").output.endswith(f"{UNREDACTED}\n")
    assert opened == [(done.path / PAGE).as_uri()]


# ── the command that runs it again ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        ({}, None),
        ({"languages": "qaa,qab", "top": "0.02", "system": "Be brief; it's $HOME", "judge": "phrases"}, 7),
        ({"model": "a folder/with 'quotes'"}, None),
    ],
)
def test_a_shipped_recipe_is_run_again_by_its_name(
    arguments: dict[str, str], limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = limited(find_recipe("suppress_ss", arguments), limit)
    options = {"limit": limit, "dtype": "float32", "batch_size": 4}
    command = rerun_command(recipe, {"arguments": arguments, "options": options}).command
    assert "recipe.json" not in command
    assert parsed(command, monkeypatch) == recipe


def test_another_recipe_is_run_again_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = without_report(tmp_path / "run", STUDIES["smallest"]())
    recipe = find_recipe(str(run.path / "recipe.json"), {})
    own = replace(recipe, name="suppress_ss")
    monkeypatch.chdir(run.path)
    for each in (recipe, own):
        command = rerun_command(each, run.manifest()).command
        assert command == "ssn-probe run recipe.json -o .."
    assert parsed(command, monkeypatch) == recipe


def parsed(command: str, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe that a command line runs, with its limit."""
    ran: list[Recipe] = []

    def stopped(recipe: Recipe, options: runner.Options, _console: Any) -> None:
        ran.append(limited(recipe, options.limit))
        raise click.Abort

    monkeypatch.setattr(runner, "run_recipe", stopped)
    name, *words = shlex.split(command)
    assert name == "ssn-probe"
    CliRunner().invoke(main, words)
    return ran[0]
