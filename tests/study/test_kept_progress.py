"""What a run says of how far it is: in a file, seldom, and without ever ending the run."""

import json
import threading
from pathlib import Path

import pytest
from studies import Counts

from ssn_probe.runs.folder import PROGRESS
from ssn_probe.study import kept_progress
from ssn_probe.study.kept_progress import keeping_progress

ROWS = [("first", 10), ("second", 4)]


def state(folder: Path) -> dict:
    return json.loads((folder / PROGRESS).read_text(encoding="utf-8"))


def test_it_says_what_is_done_and_what_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_progress, "EVERY", 0.0)
    shown = Counts()
    with keeping_progress(shown, ROWS, tmp_path) as tracker:
        assert [row["done"] for row in state(tmp_path)["rows"]] == [0, 0]
        tracker.advance("first")(6)
        tracker.settle({"second": 5})
        tracker.beside("2 jobs at the host")
        found = state(tmp_path)
    rows = {row["label"]: (row["done"], row["total"]) for row in found["rows"]}
    assert (found["running"], found["waits"], rows) == (
        "first",
        "2 jobs at the host",
        {"first": (6, 10), "second": (0, 5)},
    )
    assert shown.done == {"first": 6}
    assert not (tmp_path / PROGRESS).exists(), "it ends with the run"


def test_it_is_written_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    monkeypatch.setattr(kept_progress, "write_json", lambda *_given, **_how: written.append(1))
    monkeypatch.setattr(kept_progress, "EVERY", 3600.0)
    with keeping_progress(Counts(), ROWS, tmp_path) as tracker:
        report = tracker.advance("first")
        for _ in range(10):
            report(1)
    assert len(written) == 1


def test_a_disk_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    with keeping_progress(Counts(), ROWS, tmp_path / "gone") as tracker:
        (tmp_path / "gone").rename(tmp_path / "away")
        (tmp_path / "gone").write_text("a file where the folder was", encoding="utf-8")
        tracker.advance("first")(10)
        tracker.advance("a row that nobody planned")


def test_threads_may_tell_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_progress, "EVERY", 0.0)
    with keeping_progress(Counts(), ROWS, tmp_path) as tracker:
        threads = [
            threading.Thread(target=lambda: [tracker.beside("jobs at the host") for _ in range(20)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert state(tmp_path)["waits"] == "jobs at the host"
