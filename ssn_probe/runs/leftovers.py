"""What killed runs have left in a results folder, and what the cache holds for nobody: found, and removed when told.

Whether something is in use is decided by its lock, which ends with its process. Process numbers say nothing: they are
used again, and a folder may be shared by machines. What has no lock is left over once nobody has changed it for an
hour. No symbolic link is followed out of the folder, and only names that ssn-probe gives are looked at.

An entry of the cache is for nobody if no run refers to it. What a run that has not ended would use again is not
recorded, so everything that changed since it began is kept. While a run is running, or where one does not say what it
refers to, all entries are.
"""

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssn_probe.errors import ResultError, SSNProbeError
from ssn_probe.files import sha256
from ssn_probe.model.kept import FOLDER as KNOWN
from ssn_probe.runs.folder import LOCK, PROGRESS, ROOM, RunFolder, read_json
from ssn_probe.runs.verdict_store import FOLDER
from ssn_probe.text import size

HOUR = 3600
RUN = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)_.+_[0-9a-f]{8}(-\d+)?")
ENTRY = re.compile(r"[0-9a-f]{64}")
TEMPORARY = re.compile(r"\..+\.tmp")
LINK = re.compile(r"\.latest\.\d+")


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something that can go: a file or a whole folder. `lock`: the file that whoever uses it has locked."""

    what: str
    path: Path
    size: int
    lock: Path | None = None


@dataclass(kw_only=True)
class Survey:
    """What was found in a results folder; `notes` say what was left alone, and why."""

    root: Path
    found: list[Leftover] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    running: bool = False

    def add(self, what: str, path: Path, lock: Path | None = None) -> None:
        self.found.append(Leftover(what=what, path=path, size=_size(path), lock=lock))


def survey(root: Path, methods: Mapping[str, int]) -> Survey:
    """Everything in a results folder that can go; `methods`: versions of the measurements that this release makes.

    Raises ResultError for a folder that is not there or cannot be read.
    """
    if not root.is_dir():
        raise ResultError(f"{root} is not a folder.", "Name the results folder: -o DIR.")
    result = Survey(root=root)
    children = _children(root)
    runs = [path for path in children if RUN.fullmatch(path.name) and _is_folder(path)]
    for path in runs:
        if _is_open(path):
            _look_into_run(result, path)
    _look_for_temporary(result, children)
    cache = root / "cache"
    if cache.is_symlink():
        result.notes.append(f"{cache} is a link: what it leads to is left alone.")
    elif cache.is_dir():
        _look_into_cache(result, cache, runs, methods)
    return result


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(Path(child.path) for child in os.scandir(folder))
    except OSError as error:
        hint = "Clean as the user who owns it, or choose another folder with -o DIR."
        raise ResultError(f"cannot read {folder}: {error.strerror}", hint) from error


def remove(result: Survey) -> Iterator[tuple[Leftover, str]]:
    """Removes what was found, one after the other; gives each with the reason why it could not be, if it could not."""
    for leftover in result.found:
        why = ""
        try:
            with _held(leftover.lock) as free:
                if not free:
                    why = "it is in use now"
                elif _is_folder(leftover.path):
                    shutil.rmtree(leftover.path)
                else:
                    leftover.path.unlink(missing_ok=True)
        except OSError as error:
            why = error.strerror or str(error)
        yield leftover, why


def _look_into_run(result: Survey, run: Path) -> None:
    lock = run / LOCK if os.path.lexists(run / LOCK) else None
    if not _is_free(lock, run):
        if lock is not None or not _is_file(run / "manifest.json"):
            result.notes.append(f"{run.name} is running, or has just begun: it and the cache are left alone.")
            result.running = True
        return
    left = [path for path in (run / LOCK, run / ROOM, run / PROGRESS) if _is_file(path)]
    left += [path for path in _files(run) if TEMPORARY.fullmatch(path.name)]
    if not set(_files(run)) - set(left):
        result.add("folder of a run that ended before its first file", run, lock)
        return
    # The lock goes last: it is held while the others are removed.
    for path in sorted(left, key=lambda path: path.name == LOCK):
        result.add("what a killed run left in its folder", path, lock)


def _look_for_temporary(result: Survey, children: Sequence[Path]) -> None:
    for path in children:
        if path.is_symlink():
            if LINK.fullmatch(path.name) and _unchanged(path):
                result.add("link that was never renamed", path)
        elif TEMPORARY.fullmatch(path.name):
            lock = path / "lock" if _is_file(path / "lock") else None
            if _is_free(lock, path):
                result.add("model or file that was never complete", path, lock)


def _look_into_cache(result: Survey, cache: Path, runs: Sequence[Path], methods: Mapping[str, int]) -> None:
    wanted, since = _wanted(result, runs)
    in_use = 0
    if (verdicts := cache / FOLDER).is_dir():
        result.notes.append(f"{verdicts} ({size(_size(verdicts))}) is kept: verdicts of judges, which cost something.")
    if (models := cache / KNOWN).is_dir():
        found = f"{models} ({size(_size(models))})"
        result.notes.append(f"{found} is kept: what was read of models and prompts. Removed, it is read again.")
    for entry in _children(cache):
        if entry.name == "proofs" and _is_folder(entry):
            for path in _files(entry):
                if TEMPORARY.fullmatch(path.name) and _unchanged(path):
                    result.add("file that was never complete", path)
        if not ENTRY.fullmatch(entry.name) or not _is_folder(entry):
            continue
        if _is_free(entry / "lock", entry):
            _look_into_entry(result, entry, wanted, since, methods)
        else:
            in_use += 1
    if in_use:
        what = f"{in_use:,} of its entries are" if in_use > 1 else "One of its entries is"
        result.notes.append(f"The cache: {what} in use, or cannot be locked by you, and left alone.")


def _look_into_entry(
    result: Survey, entry: Path, wanted: set[str] | None, since: float, methods: Mapping[str, int]
) -> None:
    lock = entry / "lock" if _is_file(entry / "lock") else None
    files = _files(entry)
    parts = [path for path in files if path.suffix in (".safetensors", ".parquet")]
    what, old = _method(entry, methods)
    if not parts:
        result.add("cache entry without a measurement", entry, lock)
    elif wanted is not None and entry.name not in wanted and (old or _changed(entry) < since):
        result.add(f"cache, for no run: {what}", entry, lock)
    else:
        is_trained = any(path.name.startswith("history.") for path in parts)
        for path in files:
            if TEMPORARY.fullmatch(path.name) or (path.name == "checkpoint.safetensors" and is_trained):
                result.add("what a killed run left in the cache", path, lock)


def _method(entry: Path, methods: Mapping[str, int]) -> tuple[str, bool]:
    """What an entry holds, and whether it is of a version that this release never reads."""
    try:
        what = read_json(entry / "what.json")
        name, version = str(what["method"]), what["version"]
    except (SSNProbeError, KeyError):
        return "unknown method", False
    old = name in methods and version != methods[name]
    return f"{name}, of another version" if old else name, old


def _wanted(result: Survey, runs: Sequence[Path]) -> tuple[set[str] | None, float]:
    """The entries that runs refer to, None if one does not say; and since when changed entries are kept in any case."""
    wanted: set[str] = set()
    ended: set[str] = set()
    since, silent = float("inf"), []
    for run in reversed(runs):  # newest first
        if not _is_open(run):
            silent.append(run.name)
            continue
        if not _is_file(run / "manifest.json"):
            continue
        try:
            manifest = RunFolder(run).manifest()
            if manifest.get("status") == "done":
                wanted |= _entries(run, manifest)
                ended.add(str(manifest.get("key")))
            elif str(manifest.get("key")) not in ended:
                since = min(since, _began(run))
        except Exception:  # a damaged manifest may hold anything
            silent.append(run.name)
    if since < float("inf") and not result.running:
        result.notes.append(
            f"What changed in the cache since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC is kept: "
            "a run that began then is not done, and the same command goes on with it. To give it up, remove its "
            "folder."
        )
    if silent:
        more = f" and {len(silent) - 1} more" if silent[1:] else ""
        result.notes.append(f"The cache is kept: {silent[0]}{more} cannot be read, so what it needs is unknown.")
    return (None if silent or result.running else wanted), since


def _entries(run: Path, manifest: Mapping[str, Any]) -> set[str]:
    """The entries whose parts a run has used. Raises ResultError where its list is not there or is damaged."""
    path = run / "parts.json"
    parts = read_json(path)["parts"]
    if manifest["files"]["parts.json"] != sha256(path):
        raise ResultError(f"{path} is damaged.", "Run the recipe again.")
    return {str(part).partition("/")[0] for part in parts}


def _began(run: Path) -> float:
    """When a run began, by its name and by its files: clocks are set back."""
    found = RUN.fullmatch(run.name)
    named = datetime.strptime(found[1], "%Y-%m-%dT%H-%M-%S").replace(tzinfo=UTC).timestamp() if found else 0.0
    return min([named, *(path.lstat().st_mtime for path in _files(run))])


def _is_free(lock: Path | None, folder: Path) -> bool:
    """Does nobody hold the lock? Without one: has nobody changed the folder for an hour?"""
    if lock is None or not os.path.lexists(lock):
        return _unchanged(folder)
    if not _is_file(lock):
        return False
    with _held(lock) as free:
        return free


@contextlib.contextmanager
def _held(lock: Path | None) -> Iterator[bool]:
    """Holds a lock if nobody else does; gives whether it could."""
    from filelock import FileLock, Timeout

    if lock is None or not _is_file(lock):
        yield True
        return
    try:
        held = FileLock(lock, blocking=False).acquire()
    except (OSError, Timeout):
        yield False
        return
    with held:
        yield True


def _unchanged(path: Path) -> bool:
    return _changed(path) < time.time() - HOUR


def _changed(path: Path) -> float:
    """When a file, or the last one below a folder, was changed."""
    with contextlib.suppress(OSError):
        return max([path.lstat().st_mtime, *(each.lstat().st_mtime for each in _files(path))])
    return float("inf")


def _files(folder: Path) -> list[Path]:
    """All that is below a folder and is no folder; links are listed and not followed."""
    return [Path(where) / name for where, _, names in os.walk(folder) for name in sorted(names)]


def _size(path: Path) -> int:
    each = _files(path) if _is_folder(path) else [path]
    return sum(one.lstat().st_size for one in each if os.path.lexists(one))


def _is_file(path: Path) -> bool:
    return os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode)


def _is_open(run: Path) -> bool:
    """May we look into it? In the folder of somebody else, a file that is there seems not to be."""
    return os.access(run, os.R_OK | os.X_OK)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
