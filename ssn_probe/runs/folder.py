"""The run folder: the files that a run leaves behind.

Every file is written under a temporary name and renamed, so that a file that exists is complete. The manifest has a
status (`running`, `done`, `failed`, `interrupted`); a failed run keeps its error and what it had measured. A run folder
contains no pickle and no token.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssn_probe.errors import ResultError, nearest
from ssn_probe.files import disk_errors, sha256
from ssn_probe.runs.manifest import SCHEMA_VERSION
from ssn_probe.runs.schema_1 import upgraded_manifest, upgraded_table

LOCK = ".lock"
"""A run locks this file until it ends."""
ROOM = ".room"
"""Disk space that a run reserves for its last manifest."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def manifest(self) -> dict[str, Any]:
        """The record of the run. Raises ResultError for a manifest that is damaged or from a newer release."""
        found = read_json(self.path / "manifest.json")
        return upgraded_manifest(found) if found.get("schema_version") == 1 else found

    @property
    def from_schema_1(self) -> bool:
        """Was it written by a release whose tables named arms otherwise?"""
        path = self.path / "manifest.json"
        return path.is_file() and read_json(path).get("schema_version") == 1

    def table(self, name: str):
        """A parquet table of the run, such as samples, summary, neurons, overlap or log_odds."""
        import polars as pl

        path = self.path / f"{name}.parquet"
        if not path.is_file():
            raise ResultError(
                f"{self.name} has no {name}.parquet", "Its recipe does not make this table, or the run failed before."
            )
        try:
            table = pl.read_parquet(path, glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ResultError(f"cannot read {path}: {error}", "Is it damaged? Run the recipe again.") from error
        return upgraded_table(name, table) if self.from_schema_1 else table


def prepare(root: Path) -> Path:
    """Makes the results folder, and checks that files can be written there, before anything is computed."""
    try:
        str(root.absolute()).encode()
    except UnicodeEncodeError as error:  # polars opens files by Unicode names only
        hint = "Set PYTHONUTF8=1 before the command, or choose another folder with -o DIR."
        raise ResultError(f"the name of the results folder is not Unicode text: {str(root)!r}", hint) from error
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    return root


def create_run(root: Path, name: str, key: str) -> RunFolder:
    """A new folder `<time>_<name>_<key>`; a number is added for runs that start in the same second."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    with disk_errors(root):
        for attempt in range(100):
            suffix = f"-{attempt}" if attempt else ""
            path = root / f"{stamp}_{name}_{key[:8]}{suffix}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return RunFolder(path)
    raise ResultError(f"cannot name a new run in {root}", "A hundred runs started in this second: start it again.")


def hold(run: RunFolder) -> Any:
    """Locks a run folder until this process ends, so that others can distinguish a run from one that was killed."""
    from filelock import FileLock

    with disk_errors(run.path):
        lock = FileLock(run.path / LOCK)
        lock.acquire(timeout=0)
        (run.path / ROOM).write_bytes(bytes(2**18))
    return lock


def make_room(run: RunFolder) -> None:
    """Frees the reserved space, so that a run can record its end on a full disk."""
    (run.path / ROOM).unlink(missing_ok=True)


def let_go(run: RunFolder, lock: Any) -> None:
    """Unlocks the folder of a run whose status says how it ended."""
    (run.path / LOCK).unlink(missing_ok=True)
    lock.release()


def status(run: RunFolder, manifest: Mapping[str, Any]) -> str:
    """`running`, `done`, `failed` or `interrupted`; `killed` for a run that says `running` but has no lock."""
    from filelock import FileLock, Timeout

    recorded = str(manifest.get("status", "unknown"))
    if recorded != "running":
        return recorded
    try:
        with FileLock(run.path / LOCK, blocking=False):
            return "killed"
    except Timeout:
        return "running"
    except OSError:  # in a read-only folder a lock cannot be tried
        return recorded


DIGESTED = (".parquet", ".json", ".md", ".py", ".safetensors", ".svg", ".png")


def digests(run: RunFolder) -> dict[str, str]:
    """Path within the run → SHA-256, for every table, text, picture and delta."""
    paths = [path for path in sorted(run.path.rglob("*")) if path.suffix in DIGESTED]
    found = {path.relative_to(run.path).as_posix(): path for path in paths}
    return {name: sha256(path) for name, path in sorted(found.items()) if name != "manifest.json"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from disk. Raises ResultError if it cannot be read or is from a newer release."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"cannot read {path}: {error}", "Is it a folder that `ssn-probe run` wrote?") from error
    version = data.get("schema_version", SCHEMA_VERSION) if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise ResultError(f"{path} is not a manifest", "Is it a folder that `ssn-probe run` wrote?")
    if version > SCHEMA_VERSION:
        raise ResultError(f"{path} was written by a newer ssn-probe", "Upgrade ssn-probe to read it.")
    return data


def runs(root: Path) -> list[RunFolder]:
    """All runs in `root`, newest first."""
    if not root.is_dir():
        return []
    newest_first = sorted(root.iterdir(), reverse=True)
    return [RunFolder(path) for path in newest_first if (path / "manifest.json").is_file() and not path.is_symlink()]


def find_run(reference: str, root: Path) -> RunFolder:
    """A run by its path, its name, `latest`, or a part of its name that no other run has."""
    for path in (Path(reference), root / reference):
        if (path / "manifest.json").is_file():
            return RunFolder(path.resolve())
    known = runs(root)
    matches = [run for run in known if reference in run.name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ResultError(f"{reference!r} matches {len(matches)} runs", f"The newest is {matches[0].name}.")
    hint = nearest(reference, [run.name for run in known[:5]]) if known else "No runs yet: ssn-probe run suppress_ss."
    raise ResultError(f"no run {reference!r} in {root}", hint)


def point_latest(root: Path, run: RunFolder) -> None:
    """Makes `latest` a link to the run, on file systems that have links."""
    temporary = root / f".latest.{os.getpid()}"
    with contextlib.suppress(OSError):
        try:
            temporary.symlink_to(run.name, target_is_directory=True)
            os.replace(temporary, root / "latest")
        finally:
            temporary.unlink(missing_ok=True)
