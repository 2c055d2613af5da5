"""Progress: one row per unit of work on a terminal and in a notebook, plain lines elsewhere."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
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
from rich.progress_bar import ProgressBar
from rich.text import Text

from ssn_probe.spec.display import bundle
from ssn_probe.study.progress import Advance, Silent, Tracker
from ssn_probe.text import plain

EVERY = 0.3
"""Seconds between two drawings in a notebook."""
BESIDE = 21
"""Columns of a row beside its label, count and note: the shortest bar, the rate, the time and what parts them."""


class Lines:
    """One plain line per finished row, for logs and pipes."""

    def __init__(self, console: Console, rows: Sequence[tuple[str, int]]):
        self.console, self.left, self.totals = console, dict(rows), dict(rows)
        self.started = time.monotonic()
        self.notes: dict[str, str] = {}

    def advance(self, label: str) -> Advance:
        def report(done: int) -> None:
            self.left[label] -= done
            if self.left[label] == 0:
                seconds = time.monotonic() - self.started
                note = f" ({self.notes[label]})" if label in self.notes else ""
                text = f"{plain(label)}: {self.totals[label]:,} prompts, {seconds:.1f} s since the start{note}"
                self.console.print(Text(text), soft_wrap=True)

        return report

    def settle(self, totals: Mapping[str, int]) -> None:
        for label, total in totals.items():
            self.left[label] += total - self.totals[label]
            self.totals[label] = total

    def note(self, label: str, text: str) -> None:
        self.notes[label] = plain(text)


class Bars:
    """A rich progress bar per row; every total is known from the start."""

    def __init__(self, progress: Progress, rows: Sequence[tuple[str, int]]):
        self.progress = progress
        self.tasks = {
            label: progress.add_task(plain(label), total=total, start=False, note="") for label, total in rows
        }
        longest = max((cell_len(plain(label)) for label, _ in rows), default=0)
        self.taken = BESIDE + longest + 2 * len(str(max((total for _, total in rows), default=0))) + 1

    def advance(self, label: str) -> Advance:
        task = self.tasks[label]

        def report(done: int) -> None:
            self.progress.start_task(task)
            self.progress.advance(task, done)

        return report

    def settle(self, totals: Mapping[str, int]) -> None:
        for label, total in totals.items():
            self.progress.update(self.tasks[label], total=total, visible=total > 0)

    def note(self, label: str, text: str) -> None:
        """Cut where the line has no room for it, since rich would take that from the count and the time instead."""
        note = Text(plain(text))
        note.truncate(max(0, self.progress.console.width - self.taken), overflow="ellipsis")
        self.progress.update(self.tasks[label], note=note.plain)


class Cell(Bars):
    """The same rows in a notebook: one output of the cell, drawn anew a few times a second, without widgets."""

    def __init__(self, progress: Progress, rows: Sequence[tuple[str, int]]):
        from IPython.display import display

        super().__init__(progress, rows)
        self.drawn = time.monotonic()
        self.handle: Any = display(bundle(progress.get_renderable()), raw=True, display_id=True)

    def advance(self, label: str) -> Advance:
        step = super().advance(label)

        def report(done: int) -> None:
            step(done)
            if time.monotonic() - self.drawn >= EVERY:
                self.draw()

        return report

    def draw(self) -> None:
        self.handle.update(bundle(self.progress.get_renderable()), raw=True)
        self.drawn = time.monotonic()


class StillBar(BarColumn):
    """A bar that does not pulse before its row begins: a page does not move."""

    def render(self, task: Task) -> ProgressBar:
        bar = super().render(task)
        bar.pulse = False
        return bar


class RateColumn(ProgressColumn):
    """Prompts per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


@contextmanager
def tracking(console: Console, rows: Sequence[tuple[str, int]]) -> Iterator[Tracker]:
    """A tracker for these rows of (label, prompts): bars on a terminal and in a notebook, plain lines elsewhere."""
    if console.quiet:
        yield Silent()
    elif console.is_jupyter:
        # The rest of a bar is a grey that can be seen on white and on black.
        cell = Cell(Progress(*_columns(StillBar(style="grey50")), auto_refresh=False), rows)
        try:
            yield cell
        finally:
            cell.draw()
    elif console.is_terminal:
        with Progress(*_columns(BarColumn()), console=console) as progress:
            yield Bars(progress, rows)
    else:
        yield Lines(console, rows)


def _columns(bar: BarColumn) -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}", markup=False),
        bar,
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
    )
