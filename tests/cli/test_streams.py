"""Standard output that is closed, full, or a pipe that nobody reads: the exit code is that of the work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")


def listed(stdout: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ssn_probe", *(arguments or ("list",))]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, env=os.environ | environment, check=False, timeout=60
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_nobody_reads_is_no_mistake(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = listed(writer, PYTHONUNBUFFERED=unbuffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_output_that_is_lost_on_a_full_disk_is_said_once() -> None:
    with FULL.open("wb") as stream:
        done = listed(stream.fileno())
        assert done.returncode == 1
        assert done.stderr.startswith(b"Error: the output could not be written: ")
        assert b"bug" not in done.stderr
        assert listed(stream.fileno(), "nonsense").returncode == 2, "the work's own exit code comes first"


def test_closed_standard_streams_change_no_exit_code() -> None:
    shell = '"$0" -m ssn_probe list >&- 2>&- <&-'
    assert subprocess.run(["sh", "-c", shell, sys.executable], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("encoding", ["utf-16", "koi8-r", "gbk"])
def test_encodings_that_lack_our_marks(encoding: str) -> None:
    done = listed(subprocess.PIPE, "results", "\u9ad8\u00e9\u2713", PYTHONIOENCODING=f"{encoding}:strict")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
