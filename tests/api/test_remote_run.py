"""A run on a host: nothing is sent unasked, and Ctrl-C says what goes on there."""

import io
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from ssn_probe.api import runner
from ssn_probe.api.remote_run import watched
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.errors import RemoteError
from ssn_probe.model.subject import Subject
from ssn_probe.remote.journal import Journal
from ssn_probe.remote.tally import Tally
from ssn_probe.report.terminal import progress_bars
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.progress import Silent
from ssn_probe.study.workbench import Workbench


@pytest.mark.ndif
def test_nothing_is_sent_where_nobody_was_asked(
    ndif: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    options = Options(out=tmp_path, limit=24, remote=ndif.host, yes=False)
    with pytest.raises(RemoteError, match="nobody is here to be asked") as error:
        run_recipe(find_recipe("suppress_ss", {}), options, Console(width=500))
    assert "--yes" in str(error.value.hint)
    told = capsys.readouterr().out
    assert f"{ndif.host} runs organism in float32" in told
    assert "One smallest job came back after" in told
    assert "with gradients" in told
    assert not list(tmp_path.glob("2*")), "there is no folder of a run that never began"


@pytest.mark.ndif
@pytest.mark.parametrize("terminal", [False, True])
def test_while_the_first_job_waits_a_reader_is_told_for_what(
    terminal: bool, ndif: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a long queue, or while the host is away: before there are any rows of progress."""
    file = io.StringIO()

    def in_the_queue(subject: Subject) -> None:
        assert subject.calls is not None
        subject.calls.tell("jobs at the host: 1 queued (position 7)")
        end = time.monotonic() + 10
        while "(position 7)" not in file.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
        raise RemoteError("That is enough.")

    monkeypatch.setattr(runner, "check_host", in_the_queue)
    monkeypatch.setattr(progress_bars, "SILENCE", 0.01)
    console = Console(file=file, force_terminal=terminal, width=500)
    with pytest.raises(RemoteError, match="enough"):
        run_recipe(find_recipe("identify_ms", {}), Options(out=tmp_path, limit=4, remote=ndif.host), console)
    assert "looking at organism on its host: " in file.getvalue()
    assert "; jobs at the host: 1 queued (position 7)" in file.getvalue()


@pytest.mark.ndif
def test_a_run_that_fails_says_what_travelled_and_a_fresh_one_takes_up_no_job(
    ndif: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals: list[Journal] = []

    def fail(bench: Workbench, *_arguments: Any) -> None:
        assert bench.subject.calls is not None
        assert bench.subject.calls.journal is not None
        journals.append(bench.subject.calls.journal)
        raise RemoteError("The host went away.")

    monkeypatch.setattr(runner, "study", fail)
    options = Options(out=tmp_path, limit=4, remote=ndif.host, fresh=True)
    with pytest.raises(RemoteError, match="went away"):
        run_recipe(find_recipe("identify_ms", {}), options, Console(quiet=True))
    (path,) = tmp_path.glob("2*/manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert (manifest["status"], manifest["remote"]["host"], manifest["remote"]["jobs"]) == ("failed", ndif.host, 2)
    assert [journal.fresh for journal in journals] == [True]


def hosted(*left: str) -> Subject:
    calls = SimpleNamespace(tally=Tally(left=[*left]), tell=None)
    return cast(Subject, SimpleNamespace(calls=calls, place="https://some.host"))


def interrupted(subject: Subject) -> str:
    with pytest.raises(KeyboardInterrupt) as error, watched(subject, Silent()):
        raise KeyboardInterrupt
    return str(error.value)


def test_ctrl_c_names_the_jobs_that_run_on() -> None:
    said = interrupted(hosted("job-1", "job-2"))
    assert "2 jobs run on at https://some.host" in said
    assert "job-1 and job-2" in said
    assert "taken up by the same command" in said
    assert "1 job runs on" in interrupted(hosted("job-1"))
    assert interrupted(hosted()) == ""
