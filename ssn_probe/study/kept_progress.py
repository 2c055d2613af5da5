"""How far a run is, in a file of its folder for whoever looks at it from outside, such as `ssn-probe view --serve`."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssn_probe.errors import ResultError
from ssn_probe.files import write_json
from ssn_probe.runs.folder import PROGRESS
from ssn_probe.study.progress import Advance, Tracker

EVERY = 1.0
"""Seconds between two writings."""


def _row(total: int) -> dict[str, Any]:
    return {"done": 0, "total": total, "seconds": 0.0}


class Kept:
    """A tracker that also keeps what it is told: per row how much is done, how much there is, and the seconds it took.

    Nothing that fails here may end a run.
    """

    def __init__(self, shown: Tracker, rows: Sequence[tuple[str, int]], path: Path):
        self.shown, self.path = shown, path
        self.rows = {label: _row(total) for label, total in rows}
        self.running, self.waits = "", ""
        self.row_began, self.written = time.monotonic(), -math.inf
        self.alone = threading.Lock()
        self._write()

    def advance(self, label: str) -> Advance:
        report = self.shown.advance(label)
        if label != self.running:
            self.running, self.row_began = label, time.monotonic()
            self._write()

        def both(done: int) -> None:
            report(done)
            row = self.rows.setdefault(label, _row(0))
            row["done"] += done
            row["seconds"] = round(time.monotonic() - self.row_began, 1)
            self._write()

        return both

    def settle(self, totals: Mapping[str, int]) -> None:
        self.shown.settle(totals)
        for label, total in totals.items():
            self.rows.setdefault(label, _row(0))["total"] = total

    def note(self, label: str, text: str) -> None:
        self.shown.note(label, text)

    def say(self, text: str) -> None:
        self.shown.say(text)

    def beside(self, text: str) -> None:
        self.shown.beside(text)
        self.waits = text
        self._write()

    def _write(self) -> None:
        """At most every `EVERY` seconds; a thread that finds another one writing leaves it to that."""
        now = time.monotonic()
        if now - self.written < EVERY or not self.alone.acquire(blocking=False):
            return
        try:
            rows: list[dict[str, Any]] = [{"label": label} | row for label, row in list(self.rows.items())]
            state = {"running": self.running, "waits": self.waits, "rows": rows}
            with contextlib.suppress(ResultError):
                write_json(self.path, state, durable=False)
            self.written = now
        finally:
            self.alone.release()


@contextlib.contextmanager
def keeping_progress(shown: Tracker, rows: Sequence[tuple[str, int]], folder: Path) -> Iterator[Tracker]:
    """The same tracker, while it lasts with a file beside it; a run that is killed leaves the file."""
    try:
        yield Kept(shown, rows, folder / PROGRESS)
    finally:
        with contextlib.suppress(OSError):
            (folder / PROGRESS).unlink(missing_ok=True)
