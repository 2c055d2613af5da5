"""A merge that is killed leaves nothing for ever: the next one removes it, and `ssn-probe clean` finds it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssn_probe.errors import ResultError
from ssn_probe.runs.leftovers import remove, survey
from ssn_probe.training.export.conversion import LOCK, _new_folder

HALF = """
import os, signal, sys, time
from pathlib import Path
from ssn_probe.training.export.conversion import _new_folder

with _new_folder(Path(sys.argv[1])) as folder:
    (folder / "expand").mkdir()
    (folder / "model.safetensors").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""


def write(folder: Path) -> None:
    with _new_folder(folder) as temporary:
        (temporary / "config.json").write_text("{}", encoding="utf-8")


def test_a_killed_process_and_the_next(tmp_path: Path) -> None:
    target, temporary = tmp_path / "merged", tmp_path / ".merged.tmp"
    child = subprocess.Popen([sys.executable, "-c", HALF, str(target)], stdout=subprocess.PIPE, env={**os.environ})
    try:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"writing"
        with pytest.raises(ResultError, match="Another process is writing"):
            write(target)
        assert survey(tmp_path, {}).found == []
        assert (temporary / "model.safetensors").exists()
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert [one.path for one in survey(tmp_path, {}).found] == [temporary]
    write(target)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert [path.name for path in target.iterdir()] == ["config.json"]


def test_clean_removes_what_a_killed_merge_left(tmp_path: Path) -> None:
    temporary = tmp_path / ".merged.tmp"
    temporary.mkdir()
    for name in (LOCK, "model.safetensors"):
        (temporary / name).touch()
    assert [why for _, why in remove(survey(tmp_path, {}))] == [""]
    assert not temporary.exists()


def test_a_folder_of_somebody_else_is_left(tmp_path: Path) -> None:
    mine, outside = tmp_path / ".merged.tmp", tmp_path / "outside"
    mine.mkdir()
    (mine / "notes.txt").touch()
    with pytest.raises(ResultError, match="is in the way"):
        write(tmp_path / "merged")
    outside.mkdir()
    (tmp_path / ".other.tmp").symlink_to(outside)
    with pytest.raises(ResultError, match="is in the way"):
        write(tmp_path / "other")
    assert (mine / "notes.txt").exists()
    assert not any(outside.iterdir())


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), _new_folder(tmp_path / "merged"):
        _ = 1 / 0
    assert not any(tmp_path.iterdir())
