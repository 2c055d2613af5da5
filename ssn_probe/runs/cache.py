"""What was measured, on disk under its key: shared by recipes, arms and runs, and the reason why a run can be killed.

`<root>/<key>/` holds what one measurement gave. The key is the SHA-256 of what decides the numbers (model, prompts,
neurons, method with its version); `what.json` says it in words. The rest are parts, one per batch, written whole and
renamed: what `kill -9` leaves behind is complete batches. The name of a part contains the SHA-256 of its bytes, so that
damage is noticed, reported, and computed again. A lock per entry lets runs that want the same wait for each other.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ssn_probe.errors import ResultError
from ssn_probe.files import disk_errors, sha256, write_json, write_whole
from ssn_probe.limits import MANIFEST, read_limited
from ssn_probe.spec.node import digest
from ssn_probe.tracing.batching import Part, covered

if TYPE_CHECKING:
    from torch import Tensor  # a run that finds everything here imports no torch

Frames = dict[str, pl.DataFrame]
DAMAGED = "in the cache is damaged"
"""What every warning of a damaged part says."""


class VanishedError(ResultError):
    """A part was removed, or another one put in its place, while it was in use."""


class NotCached(Exception):
    """What was asked for has not been computed, and must not be now."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cache:
    """A folder of entries, and how to treat it.

    `fresh`: nothing that was there before is used. `compute`: where False, nothing is computed or written: what is not
    there raises `NotCached`; with `derive`, tables that need no model are computed all the same, and not kept. `warn`
    gets a message per damaged file, `waiting` one if another run computes the entry; `pause` is called until it has.
    """

    root: Path
    fresh: bool = False
    compute: bool = True
    derive: bool = False
    warn: Callable[[str], None] = lambda _message: None
    waiting: Callable[[str], None] = lambda _message: None
    pause: Callable[[], None] = lambda: time.sleep(0.2)
    held: set[Path] = field(default_factory=set)
    """Entries that are in use here."""
    seen: set[Path] = field(default_factory=set)
    """Files whose digest was found right, or that were written here."""
    opened: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    """How many entries were `read` and how many `computed`, all or in part."""

    @property
    def used(self) -> list[str]:
        """The names of all parts that were read or written, digests in them: of which bytes the tables were made."""
        return sorted(f"{path.parent.name}/{path.name}" for path in self.seen)

    def count(self, complete: bool, what: Mapping[str, Any]) -> None:
        """Notes whether an entry was there. Raises NotCached where it was not and nothing may be computed."""
        if not complete and not self.compute:
            raise NotCached(what)
        self.counts["read" if complete else "computed"] += 1

    @contextmanager
    def entry(self, what: Mapping[str, Any]) -> Iterator["Entry"]:
        """The entry of a measurement, to read and to add to; nobody else does meanwhile."""
        key = digest(what)
        folder = self.root / key
        with self._locked(folder) if self.compute else nullcontext():
            stale = frozenset(_files(folder)) if self.fresh and key not in self.opened else frozenset()
            if self.compute and not _says(folder / "what.json", key):
                write_json(folder / "what.json", dict(what), durable=False)
            entry = Entry(cache=self, folder=folder, stale=stale)
            yield entry
            for path in stale - self.seen:
                path.unlink(missing_ok=True)
            self.opened.add(key)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        from filelock import FileLock, Timeout

        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "lock")
            told = folder in self.held
            while not lock.is_locked:
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    if not told:
                        self.waiting("another run is computing the same; waiting for it")
                    told = True
                    self.pause()
            self.held.add(folder)
        try:
            for left in sorted(folder.glob(".*.tmp")):  # by a run that was killed as it wrote
                left.unlink(missing_ok=True)
            yield
        finally:
            self.held.discard(folder)
            lock.release()

    def frames(self, what: Mapping[str, Any], names: Sequence[str], compute: Callable[[], Frames]) -> Frames:
        """Tables by name, computed once for all runs: for what takes long and needs no model."""
        with self.entry(what) as entry:
            found = entry.frames()
            complete = set(found) == set(names)
            if complete or not self.derive:
                self.count(complete, what)
            if complete:
                return found
            made = compute()
            assert set(made) == set(names), f"{what} gave {sorted(made)}"
            for name, frame in made.items() if self.compute else ():
                entry.write(name, ".parquet", frame.write_parquet)
            return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One measurement. As a `Shelf` it holds one safetensors file per batch; `stale` files are not looked at."""

    cache: Cache
    folder: Path
    stale: frozenset[Path] = frozenset()
    known: dict[Path, "FilePart"] = field(default_factory=dict)

    def parts(self) -> Sequence[Part]:
        """The intact batches, by their first prompt. One whose prompts a larger one has is left out."""
        for path in self._intact(".safetensors"):
            if path not in self.known:
                self.known[path] = FilePart(path=path, rows=_rows(path))
        taken: set[int] = set()
        kept = []
        for part in sorted(self.known.values(), key=lambda part: (-len(part.rows), part.path.name)):
            if taken.isdisjoint(part.rows):
                kept.append(part)
                taken.update(part.rows)
        return sorted(kept, key=lambda part: min(part.rows))

    def put(self, rows: Sequence[int], values: Mapping[str, "Tensor"]) -> None:
        import torch
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous() for name, tensor in values.items()} | {"rows": torch.tensor(list(rows))}
        path = self.write(f"{min(rows):08}", ".safetensors", lambda temporary: save_file(tensors, temporary))
        self.known[path] = FilePart(path=path, rows=tuple(rows))

    def complete(self, prompts: int) -> bool:
        """Is there a batch for every prompt?"""
        return covered(self, prompts)

    def frames(self) -> Frames:
        """The intact tables by name."""
        return {path.name.split(".")[0]: pl.read_parquet(path, glob=False) for path in self._intact(".parquet")}

    def file(self, name: str, suffix: str) -> Path | None:
        """The intact part of this name and kind, if there is one."""
        return next((path for path in self._intact(suffix) if path.name.split(".")[0] == name), None)

    def write(self, name: str, suffix: str, write: Callable[[Path], object], *, durable: bool = False) -> Path:
        """Writes a part whole or not at all; returns its path, which ends in the digest of what was written.

        A part that a power loss damages is noticed and computed again; `durable` ones must survive it.
        """

        def named(temporary: Path) -> Path:
            return self.folder / f"{name}.{sha256(temporary)}{suffix}"

        path = write_whole(self.folder / f"{name}{suffix}", write, named, durable=durable)
        self.cache.seen.add(path)
        return path

    def _intact(self, suffix: str) -> list[Path]:
        """The files of a kind whose bytes are those that were written; others are reported and removed."""
        seen, files = self.cache.seen, [path for path in _files(self.folder) if path.suffix == suffix]
        unknown = [path for path in files if path not in seen and path not in self.stale]
        seen.update(path for path in unknown if self._sound(path))
        return [path for path in files if path in seen]

    def _sound(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            if sha256(path) == path.name.split(".")[-2]:
                return True
        self.cache.warn(f"{path} {DAMAGED}: its values are computed again")
        if self.cache.compute:
            with disk_errors(path):
                path.unlink(missing_ok=True)
        return False


@dataclass(frozen=True, kw_only=True, eq=False)
class FilePart:
    """A batch on disk; values are read when they are asked for, and no more of them than that."""

    path: Path
    rows: tuple[int, ...]

    def names(self) -> Collection[str]:
        with _opened(self.path) as file:
            return set(file.keys()) - {"rows"}

    def get(self, name: str) -> "Tensor":
        with _opened(self.path, "pt") as file:
            return file.get_tensor(name)

    def at(self, name: str, layer: int) -> "Tensor":
        with _opened(self.path, "pt") as file:
            return file.get_slice(name)[:, layer]

    def array(self, name: str) -> np.ndarray:
        with _opened(self.path) as file:
            return file.get_tensor(name)

    def array_at(self, name: str, layer: int) -> np.ndarray:
        with _opened(self.path) as file:
            return file.get_slice(name)[:, layer]


@contextmanager
def _opened(path: Path, framework: str = "numpy") -> Iterator[Any]:
    """A safetensors file; one that has gone meanwhile is one clear error."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise VanishedError(
            f"{path} was removed or changed while it was in use: {error}", "Run the same command again: it resumes."
        ) from error


def _rows(path: Path) -> tuple[int, ...]:
    with _opened(path) as file:
        return tuple(file.get_tensor("rows").tolist())


def _says(path: Path, key: str) -> bool:
    """Does the file say what has this key? It is for readers, and written again where it is damaged."""
    with contextlib.suppress(ResultError, ValueError, TypeError, RecursionError):
        return digest(json.loads(read_limited(path, MANIFEST, ResultError))) == key
    return False


def _files(folder: Path) -> list[Path]:
    """The parts of an entry, by name: `<name>.<sha256>.<suffix>`."""
    return [path for path in sorted(folder.glob("[!.]*.*.*")) if path.suffix in (".safetensors", ".parquet")]
