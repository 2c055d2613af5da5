"""The run folder: the files that a run leaves behind.

Every file is written under a temporary name and renamed, so that a file that exists is complete. The manifest has a
status (`running`, `done`, `failed`, `interrupted`); a failed run keeps its error and what it had measured. A run folder
contains no pickle and no token.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssn_probe import limits
from ssn_probe.errors import ResultError, nearest
from ssn_probe.files import disk_errors, sha256
from ssn_probe.runs.manifest import SCHEMA_VERSION
from ssn_probe.runs.schema_1 import upgraded_manifest, upgraded_table
from ssn_probe.spec import node
from ssn_probe.text import size

if TYPE_CHECKING:
    from ssn_probe.runs.recorded import Recorded

LOCK = ".lock"
"""A run locks this file until it ends."""
ROOM = ".room"
"""Disk space that a run reserves for its last manifest."""
PROGRESS = ".progress"
"""How far a run is, as JSON, until it ends: see `study.kept_progress`."""
STAMP = "%Y-%m-%dT%H-%M-%S"
"""The time that the name of a run's folder begins with, in UTC."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def manifest(self) -> "Recorded":
        """The record of the run. Raises ResultError for a manifest that is damaged or from a newer release."""
        from ssn_probe.runs.recorded import Recorded

        found = self.as_written()
        return Recorded(upgraded_manifest(found)) if found.get("schema_version") == 1 else found

    def as_written(self) -> "Recorded":
        """The record of the run with the fields of the release that wrote it."""
        from ssn_probe.runs.recorded import recorded

        return recorded(read_json(self.path / "manifest.json"))

    @property
    def from_schema_1(self) -> bool:
        """Was it written by a release whose tables named arms otherwise?"""
        path = self.path / "manifest.json"
        return os.path.lexists(path) and read_json(path).get("schema_version") == 1

    def _recorded_digest(self, name: str) -> str | None:
        with contextlib.suppress(ResultError):
            return self.as_written().get("files", {}).get(name)
        return None

    def table(self, name: str):
        """A parquet table of the run, such as samples, summary, neurons, overlap or log_odds."""
        import polars as pl

        path = self.path / f"{name}.parquet"
        if not os.path.lexists(path):
            raise ResultError(
                f"{self.name} has no {name}.parquet", "Its recipe does not make this table, or the run failed before."
            )
        limits.check_regular(path, limits.RUN_BYTES, ResultError)
        try:
            if self._recorded_digest(path.name) not in (None, sha256(path)):
                _check_harmless(path)
            _check_size(path)
            table = pl.read_parquet(path, glob=False)
            return upgraded_table(name, table) if self.from_schema_1 else table
        except (Exception, pl.exceptions.PanicException) as error:
            if isinstance(error, ResultError):
                raise
            raise ResultError(f"cannot read {path}: {error}", "Is it damaged? Run the recipe again.") from error


def _check_harmless(path: Path) -> None:
    """Some damaged bytes make polars ask for so much memory that its process is ended: here, another process.

    Raises ResultError where it was.
    """
    import subprocess

    command = [sys.executable, "-I", "-c", "import polars, sys; polars.read_parquet(sys.argv[1], glob=False)"]
    if subprocess.run([*command, path], capture_output=True, check=False).returncode not in (0, 1):
        raise ResultError(f"cannot read {path}: it is damaged", "Run the recipe again: what it measured is kept.")


def _check_size(path: Path) -> None:
    """A small file can hold more than the memory: its footer says so. Raises ResultError, ValueError if it has none."""
    from ssn_probe.tables.parquet_footer import rows_and_bytes

    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        rows, sizes = rows_and_bytes(content)
    if rows * len(sizes) > limits.RUN_CELLS or sizes.total() > limits.RUN_BYTES:
        raise ResultError(
            f"{path} has {rows:,} rows and {size(sizes.total())}, too much to be the table of a run",
            "Is it damaged? Run the recipe again.",
        )


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
    stamp = datetime.now(UTC).strftime(STAMP)
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
        try:
            (run.path / ROOM).write_bytes(bytes(2**18))
        except OSError:
            make_room(run)
            let_go(run, lock)
            raise
    return lock


def make_room(run: RunFolder) -> None:
    """Frees the reserved space, so that a run can record its end on a full disk."""
    (run.path / ROOM).unlink(missing_ok=True)


def let_go(run: RunFolder, lock: Any) -> None:
    """Unlocks the folder of a run whose status says how it ended."""
    (run.path / LOCK).unlink(missing_ok=True)
    lock.release()


