"""The run folder: files are whole or not there, runs are found again, and what cannot be written or read says why."""

import errno
import json
import os
import re
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import ssn_probe
from ssn_probe import limits
from ssn_probe.errors import ResultError
from ssn_probe.files import sha256, write_json, write_table, write_text, write_whole
from ssn_probe.runs import environment
from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder, create_run, find_run, point_latest, prepare, runs

KEY = "0123456789abcdef" * 4


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make_run(root: Path, name: str = "2026-01-02T03-04-05_overlap_01234567", **manifest: Any) -> RunFolder:
    run = RunFolder(root / name)
    write_json(run.path / "manifest.json", {"schema_version": 1, "status": "done"} | manifest)
    return run


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "er" / "a.txt", "naïve\n")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "naïve\n".encode()
    write_json(tmp_path / "b.json", {"ü": [1, 0.5, None]})
    assert results.read_json(tmp_path / "b.json") == {"ü": [1, 0.5, None]}
    frame = pl.DataFrame({"x": [1, 2], "y": ["a", None]})
    write_table(tmp_path / "c.parquet", frame)
    assert pl.read_parquet(tmp_path / "c.parquet").equals(frame)
    assert everything(tmp_path) == ["b.json", "c.parquet", "deep"], "no temporary file stays"
    assert everything(tmp_path / "deep" / "er") == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_what_was_and_nobody_sees_half(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")

    def write(temporary: Path) -> None:
        temporary.write_text("half of", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
        raise error

    with pytest.raises(error):
        write_whole(path, write)
    assert everything(tmp_path) == ["a.txt"]
    assert path.read_text(encoding="utf-8") == "old"


def test_not_a_number_is_never_written_as_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert everything(tmp_path) == ["a.json"]
    assert results.read_json(tmp_path / "a.json") == {"x": 1}


FULL = errno.ENOSPC
ERRORS = [
    *((OSError(number, ""), number, "full") for number in (FULL, errno.EDQUOT)),
    *((OSError(number, ""), number, "cannot be written") for number in (errno.EACCES, errno.EPERM, errno.EROFS)),
    (OSError(errno.EIO, ""), errno.EIO, "another folder"),
    (pl.exceptions.ComputeError(f"parquet: underlying IO error (os error {FULL})"), FULL, "full"),
]


@pytest.mark.parametrize(("error", "number", "hint"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_of_the_disk_becomes_one_error_that_names_the_fix(
    error: Exception, number: int, hint: str, tmp_path: Path
) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text("half of", encoding="utf-8")
        raise error

    with pytest.raises(ResultError, match=re.escape(os.strerror(number))) as caught:
        write_whole(tmp_path / "a.txt", write)
    assert hint in (caught.value.hint or "")
    assert "-o DIR" in (caught.value.hint or "")
    assert str(tmp_path / "a.txt") in caught.value.message
    assert everything(tmp_path) == []


# ── the results folder ───────────────────────────────────────────────────────────────────────────────────────────────


def test_prepare_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    root = prepare(tmp_path / "a" / "b")
    assert everything(root) == []
    assert prepare(root) == root


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("x", encoding="utf-8")
    with pytest.raises(ResultError, match="cannot write") as caught:
        prepare(tmp_path / "results")
    assert "-o DIR" in (caught.value.hint or "")
    with pytest.raises(ResultError, match="cannot write"):
        create_run(tmp_path / "missing", "overlap", KEY)


def test_a_folder_that_refuses_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(results.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ResultError) as caught:
        prepare(tmp_path)
    assert "cannot be written" in (caught.value.hint or "")


class Clock(datetime):
    """`datetime` as it stands at one second."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        assert tz is UTC
        return datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)


def test_a_folder_without_room_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as here:
        here.setattr(Path, "write_bytes", full)
        with pytest.raises(ResultError, match="No space left"):
            results.hold(RunFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []
    results.let_go(RunFolder(tmp_path), results.hold(RunFolder(tmp_path)))


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "datetime", Clock)
    made = [create_run(tmp_path, "overlap", KEY) for _ in range(3)]
    assert made[0].name == "2026-01-02T03-04-05_overlap_01234567"
    assert len({run.path for run in made}) == 3
    for run in made:
        write_json(run.path / "manifest.json", {"schema_version": 1})
    assert runs(tmp_path) == made[::-1], "newest first"


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/b", "..", "x" * 300])
def test_a_name_never_leads_out_of_the_results_folder(name: str, tmp_path: Path) -> None:
    """The name of a recipe.json is whatever somebody wrote there."""
    root = tmp_path / "deep" / "er"
    root.mkdir(parents=True)
    try:
        run = create_run(root, name, KEY)
    except ResultError:
        assert everything(root) == []
    else:
        assert run.path.resolve().parent == root
    assert everything(tmp_path) == ["deep"]
    assert everything(tmp_path / "deep") == ["er"]


# ── latest ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_latest_points_to_the_last_run(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, "1_a_x"), make_run(tmp_path, "2_b_y")
    for run in (first, second):
        point_latest(tmp_path, run)
        assert (tmp_path / "latest").resolve() == run.path
        assert find_run("latest", tmp_path) == run
    assert os.readlink(tmp_path / "latest") == second.name, "a relative link survives a move of the folder"
    assert runs(tmp_path) == [second, first], "the link is no run of its own"
    assert everything(tmp_path) == ["1_a_x", "2_b_y", "latest"]


def test_a_folder_named_latest_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path, "1_a_x")
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "mine.txt").write_text("x", encoding="utf-8")
    point_latest(tmp_path, run)
    assert everything(tmp_path) == ["1_a_x", "latest"], "no temporary link stays"
    assert everything(tmp_path / "latest") == ["mine.txt"]


def test_a_file_system_without_links_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_latest(tmp_path, make_run(tmp_path, "1_a_x"))
    assert everything(tmp_path) == ["1_a_x"]


# ── finding and reading ──────────────────────────────────────────────────────────────────────────────────────────────


def test_runs_are_newest_first_whatever_their_status(tmp_path: Path) -> None:
    names = ["2026-01-02T03-04-05_b_1", "2025-12-31T23-59-59_z_2", "2026-01-02T03-04-06_a_3"]
    made = [
        make_run(tmp_path, name, status=status) for name, status in zip(names, ("done", "failed", "x"), strict=True)
    ]
    (tmp_path / "cache" / "abc").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    assert runs(tmp_path) == [made[2], made[0], made[1]]


def test_a_run_is_found_by_path_name_and_part_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, "2026-01-02T03-04-05_overlap_01234567")
    make_run(tmp_path, "2026-01-02T03-04-05_transfer_89abcdef")
    monkeypatch.chdir(tmp_path.parent)
    for reference in (run.name, "overlap", "01234567", str(run.path), f"{tmp_path.name}/{run.name}"):
        assert find_run(reference, tmp_path).path.resolve() == run.path.resolve(), reference


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [("overlap", "'overlap' matches 2 runs", "05-06_"), ("05-05_overlpa_1", "no run '05-05_overlpa_1'", "05-05_")],
    ids=["several", "unknown"],
)
def test_a_reference_that_fits_no_run_or_several(reference: str, message: str, hint: str, tmp_path: Path) -> None:
    for name in ("05-05_overlap_1", "05-06_overlap_2"):
        make_run(tmp_path, name)
    with pytest.raises(ResultError, match=message) as caught:
        find_run(reference, tmp_path)
    assert f"{hint}overlap_" in (caught.value.hint or "")


def test_an_unknown_run_where_there_is_none(tmp_path: Path) -> None:
    assert runs(tmp_path / "missing") == runs(tmp_path) == []
    with pytest.raises(ResultError, match="no run 'latest'") as caught:
        find_run("latest", tmp_path)
    assert "Known: ." not in (caught.value.hint or ""), "a list of nothing helps nobody"


def test_a_table_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_table(run.path / "neurons.parquet", pl.DataFrame({"x": [1]}))
    assert run.table("neurons")["x"].to_list() == [1]
    with pytest.raises(ResultError, match=r"no summary\.parquet") as caught:
        run.table("summary")
    assert run.name in caught.value.message


def test_damage_that_ends_the_process_of_the_reader_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for the one bit in thousands that makes polars ask for more memory than there is, and abort."""
    write_table(tmp_path / "summary.parquet", pl.DataFrame({"rate": [0.5]}))
    manifest = {"schema_version": 2, "files": {"summary.parquet": "0" * 64}}
    write_json(tmp_path / "manifest.json", manifest)
    assert RunFolder(tmp_path).table("summary").height == 1, "it was edited, and can be read"
    calls = []
    ended = subprocess.CompletedProcess([], -signal.SIGABRT)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command) or ended)
    with pytest.raises(ResultError, match=r"summary\.parquet: it is damaged"):
        RunFolder(tmp_path).table("summary")
    manifest["files"] = {"summary.parquet": sha256(tmp_path / "summary.parquet")}
    write_json(tmp_path / "manifest.json", manifest)
    assert RunFolder(tmp_path).table("summary").height == 1
    assert len(calls) == 1


@pytest.mark.parametrize("limit", ["RUN_CELLS", "RUN_BYTES"])
def test_a_table_that_holds_too_much_is_not_read(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame({"rate": [0.5] * 100_000, "arm": ["ss"] * 100_000}).write_parquet(tmp_path / "summary.parquet")
    monkeypatch.setattr(limits, limit, 1_000)
    with pytest.raises(ResultError, match=r"summary\.parquet has "):
        RunFolder(tmp_path).table("summary")


def test_a_newer_schema_is_refused_and_an_older_one_is_read(tmp_path: Path) -> None:
    newer = make_run(tmp_path, "1_a_x", schema_version=results.SCHEMA_VERSION + 1)
    with pytest.raises(ResultError, match="newer ssn-probe") as caught:
        newer.manifest()
    assert "Upgrade" in (caught.value.hint or "")
    older = RunFolder(tmp_path / "2_b_y")
    write_json(older.path / "manifest.json", {"status": "done"})
    assert older.manifest() == {"status": "done"}


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[]", b'"x"', b'{"schema_version": "1"}'])
def test_a_manifest_that_is_none_is_a_result_error(content: bytes, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "manifest.json").write_bytes(content)
    with pytest.raises(ResultError, match=r"manifest\.json") as caught:
        run.manifest()
    assert caught.value.hint


PIPES = ("workers.py", "worker.py", "messages.py")
"""What a run and the processes that it has started tell each other, through their pipes."""


def test_no_pickle_is_ever_read_from_a_file_or_written_to_one() -> None:
    package = Path(ssn_probe.__file__).parent
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        imported = re.findall(r"^\s*(?:import|from) (pickle|dill|joblib|shelve|marshal)\b", text, re.M)
        assert not imported or (path.name in PIPES and imported == ["pickle"]), path


# ── the environment ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_environment_names_versions_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NDIF_API_KEY", "ndif_secret")
    monkeypatch.setattr(environment.sys, "argv", ["/somewhere/bin/ssn-probe", "run", "--key=argument_secret"])
    found = environment.environment()
    assert {"torch", "transformers", "nnsight", "polars"} <= set(found["packages"])
    assert "secret" not in json.dumps(found)
    assert found["command"] == "ssn-probe"


def test_outside_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.environment()["git"] is None
    monkeypatch.setenv("PATH", "")
    assert environment.environment()["git"] is None


def test_the_time_is_utc_to_the_second() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", environment.now())
