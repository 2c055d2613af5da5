"""Past runs: what became of each, in which order, and which of them."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ssn_probe.cli.commands import ORDERS as OFFERED
from ssn_probe.cli.commands import STATUSES as KNOWN
from ssn_probe.files import write_json
from ssn_probe.report.terminal.command_output import show_runs
from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.history import ORDERS, STATUSES, history


def past(root: Path, second: int, **manifest: Any) -> RunFolder:
    run = RunFolder(root / f"2026-01-02T03-04-{second:02}_study_01234567")
    common = {"schema_version": 1, "status": "done", "key": "a", "recipe": "study", "model": {"name": "organism"}}
    write_json(run.path / "manifest.json", common | {"seconds": {"load": 1.0, "generate": second}} | manifest)
    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    past(tmp_path, 1)
    past(tmp_path, 2, status="failed", error="no")
    past(tmp_path, 3, status="running")
    past(tmp_path, 4)
    past(tmp_path, 5, key="b", recipe="other", model={"name": "Qwen/Qwen3-8B"})
    past(tmp_path, 6, status="interrupted")
    (past(tmp_path, 7).path / "manifest.json").write_text("{", encoding="utf-8")
    return tmp_path


def seconds(found: list) -> list[int]:
    return [int(one.run.name[17:19]) for one in found]


def test_every_run_is_there_newest_first_with_what_became_of_it(root: Path) -> None:
    statuses = {int(one.run.name[17:19]): one.status for one in history(root)}
    assert list(statuses) == [7, 6, 5, 4, 3, 2, 1]
    assert statuses == {
        7: "unreadable", 6: "interrupted", 5: "done", 4: "done", 3: "killed", 2: "failed", 1: "superseded"
    }  # fmt: skip


def test_a_run_that_is_locked_is_running(root: Path) -> None:
    run = RunFolder(root / "2026-01-02T03-04-03_study_01234567")
    lock = results.hold(run)
    assert seconds(history(root, status="running")) == [3]
    results.let_go(run, lock)
    assert not (run.path / results.LOCK).exists()
    assert seconds(history(root, status="killed")) == [3]


def test_runs_are_sorted_and_filtered(root: Path) -> None:
    assert seconds(history(root, order="seconds"))[:3] == [6, 5, 4]
    assert seconds(history(root, order="recipe", status="done")) == [5, 4]
    assert seconds(history(root, order="model", recipe="study"))[0] == 6
    assert seconds(history(root, model="Qwen")) == [5]
    assert seconds(history(root, recipe="oth")) == [5]
    assert seconds(history(root, status="failed")) == [2]
    assert [one.status for one in history(root, order="status")][:2] == ["done", "done"]
    assert history(root / "nowhere") == []


def test_the_command_line_offers_what_there_is() -> None:
    assert tuple(ORDERS) == OFFERED
    assert STATUSES == KNOWN


def test_a_run_with_a_strange_manifest_hides_no_other(root: Path) -> None:
    past(root, 8, seconds="none", model="a word", status=7, key=["a"])
    assert seconds(history(root))[0] == 8
    assert history(root)[0].status == "unreadable"


def test_the_table_names_every_run_and_its_status(root: Path) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    show_runs(console, history(root))
    shown = console.export_text()
    assert all(word in shown for word in ("killed", "superseded", "failed", "unreadable", "Qwen/Qwen3-8B"))
    assert shown.count("_study_01234567") == 8, "and the reason why one cannot be read"
