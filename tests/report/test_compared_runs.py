"""Two runs beside each other, as they are shown: in words, on a terminal, as files and as a page."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from arm_samples import RECIPE
from click.testing import CliRunner
from compared import finished
from polars.testing import assert_frame_equal
from stored import HOSTILE

from ssn_probe import Comparison, compare
from ssn_probe.cli.commands import main
from ssn_probe.errors import ResultError

BASE = {"aa": "rrrrrrrr", "bb": "rrrrrrcc", "cc": "rrrrcccc"}
SS = {"aa": "rrrrrrrr", "bb": "rrrccccc", "cc": "rrrccccc"}


def compared(folder: Path) -> Comparison:
    """Two runs of one model, of which the second has a set that breaks more."""
    more = {"aa": "rrrrrrcc", "bb": "cccccccc", "cc": "rccccccc"}
    first = finished(folder / "first", {"baseline": BASE, "ss": SS})
    recipe = replace(RECIPE, name="other", seed=1)
    return compare(first.path, finished(folder / "second", {"baseline": BASE, "ss": more}, recipe=recipe).path)


def test_the_answer_says_what_differs_on_the_average(tmp_path: Path) -> None:
    arm, change, same = compared(tmp_path).answer.splitlines()
    assert same == "The untouched models do not differ in ASR outside aa: 37.5 % in both runs."
    assert arm.startswith(
        "ASR outside aa under ss is 62.5 % in the first run, 93.8 % in the second (+31.2 points, 95 %"
    )
    assert change.startswith(
        "ss changes ASR outside aa by +25.0 points in the first run, by +56.2 in the second (+31.2"
    )


def test_the_terminal_shows_languages_and_what_else_differs(tmp_path: Path) -> None:
    text = str(compared(tmp_path))
    assert "bb                     62.5 %     100.0 %   +37.5 [-2.7, +69.4]  .132      8" in text
    assert "average" in text
    assert "recipe.seed  0          1" in text
    assert "Paired are 8 harmful prompts in 3 languages. Judge of both: world." in text


def test_the_table_is_written_as_it_is(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert_frame_equal(pl.read_csv(found.export(tmp_path / "t.csv"), schema=found.table.schema), found.table)
    assert json.loads(found.export(tmp_path / "t.json").read_text(encoding="utf-8")) == found.table.to_dicts()
    with pytest.raises(ResultError, match=r"cannot export to 't\.xls'"):
        found.export(tmp_path / "t.xls")


def test_the_page_has_every_table_and_the_picture_and_runs_nothing(tmp_path: Path) -> None:
    page = compared(tmp_path).export(tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<table>") >= 4
    assert page.count("<svg ") == 1
    assert "default-src &#39;none&#39;" in page
    assert page.count("<script") == 1  # sorts tables


def test_hostile_names_are_text(tmp_path: Path) -> None:
    """In a page's own text and in its picture, and on a terminal."""
    languages = {f"{HOSTILE} {name}": text for name, text in BASE.items()}
    model = {"name": HOSTILE, "digest": HOSTILE}
    runs = [
        finished(tmp_path / name, {"baseline": languages, "ss": languages}, model=model, anchor=None, device=device)
        for name, device in (("first", "cpu"), ("second", HOSTILE))
    ]
    found = compare(*(run.path for run in runs))
    page = found.export(tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "\x1b" not in page
    assert "\x1b[31m" not in str(found)


def test_the_command_writes_a_page_and_refuses_as_errors_are(tmp_path: Path) -> None:
    compared(tmp_path)
    page = tmp_path / "page.html"
    found = CliRunner().invoke(main, ["compare", "first", "second", "-o", str(tmp_path), "--page", str(page)])
    assert found.exit_code == 0, found.output
    assert f"Written to {page}" in found.output
    assert page.is_file()
    refused = CliRunner().invoke(main, ["compare", "first", "first", "-o", str(tmp_path)])
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: first cannot be compared with itself\n  Name two runs")
