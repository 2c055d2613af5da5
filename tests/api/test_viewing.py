"""All runs of a folder as one page: complete, in one file, whatever the manifests hold."""

import json
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from compared import finished
from stored import HOSTILE

from ssn_probe.api.viewing import write_index
from ssn_probe.cli.commands import main
from ssn_probe.errors import ResultError
from ssn_probe.files import write_json, write_text
from ssn_probe.runs.folder import RunFolder

NAMES = [f"2026-11-2{day}T10-00-00_suppress_ss_0123456{day}" for day in range(5)]
CLAIMS = [
    {"claim": "It breaks refusal.", "verdict": "shown", "figures": "+9", "why": "", "primary": True},
    {"claim": "More is shared.", "verdict": "not testable", "figures": "", "why": "no pairs", "primary": False},
]
BASE = {"aa": "rrrrrrrr", "bb": "rrrrrrcc"}


class Rows(HTMLParser):
    """The texts of the rows of a page's table, and what they link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.links: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append("")
            self.links.append(None)
        if tag == "a" and self.rows:
            self.links[-1] = dict(attrs)["href"]

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1] += f" {data.strip()}"


def rows_of(root: Path, **options: Any) -> Rows:
    found = Rows(write_index(root, **options).read_text(encoding="utf-8"))
    del found.rows[0], found.links[0]  # its head
    return found


def run(root: Path, place: int = 0, **changes: Any) -> RunFolder:
    """A run with a page; later ones of another key, so that none supersedes another."""
    made = finished(root / NAMES[place], {"baseline": BASE}, **{"key": str(place) * 64, "order": place} | changes)
    write_text(made.path / "report.html", "<!DOCTYPE html>")
    return made


def test_every_run_is_a_row_with_what_came_out_and_a_link(tmp_path: Path) -> None:
    run(tmp_path, 0, claims=CLAIMS, seconds={"generate": 3725.4})
    failed = run(tmp_path, 1, status="failed", error="out of memory", answer=[])
    (failed.path / "report.html").unlink()
    write_text(failed.path / "report.md", "")
    found = rows_of(tmp_path, pages=False)
    assert found.links == [f"{NAMES[1]}/report.md", f"{NAMES[0]}/report.html"]
    for word in (NAMES[0], "recipe", "organism", "done", "01:02:05", "The answer.", "1 shown, 1 not testable"):
        assert word in found.rows[1]
    assert "✓ shown : It breaks refusal." in found.rows[1]
    assert "failed" in found.rows[0]
    assert "out of memory" in found.rows[0]


def test_damaged_manifests_are_rows_that_say_so(tmp_path: Path) -> None:
    run(tmp_path, 0)
    broken = run(tmp_path, 1)
    write_text(broken.path / "manifest.json", '{"status": "done", ')
    run(tmp_path, 2, claims=[1, {"claim": 2, "verdict": "shown"}, {"claim": "x", "verdict": []}, "y"])
    rows = {name: next(row for row in rows_of(tmp_path, pages=False).rows if name in row) for name in NAMES[:3]}
    assert "cannot read manifest.json" in rows[NAMES[1]]
    assert "unreadable" in rows[NAMES[1]]
    assert "the manifest is damaged at 'claims" in rows[NAMES[2]]


def test_a_run_that_has_ended_gets_the_page_that_it_lacks(tmp_path: Path) -> None:
    said: list[str] = []
    lacks = run(tmp_path, 0, status="failed", error="out of memory", question="", packages={}, arguments={}, options={})
    (lacks.path / "report.html").unlink()
    broken = run(tmp_path, 1)  # done, without the tables that a page shows
    (broken.path / "report.html").unlink()
    found = rows_of(tmp_path, say=said.append)
    assert found.links == [None, f"{NAMES[0]}/report.html"]
    assert said == [
        f"{NAMES[1]} gets no page: {NAMES[1]} has no neurons.parquet",
        f"Written to {lacks.path}/report.html",
    ]
    assert "It has no page: ssn-probe report makes one." in found.rows[0]
    said.clear()
    write_index(tmp_path, pages=False, say=said.append)
    assert not said


def test_hostile_text_is_text(tmp_path: Path) -> None:
    made = run(
        tmp_path,
        0,
        question=HOSTILE,
        error=HOSTILE,
        model={"name": f'"> {HOSTILE}'},
        answer=[HOSTILE * 9],
        claims=[{**CLAIMS[0], "claim": HOSTILE}],
    )
    write_json(made.path / "manifest.json", {**made.manifest(), "recipe": HOSTILE})
    shutil.move(made.path, tmp_path / "2026 '\"><b>&%2e%2e")
    page = write_index(tmp_path, pages=False).read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    for harmful in ("<script>alert", "\x1b", "\u202e", "<b>", "><b", 'data-model="">'):
        assert harmful not in page
    assert Rows(page).links[1] == "2026%20%27%22%3E%3Cb%3E%26%252e%252e/report.html"


def test_five_hundred_runs_are_a_small_page_quickly(tmp_path: Path) -> None:
    made = run(tmp_path, 0, answer=["A long answer. " * 40], claims=CLAIMS * 4, warnings=["w" * 200] * 60)
    manifest = json.loads((made.path / "manifest.json").read_text(encoding="utf-8"))
    for number in range(500):
        write_json(tmp_path / f"run {number}" / "manifest.json", manifest | {"key": f"{number:064}"}, durable=False)
    began = time.monotonic()
    page = write_index(tmp_path, pages=False)
    assert time.monotonic() - began < 15  # about one second on an idle machine
    assert page.stat().st_size < 3_000_000
    assert len(Rows(page.read_text(encoding="utf-8")).rows) == 502


def test_no_runs_is_said_and_no_folder_is_refused(tmp_path: Path) -> None:
    assert "No runs yet" in write_index(tmp_path).read_text(encoding="utf-8")
    with pytest.raises(ResultError, match="is not a folder"):
        write_index(tmp_path / "nowhere")


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    run(tmp_path)
    found = CliRunner().invoke(main, ["view", "-o", str(tmp_path)])
    assert (found.exit_code, found.output) == (0, f"Written to {tmp_path}/index.html\n")
    assert CliRunner().invoke(main, ["view", "--port", "1"]).exit_code == 2
