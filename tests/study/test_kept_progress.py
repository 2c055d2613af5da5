"""What a run says of how far it is: in files, seldom, and without ever ending the run."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from studies import Counts

from ssn_probe.runs.folder import PROGRESS
from ssn_probe.study import kept_progress, pipeline
from ssn_probe.study.kept_progress import keeping_progress
from ssn_probe.study.steps import READING, Step
from ssn_probe.study.workbench import Workbench

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


def test_a_table_that_grows_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For whoever follows the run; at its end, and where a step fails, all that had come is there."""
    seen: list[int] = []

    def steps(failing: bool) -> Iterator[Step]:
        for number in range(4):
            path = tmp_path / "samples.parquet"
            seen.append(pl.read_parquet(path).height if path.is_file() else 0)
            if failing and number == 3:
                raise OSError("a step failed")
            run = partial(pl.DataFrame, {"response": [f"{number}"]})
            known: Any = {"key": dict, "is_kept": lambda _key: False, "cost": READING, "table": "samples"}
            yield Step(label="", prompts=1, run=run, **known)

    bench = cast(Workbench, SimpleNamespace(together=lambda jobs: (job() for job in jobs)))
    monkeypatch.setattr(pipeline, "SELDOM", 0.0)
    whole = pipeline._kept_as_it_comes(bench, tmp_path, "samples", steps(failing=False))
    assert whole is not None
    assert whole.height == 4
    assert seen[0] == 0
    assert max(seen) > 0, "something was there before the end"
    monkeypatch.setattr(pipeline, "SELDOM", 3600.0)
    (tmp_path / "samples.parquet").unlink()
    seen.clear()
    with pytest.raises(OSError, match="a step failed"):
        pipeline._kept_as_it_comes(bench, tmp_path, "samples", steps(failing=True))
    assert seen == [0, 0, 0, 0]
    assert pl.read_parquet(tmp_path / "samples.parquet").height == 3
