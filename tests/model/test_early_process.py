"""A worker's process starts before the model is opened only where the run is sure to be worth it, and ends with it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssn_probe.model import early_process as early
from ssn_probe.model import worker_places, workers
from ssn_probe.model.asking import NO_WISH
from ssn_probe.model.early_process import SURE, early_process
from ssn_probe.model.known import find_subject, keep_facts
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.model.worker_places import sharing
from ssn_probe.model.workers import Loading, Workers

WAITS = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that were started, on a machine with two cores: they wait, as workers do before they load."""
    found: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        found.append(subprocess.Popen(WAITS, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return found[-1]

    monkeypatch.setattr(early, "worker_process", start)
    monkeypatch.setattr(workers, "worker_process", start)
    monkeypatch.setattr(early, "usable_cores", lambda: 2)
    yield found
    for process in found:
        workers.end(process)


def asked(cache: Path, **changes: Any) -> dict[str, Any]:
    plain = {"responses": SURE, "processes": None, "cache": cache, "dtype": "auto", "device": "auto", "asking": NO_WISH}
    return plain | changes


def test_much_work_of_a_small_model_starts_a_process_that_ends(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    with early_process("organism", **asked(tmp_path)) as process:
        assert process is not None
        assert process.poll() is None
    assert [one.poll() is None for one in started] == [False]


@pytest.mark.parametrize("changes", [{"responses": SURE - 1}, {"processes": 1}, {"device": "cuda"}])
def test_other_work_starts_none(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], changes: dict[str, Any]
) -> None:
    with early_process("organism", **asked(tmp_path, **changes)) as process:
        assert process is None
    assert not started


def test_a_single_core_starts_none(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "usable_cores", lambda: 1)
    with early_process("organism", **asked(tmp_path)) as process:
        assert process is None


def test_a_large_model_starts_none(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "SMALL", 1)
    with early_process("organism", **asked(tmp_path)) as process:
        assert process is None


def test_a_model_that_is_known_need_not_be_opened_and_starts_none(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    keep_facts(find_subject("organism", cache=tmp_path), "auto")
    with early_process("organism", **asked(tmp_path)) as process:
        assert process is None
    with early_process("organism", **asked(tmp_path / "other")) as process:
        assert process is not None


def test_a_name_on_the_hub_starts_none(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    with early_process("owner/model", **asked(tmp_path)) as process:
        assert process is None


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_worker_has_the_process_that_waits(started: list[subprocess.Popen[bytes]]) -> None:
    waiting = workers.worker_process()
    several = sharing_workers(2, waiting)
    several._start()
    assert [worker.process for worker in several.workers] == started
    assert started[0] is waiting
    several.close()
    assert all(process.poll() is not None for process in started)


def test_a_process_that_has_ended_is_replaced(started: list[subprocess.Popen[bytes]]) -> None:
    waiting = workers.worker_process()
    workers.end(waiting)
    alone = sharing_workers(1, waiting)
    alone._start()
    assert alone.workers[0].process is started[1]
    alone.close()


def test_a_process_that_waits_is_used_with_the_first_call(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_places, "usable_cores", lambda: 2)
    monkeypatch.setattr(worker_places, "memory", lambda: (10**11, 10**11))
    organism: Subject = load_subject("organism")
    with sharing(organism, None, expected=8, early=workers.worker_process()) as subject:
        assert subject.workers is not None
        assert subject.workers.expected is None


def sharing_workers(count: int, waiting: subprocess.Popen[bytes]) -> Workers:
    loading = Loading(name="organism", dtype="float32", device="cpu", asking=NO_WISH, threads=1, tried=frozenset())
    return Workers([loading] * count, {}, early=waiting)
