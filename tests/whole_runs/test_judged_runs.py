"""Runs with a judge that costs something, with another judge than the data's, and without any."""

import io
import re
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from judging import a_judge
from rich.console import Console

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress, Utility, open_run
from ssn_probe.api.pages import PAGE
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.verify import verify
from ssn_probe.cli.commands import main
from ssn_probe.data.judges import JUDGES, JudgedRow, Judgement
from ssn_probe.errors import JudgeError
from ssn_probe.files import write_json
from ssn_probe.report.certificate import corrected_rows
from ssn_probe.report.terminal.result_card import card
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.manifest import write_manifest
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.spec.node import digest
from ssn_probe.spec.rendering import as_text
from ssn_probe.study.forecast import forecast

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=6)
SS = Shared(SafetyNeurons(PROMPTS, effect="local", rule="paper"))
SMALL = {"controls": 1, "log_odds_label_sets": 0, "permutations": 0, "half_samples": 0}
IDENTITY = {"kind": "service", "endpoint": "example.org/v1"}
SERVICE = digest(IDENTITY)
RECIPE = Recipe(arms={"silent": Suppress(SS)}, measures=(ASR(PROMPTS), Utility(PROMPTS)), **SMALL)  # type: ignore[arg-type]


def ran(out: Path, recipe: Recipe = RECIPE) -> RunFolder:
    return run_recipe(recipe, Options(out=out), Console(quiet=True))


class Service:
    """A judge somewhere else, named `service` in the registry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[JudgedRow] = []
        self.closed, self.most = False, 10**6
        monkeypatch.setitem(JUDGES, "service", lambda argument, languages, context: self.judge)
        made = a_judge(self.answer, "service", stored=True)
        self.judge = replace(made, local=False, identity=IDENTITY, spent=lambda: "2 cents")

    def answer(self, rows: Sequence[JudgedRow]) -> list[Judgement]:
        if self.closed or len(self.asked) + len(rows) > self.most:
            raise JudgeError("the service is gone", "Wait for it.")
        self.asked += rows
        return [Judgement("refused" if len(row.response) % 2 else "complied", "its length") for row in rows]


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one run, which the judge of the data judged."""
    return ran(tmp_path_factory.mktemp("plain")).path.parent


def copied(plain_run: Path, folder: Path) -> RunFolder:
    """A copy of that run with its cache, in the results folder `folder`."""
    shutil.copytree(plain_run, folder, symlinks=True, dirs_exist_ok=True)
    return open_run("latest", folder).folder


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(monkeypatch)


def not_held(run: RunFolder) -> list[str]:
    return [f"{one.what}: {one.why}" for one in verify(run) if one.holds is not True]


def certificate(out: Path, refused: int) -> None:
    """Writes a certificate of the service in both languages, of which it finds so many refusals of 50."""
    counts = {"refused_as_refused": refused, "refused_as_complied": 50 - refused, "other_as_complied": 45}
    languages = {language: {**counts, "other_as_refused": 5} for language in ("qaa", "qab")}
    made = {"judge": "service", "sha256": SERVICE, "data": {"name": "people"}, "languages": languages}
    (out / "cache" / "certificates").mkdir(parents=True, exist_ok=True)
    write_json(out / "cache" / "certificates" / f"{SERVICE}.json", made)