@contextlib.contextmanager
def alone(run: RunFolder) -> Iterator[None]:
    """Inside, no other process writes to the run's folder. Raises ResultError where one does."""
    from filelock import Timeout

    try:
        lock = hold(run)
    except Timeout as error:
        raise ResultError(f"another process writes to {run.name}", "Wait until it has ended.") from error
    try:
        make_room(run)
        yield
    finally:
        let_go(run, lock)


def status(run: RunFolder, manifest: Mapping[str, Any]) -> str:
    """`running`, `done`, `failed` or `interrupted`; `killed` for a run that says `running` but has no lock."""
    from filelock import FileLock, Timeout

    recorded = str(manifest.get("status", "unknown"))
    if recorded != "running":
        return recorded
    if not (run.path / LOCK).exists():
        return "killed"
    try:
        with FileLock(run.path / LOCK, blocking=False):
            return "killed"
    except Timeout:
        return "running"
    except (OSError, NotImplementedError):  # in a read-only folder a lock cannot be tried
        return recorded


DIGESTED = (".parquet", ".json", ".md", ".html", ".py", ".safetensors", ".svg", ".png")


def digests(run: RunFolder) -> dict[str, str]:
    """Path within the run → SHA-256, for every table, text, picture and delta."""
    paths = [path for path in sorted(run.path.rglob("*")) if path.suffix in DIGESTED and path.is_file()]
    found = {path.relative_to(run.path).as_posix(): path for path in paths}
    return {name: sha256(path) for name, path in sorted(found.items()) if name != "manifest.json"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from disk. Raises ResultError if it cannot be read or is from a newer release."""
    hint = "Is it a folder that `ssn-probe run` wrote?"
    content = limits.read_limited(path, limits.MANIFEST, ResultError)
    if not content.strip(b"\0 \t\r\n"):
        raise ResultError(f"{path} is empty: the machine may have lost power", "Run the recipe again: it resumes.")
    try:
        data = node.read_json(content.decode("utf-8"))
    except ValueError as error:
        raise ResultError(f"cannot read {path}: {str(error)[:200]}", hint) from error
    version = data.get("schema_version", SCHEMA_VERSION) if isinstance(data, dict) else None
    if type(version) is not int:
        raise ResultError(f"{path} is not a manifest", hint)
    if version > SCHEMA_VERSION:
        raise ResultError(f"{path} was written by a newer ssn-probe", "Upgrade ssn-probe to read it.")
    return data


# ── the runs of a results folder ─────────────────────────────────────────────────────────────────────────────────────


def runs(root: Path) -> list[RunFolder]:
    """All runs in `root`, newest first: by the order that their manifests record, see `next_order`."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ResultError(f"cannot read the results folder {root}: {reason}", "Give a folder with -o DIR.") from error
    found = [RunFolder(root / name) for name in names if _is_run(root / name)]
    return sorted(found, key=lambda run: (_order(run), run.name), reverse=True)


def next_order(root: Path) -> int:
    """The place of a new run among those of `root`: milliseconds since 1970, or one more than the newest run's.

    So a clock that was set back makes no run older than those before it, and folders that are copied keep their order.
    """
    now = int(datetime.now(UTC).timestamp() * 1000)
    return max(now, 1 + max(map(_order, runs(root)), default=0))


def _is_run(path: Path) -> bool:
    """Is there a manifest, whatever it is? A link such as `latest` is no run of its own."""
    if os.path.islink(path):
        return False
    try:
        os.lstat(path / "manifest.json")
    except PermissionError:
        return _time_in_name(path) > 0
    except (OSError, ValueError):
        return False
    return True


def _order(run: RunFolder) -> int:
    """The order that a manifest records; where it records none, as those of earlier releases, the time in the name."""
    with contextlib.suppress(ResultError):
        order = run.as_written().get("order")
        if order is not None:
            return order
    return _time_in_name(run.path)


def _time_in_name(path: Path) -> int:
    try:
        return int(datetime.strptime(f"{path.name[:19]}+0000", f"{STAMP}%z").timestamp() * 1000)
    except ValueError:
        return 0


def run_named(root: Path, name: str) -> RunFolder | None:
    """The run that is called just so; a name is never followed as a path, and a link is no run."""
    try:
        known = any(name == entry for entry in os.listdir(root))
        return RunFolder(root / name) if known and _is_run(root / name) else None
    except OSError:
        return None


def find_run(reference: str, root: Path) -> RunFolder:
    """A run by its path, its name, `latest`, or a part of its name that no other run has."""
    for path in (Path(reference), root / reference):
        if os.path.lexists(path / "manifest.json"):
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
