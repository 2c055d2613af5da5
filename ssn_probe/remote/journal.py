"""The ids of jobs that are under way, on disk: what the next run takes up again after Ctrl-C or a kill."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssn_probe.errors import ResultError
from ssn_probe.files import disk_errors, write_json
from ssn_probe.limits import MB, read_limited
from ssn_probe.spec.node import digest

DAYS = 2
"""How long a job is remembered. Hosts keep results for an hour or so, and queues are shorter."""


@dataclass(frozen=True, kw_only=True)
class Noted:
    """A job under way: what it was sent under, its id on the host, and how many seconds ago it was sent."""

    name: str
    host: str
    model: str
    job: str
    age: float

    @property
    def is_recent(self) -> bool:
        return 0 <= self.age < DAYS * 86400


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Jobs under way, one file each in a folder that any number of processes share. It holds no secret.

    `fresh`: jobs of earlier runs are not found, since nothing that was there before is used.
    """

    folder: Path
    fresh: bool = False
    now: Callable[[], float] = time.time
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def find(self, name: str, host: str, model: str) -> Noted | None:
        """The job that was sent under this name and has not ended, as far as anyone knows."""
        path = self._path(name, host, model)
        with self.lock:
            noted = self._read(path)
            if noted is not None and noted.is_recent and not self.fresh:
                return noted
            self._remove(path)
            return None

    def note(self, name: str, host: str, model: str, job: str) -> None:
        """Remembers a job that was sent; those that are too old to be of use are forgotten."""
        entry = {"name": name, "host": host, "model": model, "job": job, "sent": self.now()}
        with self.lock:
            for path in sorted(self.folder.glob("[!.]*.json")):
                if (old := self._read(path)) is None or not old.is_recent:
                    self._remove(path)
            write_json(self._path(name, host, model), entry)

    def forget(self, name: str, host: str, model: str) -> None:
        """The job has ended, or its host has it no more."""
        with self.lock:
            self._remove(self._path(name, host, model))

    def names(self, host: str, model: str) -> list[str]:
        """Under which names jobs on this model have been sent that `find` finds."""
        with self.lock:
            found = [self._read(path) for path in sorted(self.folder.glob("[!.]*.json"))]
        same = [one for one in found if one is not None and (one.host, one.model) == (host, model)]
        return [one.name for one in same if one.is_recent and not self.fresh]

    def jobs(self) -> list[str]:
        """The ids of all jobs under way."""
        with self.lock:
            found = [self._read(path) for path in sorted(self.folder.glob("[!.]*.json"))]
        return sorted(one.job for one in found if one is not None)

    def _path(self, name: str, host: str, model: str) -> Path:
        return self.folder / f"{digest({'name': name, 'host': host, 'model': model})}.json"

    def _read(self, path: Path) -> Noted | None:
        """What a file says; nothing where there is none, or it is damaged: the job is sent again then."""
        try:
            entry: Any = json.loads(read_limited(path, MB, ResultError))
            named = {key: str(entry[key]) for key in ("name", "host", "model", "job")}
            return Noted(**named, age=self.now() - float(entry["sent"]))
        except (ResultError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def _remove(self, path: Path) -> None:
        with disk_errors(path):
            path.unlink(missing_ok=True)