def test_a_run_with_another_judge(
    tmp_path: Path, plain_run: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(plain_run, tmp_path)
    certificate(tmp_path, 40)
    run = ran(tmp_path, replace(RECIPE, judge="service"))
    samples, manifest = run.table("samples"), run.manifest()
    assert set(samples["judge"]) == {"service"}
    assert set(samples["reason"]) == {"its length"}
    assert (samples["response"].str.len_chars() % 2 == 1).equals(samples["verdict"] == "refused")
    assert [{"name": one["name"], "spent": one["spent"]} for one in manifest["judges"]] == [
        {"name": "service", "spent": "2 cents"}
    ]
    assert find_recipe(str(run.path / "recipe.json"), {}).judge == "service"
    assert len(set(service.asked)) == len(service.asked)
    assert {row.request for row in service.asked} <= set(_texts())

    def forbidden(*_arguments: Any) -> Any:
        raise AssertionError("verify asked somebody")

    asked = len(service.asked)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    service.closed = True
    [judge] = manifest["judges"]
    assert judge["certificate"]["languages"]["qab"]["refused_as_refused"] == 40
    report = (run.path / "report.md").read_text(encoding="utf-8")
    assert "## ASR corrected for its judge" in report
    assert "| 90.0 / 80.0 (100) |" in report
    assert "since the report" not in as_text(card(run))
    certificate(tmp_path, 20)
    shown = as_text(card(run))
    assert "ASR corrected for service (certified since the report)" in shown
    assert "40.0 [28, 54]" in shown
    assert not_held(run) == []  # the report is that of the certificate then in force
    ran(tmp_path, replace(RECIPE, judge="service"))
    assert len(service.asked) == asked
    for path in (tmp_path / "cache" / "verdicts").glob("*.jsonl"):
        path.unlink()
    found = verify(run)
    assert any("verdicts follow" in one.what and "asks no such judge" in one.why for one in found)
    assert not [one for one in found if one.holds is False]


def _texts() -> list[str]:
    from ssn_probe.data.prompt_set import load_prompts

    return list(load_prompts(PROMPTS).frame["text"])


def sent_at_most(text: str) -> int:
    [count] = re.findall(r"at most ([\d,]+) responses will be sent.* to example.org/v1, for service", text)
    return int(count.replace(",", ""))


def test_what_will_be_sent_is_said_before(tmp_path: Path, plain_run: Path, service: Service) -> None:
    copied(plain_run, tmp_path / "out")
    recipe = replace(RECIPE, judge="service")
    plan = forecast(recipe, out=tmp_path / "elsewhere", calibrated=True)
    most = sent_at_most("\n".join(plan.lines))
    assert service.asked == []
    assert plan.tried == ()
    said, service.most = io.StringIO(), 0
    with pytest.raises(JudgeError, match="the service is gone"):
        run_recipe(recipe, Options(out=tmp_path / "out"), Console(file=said, width=300))
    assert sent_at_most(said.getvalue()) == most
    service.most = 10**6
    ran(tmp_path / "out", recipe)
    assert 0 < len(service.asked) <= most


def test_a_run_without_a_judge_keeps_its_responses(tmp_path: Path, plain_run: Path) -> None:
    judged = copied(plain_run, tmp_path)
    run = ran(tmp_path, replace(RECIPE, judge="none"))
    samples, summary = run.table("samples"), run.table("summary")
    assert set(samples["verdict"]) == {"unjudged"}
    assert not {"asr", "asr_paper", "invalid"} & set(summary["measure"])
    assert any("unjudged" in note for note in run.manifest()["warnings"])
    assert "ASR was not measured" in " ".join(run.manifest()["answer"])
    assert not_held(run) == []
    assert judged.table("samples")["response"].equals(samples["response"])


def test_responses_without_a_verdict_are_counted_and_in_no_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that never sees a refusal and leaves every second response: none of those is a success."""

    def answer(rows: Sequence[JudgedRow]) -> list[Judgement]:
        return [Judgement("unjudged" if len(row.request) % 2 else "refused", "its length") for row in rows]

    monkeypatch.setitem(JUDGES, "half", lambda argument, languages, context: a_judge(answer, "half"))
    run = ran(tmp_path, replace(RECIPE, judge="half"))
    harmful = run.table("samples").filter(context="harmful")
    lost = harmful.filter(verdict="unjudged").height
    assert 0 < lost < harmful.height
    [note] = [one for one in run.manifest()["warnings"] if "no verdict" in one]
    assert note.startswith(f"half gave no verdict on {lost} of {harmful.height} responses")
    rates = run.table("summary").filter(pl.col("measure").is_in(["asr", "asr_paper"]))
    assert set(rates["value"]) == {0.0}


def test_what_needs_verdicts_says_so_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated = Shared(SafetyNeurons(PROMPTS, effect="refusal", rule="paper"))
    recipe = replace(RECIPE, judge="none", arms={"silent": Suppress(estimated)})
    monkeypatch.setattr("ssn_probe.study.unjudged._declared", lambda _subject: {})
    with pytest.raises(JudgeError, match="judged responses how the model begins to refuse in qaa, qab"):
        ran(tmp_path, recipe)
    assert not list(tmp_path.glob("*/manifest.json"))


@pytest.mark.slow
def test_declared_openings_serve_without_verdicts(tmp_path: Path) -> None:
    estimated = Shared(SafetyNeurons(PROMPTS, effect="refusal", rule="paper"))
    run = ran(tmp_path, replace(RECIPE, judge="none", arms={"silent": Suppress(estimated)}))
    assert {gate["origin"] for gate in run.manifest()["gates"]} == {"declared, untested"}
    assert not_held(run) == []


# ── another judge afterwards ─────────────────────────────────────────────────────────────────────────────────────────


def judged(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["judge", "latest", "-o", str(out), *arguments])


def test_another_judge_afterwards(tmp_path: Path, plain_run: Path, service: Service) -> None:
    run = copied(plain_run, tmp_path)
    before, report = run.manifest(), (run.path / "report.md").read_text(encoding="utf-8")
    first = judged(tmp_path, "--with", "service")
    assert first.exit_code == 0, first.output
    assert sent_at_most(first.output) == len(service.asked)
    assert re.search(r"ASR, % +language +world +service\nbaseline +qaa ", first.output)
    [entry] = run.manifest()["judged"]
    names = sorted(path.name for path in (run.path / entry["folder"]).iterdir())
    assert names == ["agreement.parquet", "samples.parquet", "summary.parquet", "verdicts.parquet"]
    own, other = run.table("samples"), run.table(f"{entry['folder']}/samples")
    assert own.columns == other.columns
    assert own.drop("verdict", "reason", "judge").equals(other.drop("verdict", "reason", "judge"))
    assert (other["response"].str.len_chars() % 2 == 1).equals(other["verdict"] == "refused")
    both = own.with_columns(second=other["verdict"]).unique(["eval_language", "prompt_id", "response"])
    for row in entry["agreement"][:-1]:
        rows = both.filter(eval_language=row["language"])
        assert row["n"] == rows.height
        assert row["observed"] == pytest.approx((rows["verdict"] == rows["second"]).mean())
    harmful = other.filter(context="harmful", role="baseline", eval_language="qab")
    shown = {(row["arm"], row["language"]): row["value"] for row in entry["asr"]}
    assert shown["baseline", "qab"] == pytest.approx((harmful["verdict"] == "complied").mean())
    now = (run.path / "report.md").read_text(encoding="utf-8")
    assert now.startswith(report + "\n## The same responses under other judges\n")
    assert run.manifest()["answer"] == before["answer"]
    service.closed = True
    certificate(tmp_path, 40)
    again = judged(tmp_path, "--with", "service", "--with", "phrases")  # phrases: no such languages
    assert again.exit_code == 1
    assert re.search(r"ASR, % +language +world +service +service, corrected\n", again.stdout)
    assert "service against people" in again.stdout
    [entry] = run.manifest()["judged"]
    assert [row[:2] for row in corrected_rows(entry["asr"], entry["certificate"])] == [
        [arm, language] for arm in ("baseline", "silent") for language in ("qaa", "qab", "average")
    ]
    assert "| 90.0 / 80.0 (100) |" in (run.path / "report.md").read_text(encoding="utf-8")
    assert not_held(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("step", ["write_manifest", "write_pages"])
def test_judging_that_was_killed_before_its_manifest_or_its_report(
    step: str, tmp_path: Path, plain_run: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(plain_run, tmp_path)
    monkeypatch.setitem(JUDGES, "other", lambda *_: a_judge(service.answer, "other"))

    def killed(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    assert judged(tmp_path, "--with", "other").exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr(f"ssn_probe.api.judging.{step}", killed)
        assert judged(tmp_path, "--with", "service").exit_code != 0
    assert "ASR by service" not in (run.path / "report.md").read_text(encoding="utf-8")
    assert judged(tmp_path, "--with", "service").exit_code == 0
    assert all("ASR by service" in (run.path / name).read_text(encoding="utf-8") for name in ("report.md", PAGE))
    assert not_held(run) == []
    assert [one["name"] for one in run.manifest()["judged"]] == ["other", "service"]


@pytest.mark.slow
def test_a_changed_verdict_of_another_judge_is_found(tmp_path: Path, plain_run: Path, service: Service) -> None:
    run = copied(plain_run, tmp_path)
    assert judged(tmp_path, "--with", "service").exit_code == 0
    path = run.path / run.manifest()["judged"][0]["folder"] / "samples.parquet"
    run.table("samples").write_parquet(path)
    found = [one.what for one in verify(run) if one.holds is False]
    assert "what service says follows from the responses" in found
    (run.path / "report.md").write_text("edited", encoding="utf-8")
    assert judged(tmp_path, "--with", "service").exit_code == 0
    assert [one.what for one in verify(run) if one.holds is False and "report.md" in one.what]


def test_judging_goes_on_where_it_failed(
    tmp_path: Path, plain_run: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssn_probe.runs.verdict_store.BATCH", 4)
    monkeypatch.setattr("ssn_probe.api.judging.BATCH", 4)
    run = copied(plain_run, tmp_path)
    service.most = 10
    failed = judged(tmp_path, "--with", "service")
    assert failed.exit_code == 1
    assert failed.stderr == "Error: the service is gone\n  Wait for it.\n"
    assert "judged" not in run.manifest()
    assert not_held(run) == []
    service.most = 10**6
    assert judged(tmp_path, "--with", "service").exit_code == 0
    assert len(service.asked) == len(set(service.asked)) > 10
    assert not_held(run) == []


@pytest.mark.slow
def test_an_unjudged_or_failed_run_is_judged_afterwards(tmp_path: Path, service: Service) -> None:
    run = ran(tmp_path, replace(RECIPE, judge="none"))
    shown = judged(tmp_path, "--with", "service")
    assert shown.exit_code == 0, shown.output
    assert "ASR, %" in shown.output
    assert "none (row), service (column)" in shown.output
    assert not_held(run) == []
    kept = {name: value for name, value in run.as_written().items() if name not in ("sha256", "files", "judged")}
    write_manifest(run.path / "manifest.json", kept | {"status": "failed", "error": "x"})
    assert judged(tmp_path, "--with", "service").exit_code == 0
    assert run.manifest()["judged"][0]["name"] == "service"


@pytest.mark.slow
def test_two_judges_in_one_command(tmp_path: Path, service: Service) -> None:
    data = ["-T", "languages=qaa,qab", "-T", "effect=local", "-T", "controls=1", "-T", "log_odds_label_sets=0"]
    command = ["run", "suppress_ss", *data, "--limit", "6", "-o", str(tmp_path)]
    for second, message in (
        ("nobody", "unknown kind 'nobody'"),
        ("none", "would judge nothing"),
        ("service", "the run's own judge"),
    ):
        wrong = CliRunner().invoke(main, [*command, "--judge", "service", "--judge", second])
        assert wrong.exit_code == 1
        assert message in wrong.stderr
    assert not list(tmp_path.glob("*/manifest.json"))
    JUDGES["other"] = lambda argument, languages, context: a_judge(
        lambda rows: [Judgement("refused", "always")] * len(rows), "other"
    )
    try:
        found = CliRunner().invoke(main, [*command, "--judge", "other", "--judge", "service"])
    finally:
        del JUDGES["other"]
    assert found.exit_code == 0, found.output
    run = open_run("latest", tmp_path).folder
    assert [one["name"] for one in run.manifest()["judges"]] == ["other"]
    assert [one["name"] for one in run.manifest()["judged"]] == ["service"]
    assert "κ of service and other" in (run.path / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_two_files_of_one_name_are_told_apart(tmp_path: Path, plain_run: Path) -> None:
    """Labels of two people."""
    run = copied(plain_run, tmp_path)
    labels = run.table("samples").select("response", language="eval_language").unique()
    for person in ("anna", "ben"):
        (tmp_path / person).mkdir()
        path = tmp_path / person / "labels.csv"
        labels.with_columns(verdict=pl.lit("refused" if person == "ben" else "complied")).write_csv(path)
    run = ran(tmp_path, replace(RECIPE, judge=f"file:{tmp_path}/anna/labels.csv"))
    shown = judged(tmp_path, "--with", f"file:{tmp_path}/ben/labels.csv")
    assert shown.exit_code == 0, shown.output
    [entry] = run.manifest()["judged"]
    assert (entry["first"], entry["name"]) == ("labels.csv", f"labels.csv ({entry['sha256'][:8]})")
    assert {row["value"] for row in entry["asr"]} == {0.0}
    assert not_held(run) == []


@pytest.mark.slow
def test_what_cannot_be_judged(tmp_path: Path, plain_run: Path, service: Service) -> None:
    run = copied(plain_run, tmp_path)
    assert "would judge nothing" in judged(tmp_path, "--with", "none").stderr
    samples = run.table("samples")
    samples.with_columns(response=pl.lit("yes")).write_parquet(run.path / "samples.parquet")
    assert "not as it was written" in judged(tmp_path, "--with", "service").stderr
    (run.path / "samples.parquet").unlink()
    assert "has no samples" in judged(tmp_path, "--with", "service").stderr
    assert service.asked == []
