"""`ssn-probe clean`: what killed runs left is found and removed, and nothing that is in use or that somebody needs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from ssn_probe.cli.commands import main
from ssn_probe.errors import ResultError
from ssn_probe.files import sha256, write_json
from ssn_probe.runs.cache import Cache
from ssn_probe.runs.folder import RunFolder, hold, status
from ssn_probe.runs.leftovers import remove, survey

OLD, NEW = "2026-01-02T03-04-05", "2026-01-03T03-04-05"
METHODS = {"doubling": 2}


def run_at(root: Path, stamp: str = OLD, state: str = "done", entries: tuple[str, ...] = (), key: str = "k") -> Path:
    folder = root / f"{stamp}_study_01234567"
    folder.mkdir(parents=True)
    write_json(folder / "parts.json", {"parts": [f"{entry}/00000000.x.safetensors" for entry in entries]})
    files = {"parts.json": sha256(folder / "parts.json")}
    manifest = {"schema_version": 2, "status": state, "key": key, "files": files}
    write_json(folder / "manifest.json", manifest)
    return folder


def entry_of(root: Path, text: str, version: int = 2) -> str:
    """A cache entry with one part."""
    with Cache(root=root / "cache").entry({"method": "doubling", "version": version, "text": text}) as entry:
        entry.put([0], {"value": torch.ones(1)})
    return entry.folder.name


def age(*paths: Path, hours: float = 2) -> None:
    """Makes files, and folders with all that they hold, look older."""
    then = time.time() - hours * 3600
    for path in paths:
        for each in [*path.rglob("*"), path]:
            os.utime(each, (then, then), follow_symlinks=False)


def names(root: Path) -> list[str]:
    return [one.path.relative_to(root).as_posix() for one in survey(root, METHODS).found]


def clean(*options: str) -> Result:
    return CliRunner().invoke(main, ["clean", *options])


def kept_alive(folder: Path) -> "subprocess.Popen[bytes]":
    """A process that holds a run folder, once it has said so."""
    script = (
        "import sys, time; from pathlib import Path; from ssn_probe.runs.folder import RunFolder, hold;"
        f"lock = hold(RunFolder(Path({str(folder)!r}))); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ})
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    return child


def test_what_a_process_holds_stays_and_goes_once_it_is_killed(tmp_path: Path) -> None:
    folder, needed = run_at(tmp_path, state="running"), entry_of(tmp_path, "old")
    (folder / ".summary.parquet.123.tmp").write_bytes(b"half")
    age(tmp_path)
    child = kept_alive(folder)
    try:
        assert names(tmp_path) == []
        result = clean("-o", str(tmp_path), "--yes")
        assert result.exit_code == 0
        assert "is running" in result.output
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert {path.name for path in folder.glob(".*")} == {".lock", ".room", ".summary.parquet.123.tmp"}
    age(folder)
    listed = clean("-o", str(tmp_path))
    assert listed.exit_code == 0
    assert ".summary.parquet.123.tmp" in listed.output
    assert "Nothing was removed" in listed.output
    assert (folder / ".room").exists()
    assert clean("-o", str(tmp_path), "--yes").exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "parts.json"}
    assert status(RunFolder(folder), {"status": "running"}) == "killed"
    assert names(tmp_path) == [], "asking for the status leaves no lock"
    assert (tmp_path / "cache" / needed).is_dir(), "the killed run may need it: it is younger than that"


def test_what_runs_refer_to_is_kept_and_the_rest_is_for_nobody(tmp_path: Path) -> None:
    used, unused = entry_of(tmp_path, "used"), entry_of(tmp_path, "unused")
    run_at(tmp_path, entries=(used,))
    assert names(tmp_path) == [f"cache/{unused}"]
    assert [why for _, why in remove(survey(tmp_path, METHODS))] == [""]
    assert names(tmp_path) == []
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [used]


def test_what_a_run_may_go_on_with_is_kept_until_it_is_done(tmp_path: Path) -> None:
    entry, other = entry_of(tmp_path, "new"), entry_of(tmp_path, "new", version=1)
    folder = run_at(tmp_path, state="interrupted")
    assert names(tmp_path) == [f"cache/{other}"], "no run of this release reads it"
    assert "is not done" in " ".join(survey(tmp_path, METHODS).notes)
    run_at(tmp_path, NEW, entries=(), key="k")
    assert f"cache/{entry}" in names(tmp_path), "the same run is done since"
    assert folder.is_dir()


@pytest.mark.parametrize("harm", ["manifest", "parts", "missing", "types", "list"])
def test_a_damaged_run_keeps_the_whole_cache(harm: str, tmp_path: Path) -> None:
    entry_of(tmp_path, "text")
    folder = run_at(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    match harm:
        case "manifest":
            (folder / "manifest.json").write_bytes(b"\xff{")
        case "parts":
            (folder / "parts.json").write_text('{"parts": []} ', encoding="utf-8")
        case "missing":
            (folder / "parts.json").unlink()
        case "types":
            write_json(folder / "manifest.json", manifest | {"files": 3})
        case _:
            (folder / "manifest.json").write_text("[]", encoding="utf-8")
    assert names(tmp_path) == []
    assert "The cache is kept" in " ".join(survey(tmp_path, METHODS).notes)


def test_what_never_became_anything(tmp_path: Path) -> None:
    root = tmp_path / "results"
    empty, locked = root / f"{OLD}_a_01234567", root / f"{OLD}_b_01234567"
    for folder in (empty, locked, root / "cache" / ("0" * 64), root / "mine", root / ".merged.tmp"):
        folder.mkdir(parents=True)
    hold(RunFolder(locked)).release()
    (root / ".latest.77").symlink_to("nowhere")
    (root / ".d.77.tmp").write_bytes(b"half")
    (root / ".merged.tmp" / "model.safetensors").write_bytes(b"half")
    fresh = names(root)
    assert fresh == [f"{OLD}_b_01234567"], "without a lock, an hour has to pass"
    age(root)
    assert set(names(root)) == {
        *(f"{OLD}_a_01234567", f"{OLD}_b_01234567", ".d.77.tmp", ".latest.77", ".merged.tmp"),
        f"cache/{'0' * 64}",
    }
    assert clean("-o", str(root), "-y").exit_code == 0
    assert sorted(path.name for path in root.iterdir()) == ["cache", "mine"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "results", tmp_path / "outside"
    kept = entry_of(outside, "text")
    run = run_at(outside, state="running")
    (run / ".x.1.tmp").write_bytes(b"")
    inside = run_at(root, NEW)
    (inside / ".lock").symlink_to(run / "manifest.json")
    (inside / ".y.1.tmp").symlink_to(run / "parts.json")
    (root / run.name).symlink_to(run)
    (root / "cache").symlink_to(outside / "cache")
    age(tmp_path)
    assert names(root) == []
    (inside / ".lock").unlink()
    age(root)
    assert clean("-o", str(root), "--yes").exit_code == 0
    assert not (inside / ".y.1.tmp").is_symlink()
    assert {path.name for path in run.iterdir()} == {"manifest.json", "parts.json", ".x.1.tmp"}
    assert (outside / "cache" / kept).is_dir()


def test_entries_that_are_in_use_stay(tmp_path: Path) -> None:
    cache, what = Cache(root=tmp_path / "cache"), {"method": "doubling", "version": 2, "text": "a"}
    entry_of(tmp_path, "a")
    with cache.entry(what):
        assert names(tmp_path) == []
    (found,) = survey(tmp_path, METHODS).found
    result = survey(tmp_path, METHODS)
    with cache.entry(what):
        assert [why for _, why in remove(result)] == ["it is in use now"]
    assert found.path.is_dir()


def test_a_checkpoint_beside_its_result(tmp_path: Path) -> None:
    with Cache(root=tmp_path / "cache").entry({"method": "doubling", "version": 2}) as entry:
        entry.write("history", ".parquet", lambda path: path.write_bytes(b"x"))
        (entry.folder / "checkpoint.safetensors").write_bytes(b"large")
    run_at(tmp_path, entries=(entry.folder.name,))
    assert names(tmp_path) == [f"cache/{entry.folder.name}/checkpoint.safetensors"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("", encoding="utf-8")])
def test_a_folder_that_is_none(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(ResultError, match="is not a folder"):
        survey(tmp_path / "x", METHODS)
    assert clean("-o", str(tmp_path / "x")).exit_code == 1


def test_what_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_of(tmp_path, "text")

    def refused(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ssn_probe.runs.leftovers.shutil.rmtree", refused)
    result = clean("-o", str(tmp_path), "--yes")
    assert result.exit_code == 1
    assert "was not removed: Permission denied" in result.output


def test_what_a_run_of_somebody_else_needs_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, entry = run_at(tmp_path), entry_of(tmp_path, "for nobody")
    assert [one.path.name for one in survey(tmp_path, METHODS).found] == [entry]
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != run and access(path, mode))
    result = survey(tmp_path, METHODS)
    assert result.found == []
    assert result.notes == [f"The cache is kept: {run.name} cannot be read, so what it needs is unknown."]


def test_a_cache_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_at(tmp_path)
    (tmp_path / "cache").mkdir()
    scandir = os.scandir

    def closed(path: Path) -> object:
        if Path(path).name == "cache":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(ResultError, match="cache: Permission denied"):
        survey(tmp_path, METHODS)
