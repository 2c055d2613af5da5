"""Progress: one row per unit of work on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

Advance = Callable[[int], None]


class Tracker(Protocol):
    """Where the runner reports what is done."""

    def advance(self, label: str) -> Advance:
        """A function to call with the number of prompts that have just been done in the row `label`."""
        ...

    def finish(self, label: str) -> None:
        """The row is complete, also where some of its work had been done before."""
        ...


class Silent:
    """Reports to nobody."""

    def advance(self, label: str) -> Advance:
        return lambda _done: None

    def finish(self, label: str) -> None:
        return None


class Lines:
    """One plain line per finished row, for logs and pipes."""

    def __init__(self, console: Console, rows: Sequence[tuple[str, int]]):
        self.console, self.totals, self.started = console, dict(rows), time.monotonic()

    def advance(self, label: str) -> Advance:
        return lambda _done: None

    def finish(self, label: str) -> None:
        seconds = time.monotonic() - self.started
        self.console.print(Text(f"{label}: {self.totals.get(label, 0)} prompts, {seconds:.1f} s since the start"))


class Bars:
    """A rich progress bar per row; every total is known from the start."""

    def __init__(self, progress: Progress, rows: Sequence[tuple[str, int]]):
        self.progress = progress
        self.tasks = {label: progress.add_task(label, total=total, start=False) for label, total in rows}

    def advance(self, label: str) -> Advance:
        task = self.tasks[label]
        self.progress.start_task(task)
        return lambda done: self.progress.advance(task, done)

    def finish(self, label: str) -> None:
        task = self.tasks[label]
        self.progress.start_task(task)
        self.progress.update(task, completed=self.progress.tasks[task].total)


@contextmanager
def tracking(console: Console, rows: Sequence[tuple[str, int]]) -> Iterator[Tracker]:
    """A tracker for these rows of (label, prompts): bars on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console, rows)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.speed:,.0f}/s" if False else ""),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress, rows)
