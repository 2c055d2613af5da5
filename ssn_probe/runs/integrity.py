"""Is a run folder as it was written? The manifest against the digest of itself, every file against the manifest.

Digests find accidents: a file that was edited, damaged, lost or added. They do not find an author, who could write new
ones.
"""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ssn_probe import limits
from ssn_probe.errors import ResultError, SSNProbeError
from ssn_probe.files import sha256
from ssn_probe.runs.folder import DIGESTED, LOCK, PROGRESS, ROOM, RunFolder
from ssn_probe.runs.manifest import is_intact
from ssn_probe.text import listing

LARGE = (".safetensors",)
"""Kinds of files that are too large to be read before a run is shown."""
NAMED = 3
"""Changed files that a warning names."""
OWN = ("manifest.json", "run.log", LOCK, ROOM, PROGRESS)
"""Files of a run that have no digest in the manifest: `verify` compares the first two with what they must say."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was verified: `holds` is None where it could not be, and `why` says why or what differs."""

    what: str
    holds: bool | None
    why: str = ""


def manifest_finding(run: RunFolder) -> Finding:
    """Does the manifest match its own digest?"""
    holds = is_intact(run.as_written())
    why = {True: "", False: "its SHA-256 does not match", None: "the release that wrote it recorded no digest of it"}
    return Finding(what="manifest.json is as it was written", holds=holds, why=why[holds])


def file_findings(run: RunFolder, digests: Mapping[str, str]) -> Iterator[Finding]:
    """Every file that the manifest names, and every other one that is there."""
    present = _present(run.path)
    for name, digest in digests.items():
        path = present.get(name)
        why = "it is missing" if path is None else _change(path, digest)
        yield Finding(what=f"{name} is as it was written", holds=not why, why=why)
    for name in sorted(present.keys() - digests.keys()):
        ours = present[name].suffix in DIGESTED
        why = "the manifest names no such file: it was added later"
        yield Finding(what=f"{name} is a file of the run", holds=False if ours else None, why=why)


def warning(run: RunFolder) -> str | None:
    """What a reader must know of a run that is not as it was written; large files are left to `verify`.

    Raises ResultError for a manifest that cannot be read.
    """
    digests = run.manifest().get("files", {})
    small = {name: digest for name, digest in digests.items() if not name.endswith(LARGE)}
    present = _present(run.path)
    changed = ["manifest.json"] if is_intact(run.as_written()) is False else []
    changed += [name for name, digest in small.items() if name not in present or _change(present[name], digest)]
    if not changed:
        return None
    more = [f"{len(changed) - NAMED:,} more"] if len(changed) > NAMED else []
    return (
        f"{listing(changed[:NAMED] + more)} of {run.name} changed since the run wrote them: what is shown may not be "
        f"what was found. `ssn-probe verify {shlex.quote(run.name)}` says more."
    )


@contextlib.contextmanager
def showing(run: RunFolder) -> Iterator[None]:
    """Whatever fails while the files of a run are shown is an error of these files, unless they are as written."""
    import polars as pl

    try:
        yield
    except (SSNProbeError, MemoryError):
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        if _is_untouched(run):
            raise
        raise ResultError(
            f"{run.name} cannot be shown: its tables are not those that a run writes ({type(error).__name__}: {error})",
            "Are they damaged? Run the recipe again: what it measured is kept.",
        ) from error


def _is_untouched(run: RunFolder) -> bool:
    written = run.as_written()
    return bool(is_intact(written)) and "files" in written and warning(run) is None


def _present(folder: Path) -> dict[str, Path]:
    """Every file of a run, by its path within the folder, but for those that have no digest."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {name: path for name, path in paths.items() if name not in OWN and (path.is_symlink() or not path.is_dir())}


def _change(path: Path, digest: str) -> str:
    """What became of a file since its digest was taken."""
    try:
        limits.check_regular(path, None, ResultError)
        return "" if sha256(path) == digest else "its SHA-256 does not match"
    except ResultError as error:
        return error.message
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
