"""Progress: one row per unit of work on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ssn_probe.text import plain

Advance = Callable[[int], None]


class Tracker(Protocol):
    """Where the runner reports what is done. A row is complete when its total has been reached."""

    def advance(self, label: str) -> Advance:
        """A function to call with the number of prompts that have just been done in the row `label`."""
        ...


class Silent:
    """Reports to nobody."""

    def advance(self, label: str) -> Advance:
        return lambda _done: None


class Lines:
    """One plain line per finished row, for logs and pipes."""

    def __init__(self, console: Console, rows: Sequence[tuple[str, int]]):
        self.console, self.left, self.totals = console, dict(rows), dict(rows)
        self.started = time.monotonic()

    def advance(self, label: str) -> Advance:
        def report(done: int) -> None:
            self.left[label] -= done
            if self.left[label] == 0:
                seconds = time.monotonic() - self.started
                text = f"{plain(label)}: {self.totals[label]:,} prompts, {seconds:.1f} s since the start"
                self.console.print(Text(text), soft_wrap=True)

        return report


class Bars:
    """A rich progress bar per row; every total is known from the start."""

    def __init__(self, progress: Progress, rows: Sequence[tuple[str, int]]):
        self.progress = progress
        self.tasks = {label: progress.add_task(plain(label), total=total, start=False) for label, total in rows}

    def advance(self, label: str) -> Advance:
        task = self.tasks[label]

        def report(done: int) -> None:
            self.progress.start_task(task)
            self.progress.advance(task, done)

        return report


class RateColumn(ProgressColumn):
    """Prompts per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


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
        RateColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress, rows)
