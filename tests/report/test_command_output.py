"""What the terminal shows: literal text, and every command that needs no long run."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from arm_samples import EVERY
from click.testing import CliRunner
from prompt_rows import load, organism_set
from rich.console import Console
from stored import stored_run

from ssn_probe import Prompts, Recipe, SafetyNeurons
from ssn_probe.cli.commands import main
from ssn_probe.report.terminal.plan_table import render_plan
from ssn_probe.report.terminal.progress_bars import tracking
from ssn_probe.report.terminal.result_card import matrix, tables
from ssn_probe.spec import ASR, Amplify, Suppress
from ssn_probe.stats import smallest_detectable
from ssn_probe.study.forecast import _detectable, forecast
from ssn_probe.study.summary import LOG_ODDS


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_show_says_how_far_an_amplified_set_must_lower_asr() -> None:
    prompts = Prompts("lighthouses")
    recipe = Recipe(arms={"x2": Amplify(SafetyNeurons(prompts), by=2)}, measures=(ASR(prompts),), primary="x2")
    lines = " ".join(forecast(recipe, None).lines)
    assert "McNemar" in lines
    assert "McNemar" not in " ".join(forecast(replace(recipe, primary=None), None).lines), "no primary arm, no family"
    assert (
        "the smallest fall of ASR against the baseline that one language shows with 80 % power is 22.0 points" in lines
    )


def test_a_rise_that_nothing_can_show_is_none_in_plain_words() -> None:
    few = _detectable([5], 5, falls=False)
    assert few == (
        "5 clusters of harmful prompts per language: no rise of ASR against the baseline is so large that one language "
        "shows it with 80 % power at a baseline of 30 %."
    )
    crossed = _detectable([5, 20], 100, falls=True)
    assert "5 × 20 clusters of harmful prompts per language: no fall of ASR" in crossed
    assert crossed.endswith("a baseline of 30 %; one of 17.4 points is if clusters make no difference.")
    assert _detectable([5, 5], 6, falls=False).endswith("with 80 % power at a baseline of 30 %.")


@pytest.mark.slow
def test_show_says_what_crossed_clusters_could_show(tmp_path: Path) -> None:
    """What holds if the prompts of an action are one observation, and if actions and objects make no difference."""
    number = pl.col("prompt_id").str.extract(r"(\d+)$").cast(pl.Int64)
    labels = [(number % 16).cast(pl.String).alias("cluster"), (number // 5).cast(pl.String).alias("cluster_2")]
    frame = load("organism").frame.with_columns(labels).with_columns(pl.concat_str("split", "cluster").alias("cluster"))
    prompts = organism_set(tmp_path / "set", frame, cluster=None)
    recipe = Recipe(arms={"ms": Suppress(SafetyNeurons(prompts))}, measures=(ASR(prompts),), primary="ms")
    lines = " ".join(forecast(recipe, None).lines)
    alone, together = (f"{100 * float(smallest_detectable(count, 0.3) or 0):.1f} points" for count in (200, 16))
    assert f"is {together} at a baseline of 30 %, and {alone} if clusters make no difference" in lines
    assert "McNemar" not in lines


def test_show_says_which_arms_will_have_no_average(tmp_path: Path) -> None:
    """It leaves out the anchor and the language whose neurons are silenced everywhere; one cluster is one."""
    frame = load("organism").frame.drop("cluster_2").filter(pl.col("language").is_in(["qaa", "qab"]))
    cluster = pl.when(split="evaluate").then(pl.lit("one")).otherwise(pl.concat_str("split", "cluster"))
    frame = frame.with_columns(cluster=cluster)
    prompts = organism_set(tmp_path / "set", frame, languages=["qaa", "qab"])
    ms = SafetyNeurons(prompts)
    arms = {"own": Suppress(ms.of("qab")), "each": Suppress(ms), "anchor": Suppress(ms.of("qaa"))}
    lines = " ".join(forecast(Recipe(arms=arms, measures=(ASR(prompts),), primary="own"), None).lines)
    assert lines.count("no average") == 1
    assert "own will have no average over languages, and no test" in lines
    assert "and qaa and qab are all." in lines
    assert "1 cluster of harmful prompts per language" in lines


def test_a_question_cannot_paint_the_terminal() -> None:
    console = Console(record=True, width=120, markup=False, emoji=False, highlight=False)
    question = "[red]red[/red] \x1b[31mpaint\x1b[0m :smile:"
    console.print(render_plan(forecast(Recipe(sets={"ms": SafetyNeurons(Prompts("organism"))}, question=question))))
    first = console.export_text().splitlines()[0]
    assert first == "[red]red[/red] paint :smile:"


@pytest.mark.slow
def test_a_run_shows_its_answer_and_is_found_again(tmp_path: Path) -> None:
    out = str(tmp_path / "results")
    arguments = ["-T", "controls=1", "-T", "log_odds_label_sets=0", "-T", "effect=local", "-T", "rule=paper"]
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


def test_a_label_cannot_paint_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    label = "scores [red] (\x1b[31mname\n)"
    with tracking(Console(force_terminal=False, width=80), [(label, 1)]) as tracker:
        tracker.advance(label)(1)
    assert capsys.readouterr().out.startswith("scores [red] (name ): 1 prompts")


def shown(folder: Path, arms: dict[str, dict[str, str]]) -> list[str]:
    """The tables of a run, 80 columns wide, by line."""
    console = Console(record=True, width=80, quiet=False, file=StringIO())
    console.print(*tables(stored_run(folder, arms=arms)), sep="\n")
    return console.export_text().splitlines()


def test_arms_that_ran_once_per_language_are_a_matrix(tmp_path: Path) -> None:
    text = shown(tmp_path, EVERY)
    assert text[0].split() == ["ASR,", "%", "baseline"]
    (head,) = [number for number, line in enumerate(text) if line.startswith("ms of")]
    assert text[head].split() == ["ms", "of", "aa", "bb", "cc"]
    assert text[head + 1].split() == ["aa", "+100", "+0", "+0"]
    assert text[head + 3].split() == ["bb", "+0", "+75", "+0"]
    assert len(text[head + 2].split()) == 3, "an interval under every figure"


def test_a_matrix_and_other_arms_stand_side_by_side(tmp_path: Path) -> None:
    text = shown(tmp_path, EVERY | {"ms of bb": {"bb": "cccccccc"}, "ss": {"bb": "cccccccc", "cc": "rrrrcccc"}})
    assert text[0].split() == ["ASR,", "%", "baseline", "ss"]
    assert text[-2].split() == ["bb", "–", "+75", "–"]


def test_seven_languages_fit_a_terminal(tmp_path: Path) -> None:
    row = {"delta": 0.35, "delta_low": -0.22, "delta_high": 0.46}
    languages = [f"qa{letter}" for letter in "abcdefg"]
    console = Console(record=True, width=80, file=StringIO())
    console.print(matrix("ms", {(a, b): row for a in languages for b in languages}, "asr"))
    assert console.export_text().count("[-22,46]") == 49


def test_a_matrix_of_log_odds_is_no_matrix_of_points() -> None:
    console = Console(record=True, width=80, file=StringIO())
    console.print(matrix("ms", {("aa", "aa"): {"delta": 0.35, "delta_low": -0.22, "delta_high": 0.46}}, LOG_ODDS))
    text = " ".join(console.export_text().split())
    assert "Change of refusal log-odds. Row" in text
    assert "+0.35" in text
    assert "[-0.22,0.46]" in text


def test_a_run_without_measures_has_no_table(tmp_path: Path) -> None:
    run = stored_run(tmp_path)
    run.table("summary").clear().write_parquet(tmp_path / "summary.parquet")
    assert tables(run) == []
