"""Progress: one row per unit of work on a terminal, one line in a notebook, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
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

from ssn_probe.spec.rendering import bundle
from ssn_probe.study.progress import Advance, Note, Silent, Tracker, no_note
from ssn_probe.text import counted, duration, plain

EVERY = 0.3
"""Seconds between two drawings in a notebook."""
SILENCE = 30.0
"""Seconds without a line after which a log is told what is under way."""
BAR = 40
"""Characters of the bar in a notebook."""
BESIDE = 21
"""Columns of a row beside its label, count and note: the shortest bar, the rate, the time and what parts them."""


class Log:
    """Plain lines, and one of what is under way wherever there was none for 30 s.

    A thread writes the latter, since a batch, a judge or a null may take longer; it reads nothing but figures.
    """

    def __init__(self, console: Console, under_way: Callable[[float], str]):
        self.console, self.under_way = console, under_way
        self.started = self.written = time.monotonic()
        self.over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def write(self, text: str) -> None:
        self.written = time.monotonic()
        self.console.print(Text(plain(text)), soft_wrap=True)

    def _beat(self) -> None:
        while not self.over.wait(max(0.01, self.written + SILENCE - time.monotonic())):
            if time.monotonic() - self.written >= SILENCE:
                self.write(self.under_way(self.elapsed()))


class Standing:
    """How far every row is, and which one is under way."""

    def __init__(self, rows: Sequence[tuple[str, int]]):
        self.left, self.totals = dict(rows), dict(rows)
        self.notes: dict[str, str] = {}
        self.waits = ""
        self.running: tuple[str, float, int] | None = None
        """The row that is under way, since when, and how many of its prompts were left then."""

    def advance(self, label: str) -> Advance:
        if self.running is None or self.running[0] != label:
            self.running = (label, time.monotonic(), self.left[label])

        def report(done: int) -> None:
            self.left[label] -= done
            if self.left[label] == 0:
                self.running = None
            self.moved(label)

        return report

    def moved(self, label: str) -> None:
        """Called whenever prompts of a row have been done."""

    def settle(self, totals: Mapping[str, int]) -> None:
        for label, total in totals.items():
            self.left[label] += total - self.totals[label]
            self.totals[label] = total

    def note(self, label: str, text: str) -> None:
        self.notes[label] = plain(text)

    def beside(self, text: str) -> None:
        self.waits = f"; {plain(text)}" if text else ""

    def under_way(self, elapsed: float) -> str:
        return self._row_under_way(elapsed) + self.waits

    def _row_under_way(self, elapsed: float) -> str:
        """The row that runs, how far it is, and how long the rest of it takes at the speed that it has had."""
        if self.running is None:
            return f"between two rows (first responses, statistics, nulls or files): {_since_start(elapsed)}"
        label, since, before = self.running
        left, total = self.left[label], self.totals[label]
        done, note = before - left, f" ({self.notes[label]})" if label in self.notes else ""
        rest = duration((time.monotonic() - since) / done * left) if done > 0 else "unknown as yet"
        return f"{label}: {total - left:,} of {total:,} prompts, {_since_start(elapsed)}, rest of this row {rest}{note}"


class Lines(Standing):
    """Plain lines for logs and pipes: one per finished row, and one at least every 30 s of what is under way."""

    def __init__(self, console: Console, rows: Sequence[tuple[str, int]]):
        super().__init__(rows)
        self.log = Log(console, self.under_way)

    def moved(self, label: str) -> None:
        if self.left[label] == 0:
            note = f" ({self.notes[label]})" if label in self.notes else ""
            self.log.write(f"{label}: {self.totals[label]:,} prompts, {_since_start(self.log.elapsed())}{note}")

    def say(self, text: str) -> None:
        self.log.write(text)


class Cell(Standing):
    """A notebook: one output of the cell, drawn a few times a second, without widgets; at the end one line."""

    def __init__(self, rows: Sequence[tuple[str, int]]):
        from IPython.display import display

        super().__init__(rows)
        self.said: list[str] = []
        self.started = self.drawn = time.monotonic()
        self.handle: Any = display(bundle(self._now()), raw=True, display_id=True)

    def moved(self, label: str) -> None:
        if time.monotonic() - self.drawn >= EVERY:
            self.draw()

    def say(self, text: str) -> None:
        self.said.append(plain(text))
        self.draw()

    def draw(self, *, over: bool = False) -> None:
        self.drawn = time.monotonic()
        self.handle.update(bundle(self._ended() if over else self._now()), raw=True)

    def _now(self) -> Group:
        done, total = sum(self.totals.values()) - sum(self.left.values()), sum(self.totals.values())
        full = BAR * done // max(1, total)
        bar = Text.assemble(("━" * full, "green"), ("━" * (BAR - full), "dim"), f" {done:,} of {total:,} prompts")
        return self._with_notes(bar, Text(plain(self.under_way(self.drawn - self.started)), style="dim"))

    def _ended(self) -> Group:
        stages = counted(sum(total > 0 for total in self.totals.values()), "stage")
        prompts, taken = counted(sum(self.totals.values()), "prompt"), duration(self.drawn - self.started)
        return self._with_notes(Text(f"{stages}, {prompts}: {taken}", style="dim"))

    def _with_notes(self, *lines: Text) -> Group:
        return Group(*map(Text, self.said), *lines)


def _since_start(seconds: float) -> str:
    return f"{seconds:.1f} s since the start"


@contextmanager
def lines_while(console: Console, what: str, *, on_terminals: bool = False) -> Iterator[Note]:
    """Plain lines of something that has no rows, such as loading a model; none in a notebook.

    On a terminal there are none but with `on_terminals`. Gives what to call with the words for what it waits for, as a
    tracker's `beside`.
    """
    if console.quiet or console.is_jupyter or (console.is_terminal and not on_terminals):
        yield no_note
        return
    standing = Standing(())
    log = Log(console, lambda elapsed: f"{what}: {_since_start(elapsed)}{standing.waits}")
    try:
        yield standing.beside
    finally:
        log.over.set()


class Rows(Progress):
    """Bars, and a line beneath them."""

    beside = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.beside:
            yield Text(self.beside, style="dim", no_wrap=True, overflow="ellipsis")


class Bars:
    """A rich progress bar per row; every total is known from the start."""

    def __init__(self, progress: "Rows", rows: Sequence[tuple[str, int]]):
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

    def say(self, text: str) -> None:
        self.progress.console.print(Text(plain(text)), soft_wrap=True)

    def beside(self, text: str) -> None:
        self.progress.beside = plain(text)


class RateColumn(ProgressColumn):
    """Prompts per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


@contextmanager
def tracking(console: Console, rows: Sequence[tuple[str, int]]) -> Iterator[Tracker]:
    """A tracker for these rows of (label, prompts): see the module."""
    if console.quiet:
        yield Silent()
    elif console.is_jupyter:
        cell = Cell(rows)
        try:
            yield cell
        except BaseException:
            cell.draw()
            raise
        cell.draw(over=True)
    elif console.is_terminal:
        with Rows(*_columns(), console=console) as progress:
            yield Bars(progress, rows)
    else:
        lines = Lines(console, rows)
        try:
            yield lines
        finally:
            lines.log.over.set()


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
    )
