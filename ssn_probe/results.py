"""The run folder: what a run leaves behind, whole or not at all.

Every file is written to a temporary name and renamed, so what exists is complete. The manifest carries a status
(`running`, `done`, `failed`, `interrupted`); a failed run keeps its error and what it had measured. No pickle, no
key, no token.
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ssn_probe.errors import ResultError, nearest

SCHEMA_VERSION = 1
LOCK = ".lock"
"""Held by a run as long as it lives."""
ROOM = ".room"
"""Room for its last words."""
PACKAGES = ("ssn-probe", "torch", "transformers", "nnsight", "polars", "numpy", "scipy", "safetensors", "tokenizers")


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def manifest(self) -> dict[str, Any]:
        """What is recorded of the run. Raises ResultError for a manifest that is damaged or of a newer release."""
        return read_json(self.path / "manifest.json")

    def table(self, name: str):
        """One of the run's parquet tables: samples, summary, neurons, overlap, log_odds."""
        import polars as pl

        path = self.path / f"{name}.parquet"
        if not path.is_file():
            raise ResultError(f"{self.name} has no {name}.parquet", "Its recipe measured no such thing, or it failed.")
        try:
            return pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ResultError(f"cannot read {path}: {error}", "Is it damaged? Run the recipe again.") from error


def prepare(root: Path) -> Path:
    """The results folder, made and checked for writing before anything is computed."""
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    return root


def create_run(root: Path, name: str, key: str) -> RunFolder:
    """A new folder `<time>_<name>_<key>`; two runs in one second get different names."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    with disk_errors(root):
        for attempt in range(100):
            suffix = f"-{attempt}" if attempt else ""
            path = root / f"{stamp}_{name}_{key[:8]}{suffix}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return RunFolder(path)
    raise ResultError(f"cannot name a new run in {root}", "A hundred runs started this second; start again.")


def hold(run: RunFolder) -> Any:
    """Holds a run folder as long as this process lives, so that others can tell a run from one that was killed."""
    from filelock import FileLock

    with disk_errors(run.path):
        lock = FileLock(run.path / LOCK)
        lock.acquire(timeout=0)
        (run.path / ROOM).write_bytes(bytes(2**18))
    return lock


def make_room(run: RunFolder) -> None:
    """Frees what was reserved, so that a run can say how it ended on a disk that is full."""
    (run.path / ROOM).unlink(missing_ok=True)


def let_go(run: RunFolder, lock: Any) -> None:
    """The run has ended, and its status says how."""
    (run.path / LOCK).unlink(missing_ok=True)
    lock.release()


def status(run: RunFolder, manifest: Mapping[str, Any]) -> str:
    """`running`, `done`, `failed`, `interrupted`; `killed` where a run says that it runs and nobody holds it."""
    from filelock import FileLock, Timeout

    told = str(manifest.get("status", "unknown"))
    if told != "running":
        return told
    try:
        with FileLock(run.path / LOCK, blocking=False):
            return "killed"
    except Timeout:
        return "running"
    except OSError:  # a folder that may only be read: there is no telling
        return told


DIGESTED = (".parquet", ".json", ".md", ".py", ".safetensors", ".svg", ".png")


def digests(run: RunFolder) -> dict[str, str]:
    """SHA-256 of every table, text, picture and delta of a run, by its path within it."""
    found = {path.relative_to(run.path).as_posix(): path for path in run.path.rglob("*") if path.suffix in DIGESTED}
    return {name: sha256(path) for name, path in sorted(found.items()) if name != "manifest.json"}


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Writes JSON, indented, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, frame: Any) -> None:
    """Writes a polars frame as parquet, whole or not at all."""
    write_whole(path, lambda temporary: frame.write_parquet(temporary))


def write_whole(path: Path, write: Callable[[Path], object], named: Callable[[Path], Path] | None = None) -> Path:
    """Lets `write` fill a temporary file, then renames it: `path` is whole or not there.

    `named` gives another path from what was written. Returns the path.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            path = named(temporary) if named else path
            os.replace(temporary, path)
            return path
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk can say into one ResultError that names the fix."""
    try:
        yield
    except Exception as error:
        code = _errno(error)
        if code is None:
            raise
        if code in (errno.ENOSPC, errno.EDQUOT):
            hint = "The disk is full. Free some space, or choose another folder with -o DIR."
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "It cannot be written. Choose another folder with -o DIR."
        else:
            hint = "Choose another folder with -o DIR."
        raise ResultError(f"cannot write {path}: {os.strerror(code)}", hint) from error


def _errno(error: Exception) -> int | None:
    """The system's error number; polars and safetensors, written in Rust, put it into their text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from disk, or a ResultError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"cannot read {path}: {error}", "Is it a folder that `ssn-probe run` wrote?") from error
    version = data.get("schema_version", SCHEMA_VERSION) if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise ResultError(f"{path} is no manifest", "Is it a folder that `ssn-probe run` wrote?")
    if version > SCHEMA_VERSION:
        raise ResultError(f"{path} was written by a newer ssn-probe", "Upgrade ssn-probe to read it.")
    return data


def runs(root: Path) -> list[RunFolder]:
    """Every run below `root`, newest first."""
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if (path / "manifest.json").is_file() and not path.is_symlink()]
    return [RunFolder(path) for path in sorted(found, key=lambda path: path.name, reverse=True)]


def find_run(reference: str, root: Path) -> RunFolder:
    """A run by path, by name, by `latest`, or by a part of its name that only it has."""
    for path in (Path(reference), root / reference):
        if (path / "manifest.json").is_file():
            return RunFolder(path.resolve())
    known = runs(root)
    matches = [run for run in known if reference in run.name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ResultError(f"{reference!r} fits {len(matches)} runs", f"Newest: {matches[0].name}.")
    hint = nearest(reference, [run.name for run in known[:5]]) if known else "No runs yet: ssn-probe run suppress_ss."
    raise ResultError(f"no run {reference!r} in {root}", hint)


def point_latest(root: Path, run: RunFolder) -> None:
    """Makes `latest` point to the run; a file system without links goes without."""
    temporary = root / f".latest.{os.getpid()}"
    with contextlib.suppress(OSError):
        try:
            temporary.symlink_to(run.name, target_is_directory=True)
            os.replace(temporary, root / "latest")
        finally:
            temporary.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """The packages that can change a number, as they are installed."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def environment() -> dict[str, Any]:
    """What computed the numbers: packages, Python, platform, git commit of the working folder."""
    return {
        "packages": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git(),
        "command": Path(sys.argv[0]).name,
    }


def _git() -> dict[str, Any] | None:
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
