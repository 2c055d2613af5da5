"""Writing files completely or not at all: under a temporary name, then renamed. Disk errors become one ResultError.

A file is on the disk itself before it gets its name, so that it also survives a power loss. That takes some
milliseconds; the many parts of the cache, whose names contain their digests, do without.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssn_probe.errors import ResultError

ELSEWHERE = "choose another folder with -o DIR"
"""How most commands are told to write somewhere else."""


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Writes a text file completely or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), durable=durable)


def write_json(path: Path, data: Any, *, durable: bool = True) -> None:
    """Writes indented JSON, completely or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", durable=durable)


def write_table(path: Path, frame: Any) -> None:
    """Writes a polars frame as parquet, completely or not at all."""
    write_whole(path, lambda temporary: frame.write_parquet(temporary))


def write_whole(
    path: Path,
    write: Callable[[Path], object],
    named: Callable[[Path], Path] | None = None,
    *,
    durable: bool = True,
    elsewhere: str = ELSEWHERE,
) -> Path:
    """Calls `write` with a temporary path and renames that file to `path`, which it returns.

    If `named` is given, it computes the final path from the temporary file. `durable`: it has to survive a power loss.
    `elsewhere`: see `disk_errors`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path, elsewhere):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            path = named(temporary) if named else path
            if durable:
                sync_file(temporary)
            os.replace(temporary, path)
            if durable:
                sync_folder(path.parent)
            return path
        finally:
            temporary.unlink(missing_ok=True)


def remove_half_written(path: Path) -> None:
    """Removes what killed processes left of this file; for files that only one process writes."""
    for left in sorted(path.parent.glob(f".{glob.escape(path.name)}.*.tmp")):
        if not left.is_dir():
            left.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Waits until what was written to a file is on the disk itself."""
    with path.open("rb+") as stream:  # Windows syncs only what is open for writing
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk itself, where the platform can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def let_others_read(path: Path) -> None:
    """Gives a file the mode of any new file: safetensors writes files that only their owner can read."""
    umask = os.umask(0o077)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def cache_folder() -> Path:
    """Where what is fetched is kept for every run: $SSN_PROBE_CACHE, else `ssn-probe` in the user's cache folder."""
    own, shared = os.environ.get("SSN_PROBE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(os.path.expanduser(own or os.path.join(shared or "~/.cache", "ssn-probe"))).absolute()


@contextlib.contextmanager
def disk_errors(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turns an error of the disk into a ResultError that names the fix; `elsewhere`: how to write somewhere else."""
    try:
        yield
    except Exception as error:
        code = _errno(error)
        if code is None:
            raise
        if code in (errno.ENOSPC, errno.EDQUOT):
            hint = f"The disk is full. Free some space, or {elsewhere}."
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = f"The folder cannot be written. {elsewhere[0].upper()}{elsewhere[1:]}."
        else:
            hint = f"{elsewhere[0].upper()}{elsewhere[1:]}."
        raise ResultError(f"cannot write {path}: {os.strerror(code)}", hint) from error


@contextlib.contextmanager
def temporary_files() -> Iterator[None]:
    """Turns an error of the disk on files that are kept for a moment only into a ResultError that names the fix."""
    with disk_errors(Path(os.environ.get("TMPDIR") or "/tmp"), "set TMPDIR to a folder that has room"):
        yield


def _errno(error: Exception) -> int | None:
    """The error number of the system. Polars and safetensors, written in Rust, mention it only in their text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
