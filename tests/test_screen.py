"""What the terminal shows: literal text, and every command that needs no long run."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from ssn_probe import Prompts, Recipe, SafetyNeurons
from ssn_probe.cli import main
from ssn_probe.progress import tracking
from ssn_probe.screen import show_plan


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_show_is_a_plan_that_runs_nothing(tmp_path: Path) -> None:
    text = printed("show", "suppress_ss")
    for words in ("baseline", "ms: 20 random sets", "3,584 neurons", "MB", "smallest rise", "the smallest p is .048"):
        assert words in text
    assert not (tmp_path / "results").exists()


def test_show_says_when_controls_are_too_few() -> None:
    assert "too few controls for a test" in printed("show", "suppress_ss", "-T", "controls=5")


def test_a_question_cannot_paint_the_terminal() -> None:
    console = Console(record=True, width=120, markup=False, emoji=False, highlight=False)
    question = "[red]red[/red] \x1b[31mpaint\x1b[0m :smile:"
    show_plan(console, Recipe(sets={"ms": SafetyNeurons(Prompts("organism"))}, question=question), limit=None)
    first = console.export_text().splitlines()[0]
    assert first == "[red]red[/red] paint :smile:"


def test_a_run_shows_its_answer_and_is_found_again(tmp_path: Path) -> None:
    out = str(tmp_path / "results")
    arguments = ["-T", "controls=1", "-T", "log_odds_controls=0", "-T", "effect=local", "-T", "rule=paper"]
    text = printed("run", "suppress_ss", *arguments, "--limit", "10", "-o", out)
    assert "Silencing the shared safety neurons (SS)" in " ".join(text.replace("│", "").split())
    assert "baseline: 210 prompts" in text
    assert "done" in printed("results", "-o", out)
    assert "Answer" in printed("results", "latest", "-o", out)


def test_the_organism_is_measured() -> None:
    text = printed("organism", "info")
    assert "qag" in text
    assert "over_refusal" in text
    assert "about the tool, not about language models" in text


def test_bars_are_plain_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with tracking(Console(force_terminal=False, width=80), [("row [red]", 3)]) as tracker:
        advance = tracker.advance("row [red]")
        advance(1)
        assert capsys.readouterr().out == ""
        advance(2)
    assert capsys.readouterr().out.startswith("row [red]: 3 prompts")


def test_bars_show_every_row_on_a_terminal() -> None:
    console = Console(force_terminal=True, width=100, record=True)
    with tracking(console, [("first", 2), ("second", 1)]) as tracker:
        tracker.advance("first")(2)
        tracker.advance("second")(1)
    text = console.export_text()
    assert "first" in text
    assert "second" in text


def test_a_label_cannot_paint_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    label = "scores (\x1b[31mname\n)"
    with tracking(Console(force_terminal=False, width=80), [(label, 1)]) as tracker:
        tracker.advance(label)(1)
    assert capsys.readouterr().out.startswith("scores (name ): 1 prompts")
