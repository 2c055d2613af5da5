"""Progress in a notebook (one output, drawn a few times a second, left as it ended) and in a log (plain lines)."""

import io
import time
from typing import Any

import IPython.display
import pytest
from rich.console import Console

from ssn_probe.report.terminal import progress_bars as progress
from ssn_probe.report.terminal.progress_bars import lines_while, tracking


class Page:
    """A notebook's page: every drawing of the one output of a cell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.drawn: list[dict[str, str]] = []
        self.outputs: list[dict[str, str]] = []
        self.now = 0.0
        monkeypatch.setattr(IPython.display, "display", self.display)
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: bool = True) -> "Page":
        assert raw
        assert display_id
        self.outputs.append(bundle)
        self.update(bundle, raw=raw)
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.drawn.append(bundle)

    def lines(self, at: int = -1) -> list[str]:
        return self.drawn[at]["text/plain"].splitlines()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(monkeypatch)


def notebook(**more: Any) -> Console:
    return Console(force_jupyter=True, markup=False, emoji=False, **more)


def test_a_cell_shows_how_far_all_is_and_the_row_under_way_and_ends_as_one_line(page: Page) -> None:
    with tracking(notebook(), [("first", 200), ("second", 4800), ("never", 7)]) as tracker:
        assert page.lines(0)[0].endswith(" 0 of 5,007 prompts")
        step = tracker.advance("first")
        for _ in range(10):
            page.now += 1
            step(10)
        assert page.lines()[0].endswith("━ 100 of 5,007 prompts")
        assert page.lines()[1] == "first: 100 of 200 prompts, 10.0 s since the start, rest of this row 10 s"
        step(100)
        tracker.settle({"never": 0})
        tracker.advance("second")(4800)
        page.now += 2
    assert page.lines() == ["2 stages, 5,000 prompts: 12 s"]
    assert set(page.drawn[-1]) == {"text/plain", "text/html"}
    assert len(page.outputs) == 1, "one output, however often it is drawn"


def test_what_a_reader_should_know_at_once_stays_above_the_line(page: Page) -> None:
    with tracking(notebook(), [("row", 1)]) as tracker:
        tracker.say("Note: <b>too few</b>\x1b[31m prompts.")
        tracker.advance("row")(1)
    assert page.lines() == ["Note: <b>too few</b> prompts.", "1 stage, 1 prompt: 0.0 s"]
    assert "<b>" not in page.drawn[-1]["text/html"]


def test_it_is_drawn_a_few_times_a_second_however_often_it_moves(page: Page) -> None:
    with tracking(notebook(), [("row", 1000)]) as tracker:
        step = tracker.advance("row")
        for _ in range(1000):
            page.now += 0.01
            step(1)
    assert 10 / progress.EVERY / 2 <= len(page.drawn) <= 10 / progress.EVERY + 3


def test_what_was_done_remains_where_a_run_fails(page: Page) -> None:
    def fails() -> None:
        with tracking(notebook(), [("row", 100), ("never", 9)]) as tracker:
            tracker.advance("row")(40)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert page.lines()[0].endswith(" 40 of 109 prompts")
    assert page.lines()[1].startswith("row: 40 of 100 prompts")


def test_a_label_is_text(page: Page) -> None:
    with tracking(notebook(), [("<script>alert(1)</script> [red] \x1b[31mx", 2)]) as tracker:
        tracker.advance("<script>alert(1)</script> [red] \x1b[31mx")(1)
        page.now += 1
        tracker.advance("<script>alert(1)</script> [red] \x1b[31mx")(0)
        drawn = page.drawn[-1]
    assert "<script>" not in drawn["text/html"]
    assert "&lt;script&gt;" in drawn["text/html"]
    assert "\x1b" not in drawn["text/plain"]
    assert "[red]" in drawn["text/plain"]


def test_a_quiet_run_draws_nothing(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    for console in (notebook(quiet=True), Console(quiet=True), Console(quiet=True, force_terminal=True)):
        with tracking(console, [("row", 1)]) as tracker:
            tracker.note("row", "loss 0.4")
            tracker.advance("row")(1)
    assert page.drawn == []
    assert capsys.readouterr() == ("", "")


# ── notes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

NOTE = "loss 0.4, [red] \x1b[31m<b>ASR\n12 %"


def test_a_note_stands_behind_its_row(page: Page) -> None:
    with tracking(notebook(), [("first", 2), ("second", 2)]) as tracker:
        step = tracker.advance("first")
        tracker.note("first", "loss 0.9")
        tracker.note("first", NOTE)
        page.now += 1
        step(1)
        assert page.lines()[1].endswith("(loss 0.4, [red] <b>ASR 12 %)")
        assert "<b>" not in page.drawn[-1]["text/html"]
        page.now += 1
        tracker.advance("second")(1)
        assert "loss" not in page.lines()[1]


@pytest.mark.parametrize("width", [60, 80])
def test_a_note_is_cut_before_counts_and_times_are(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=width, markup=False, color_system=None)
    with tracking(console, [("a training", 4800), ("baseline in qaa", 200)]) as tracker:
        tracker.note("a training", "loss 0.412, held out 0.388, ASR probe 12 %")
        tracker.advance("a training")(1600)
    first, second = capsys.readouterr().out.split("a training")[-1].splitlines()[:2]
    assert "1600/4800" in first
    assert "-:--:--" in first
    assert "loss 0.4" in first
    assert first.rstrip().endswith("…")
    assert second.split()[-2:] == ["0/200", "-:--:--"]


def test_a_note_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=200, markup=False, color_system=None)
    with tracking(console, [("first", 2), ("second", 2)]) as tracker:
        tracker.note("second", NOTE)
    drawn = capsys.readouterr().out.split("first")[-1]
    assert ["loss 0.4, [red] <b>ASR 12 %" in row for row in drawn.split("second")] == [False, True]


def test_in_a_log_the_last_note_stands_in_the_line_of_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    with tracking(Console(width=40, markup=False), [("first", 2), ("second", 1)]) as tracker:
        step = tracker.advance("first")
        tracker.note("first", "loss 0.9")
        step(1)
        assert capsys.readouterr().out == ""
        tracker.note("first", NOTE)
        step(1)
        tracker.advance("second")(1)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("first: 2 prompts, ")
    assert first.endswith("(loss 0.4, [red] <b>ASR 12 %)")
    assert second.endswith("s since the start")


# ── a log ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def log(monkeypatch: pytest.MonkeyPatch, silence: float) -> Console:
    monkeypatch.setattr(progress, "SILENCE", silence)
    return Console(file=io.StringIO(), width=40)


def written(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def waited_for(console: Console, text: str) -> str:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if found := [line for line in written(console) if text in line]:
            return found[0]
        time.sleep(0.005)
    raise AssertionError(f"{text!r} was not written: {written(console)}")


def test_a_log_is_told_what_runs_how_far_it_is_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    console = log(monkeypatch, 0.02)
    with tracking(console, [("first", 200), ("second", 7)]) as tracker:
        waited_for(console, "between two rows")
        step = tracker.advance("first")
        assert waited_for(console, "first: 0 of 200 prompts").endswith("rest of this row unknown as yet")
        step(150)
        assert "rest of this row 0." in waited_for(console, "first: 150 of 200 prompts"), "a third of the time so far"
        tracker.note("first", "as \x1b[31mit goes")
        assert waited_for(console, "(as it goes)")
        step(50)
        waited_for(console, "first: 200 prompts, ")
    count = len(written(console))
    time.sleep(0.1)
    assert len(written(console)) == count, "nothing is written once it is over"


def test_a_log_that_is_never_silent_for_long_has_no_more_lines_than_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    console = log(monkeypatch, 3600)
    with lines_while(console, "loading"), tracking(console, [("first", 2), ("second", 1)]) as tracker:
        for label, done in (("first", 1), ("first", 1), ("second", 1)):
            tracker.advance(label)(done)
    assert [line.partition(":")[0] for line in written(console)] == ["first", "second"]


def test_loading_is_told_to_a_log_and_not_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = log(monkeypatch, 0.01)
    with lines_while(console, "loading a model"):
        waited_for(console, "loading a model: ")
    terminal = Console(file=io.StringIO(), force_terminal=True)
    with lines_while(terminal, "loading a model"):
        time.sleep(0.05)
    assert written(terminal) == []


def test_what_all_rows_wait_for_is_a_line_beneath_the_bars() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with tracking(console, [("row", 100)]) as tracker:
        tracker.beside("jobs at the host: 3 done, 1 running, 2 queued (position 4) \x1b[31m")
        assert isinstance(tracker, progress.Bars)
        with console.capture() as drawn:
            console.print(tracker.progress.get_renderable())
        assert "\x1b[2mjobs at the host: 3 done, 1 running, 2 queued" in drawn.get()
        assert "\x1b[31m" not in drawn.get()


def test_what_all_rows_wait_for_is_in_the_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    console = Console(file=io.StringIO(), width=200)
    with tracking(console, [("row", 100)]) as tracker:
        tracker.advance("row")(10)
        tracker.beside("jobs at the host: 3 done, 1 running, 2 queued")
        time.sleep(0.3)
    assert isinstance(console.file, io.StringIO)
    assert "row: 10 of 100 prompts" in console.file.getvalue()
    assert "; jobs at the host: 3 done, 1 running, 2 queued\n" in console.file.getvalue()
