"""Runs with a judge that costs something, with another judge than the data's, and without any."""

import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judging import a_judge
from rich.console import Console

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress, Utility
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.verify import verify
from ssn_probe.data.judges import JUDGES, JudgedRow, Judgement
from ssn_probe.errors import JudgeError
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.discovery import find_recipe

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=6)
SS = Shared(SafetyNeurons(PROMPTS, effect="local", rule="paper"))
SMALL = {"controls": 1, "log_odds_controls": 0, "permutations": 0, "half_samples": 0}
RECIPE = Recipe(arms={"silent": Suppress(SS)}, measures=(ASR(PROMPTS), Utility(PROMPTS)), **SMALL)  # type: ignore[arg-type]


def ran(out: Path, recipe: Recipe = RECIPE) -> RunFolder:
    return run_recipe(recipe, Options(out=out), Console(quiet=True))


class Service:
    """A judge somewhere else, named `service` in the registry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[JudgedRow] = []
        self.closed = False
        monkeypatch.setitem(JUDGES, "service", lambda argument, languages, context: self.judge)
        self.judge = replace(a_judge(self.answer, "service", stored=True), local=False, spent=lambda: "2 cents")

    def answer(self, rows: Sequence[JudgedRow]) -> list[Judgement]:
        assert not self.closed
        self.asked += rows
        return [Judgement("refused" if len(row.response) % 2 else "complied", "its length") for row in rows]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(monkeypatch)


def not_held(run: RunFolder) -> list[str]:
    return [f"{one.what}: {one.why}" for one in verify(run) if one.holds is not True]


def test_a_run_with_another_judge(tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert not_held(run) == []
    ran(tmp_path, replace(RECIPE, judge="service"))
    assert len(service.asked) == asked
    for path in (tmp_path / "cache" / "verdicts").glob("*.jsonl"):
        path.unlink()
    lost = not_held(run)
    assert any("verdicts follow" in one and "asks no such judge" in one for one in lost)
    assert not [one for one in verify(run) if one.holds is False]


def _texts() -> list[str]:
    from ssn_probe.data.prompt_set import load_prompts

    return list(load_prompts(PROMPTS).frame["text"])


def test_a_run_without_a_judge_keeps_its_responses(tmp_path: Path) -> None:
    run = ran(tmp_path, replace(RECIPE, judge="none"))
    samples, summary = run.table("samples"), run.table("summary")
    assert set(samples["verdict"]) == {"unjudged"}
    assert not {"asr", "asr_paper", "invalid"} & set(summary["measure"])
    assert any("unjudged" in note for note in run.manifest()["warnings"])
    assert "ASR was not measured" in run.manifest()["answer"][0]
    assert not_held(run) == []
    judged = ran(tmp_path)
    assert judged.table("samples")["response"].equals(samples["response"])
    assert judged.manifest()["cache"].get("computed", 0) == 0


def test_what_needs_verdicts_says_so_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated = Shared(SafetyNeurons(PROMPTS, effect="refusal", rule="paper"))
    recipe = replace(RECIPE, judge="none", arms={"silent": Suppress(estimated)})
    monkeypatch.setattr("ssn_probe.study.unjudged._declared", lambda _subject: {})
    with pytest.raises(JudgeError, match="judged responses how the model begins to refuse in qaa, qab"):
        ran(tmp_path, recipe)
    assert not list(tmp_path.glob("*/manifest.json"))


def test_declared_openings_serve_without_verdicts(tmp_path: Path) -> None:
    estimated = Shared(SafetyNeurons(PROMPTS, effect="refusal", rule="paper"))
    run = ran(tmp_path, replace(RECIPE, judge="none", arms={"silent": Suppress(estimated)}))
    assert {gate["origin"] for gate in run.manifest()["gates"]} == {"declared, untested"}
    assert not_held(run) == []
