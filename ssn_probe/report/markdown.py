"""`report.md`: the answer and the claims first, then the sections of the report. For a pull request or an issue."""

import html
import re
from collections.abc import Mapping

from ssn_probe.report.charts.chart import Chart
from ssn_probe.report.claim import kept_claims
from ssn_probe.report.conclusions import claims_section
from ssn_probe.report.document import Bullets, Folded, Part, Picture, Section, Table
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.report_sections import sections_of
from ssn_probe.text import markdown, markdown_cell, plain

NO_CHARTS: Mapping[str, Chart] = {}
FIGURES = re.compile(r"(?!.*\]\()[-+→\d., %()\[\]]*(, p = \d?\.\d+)?|(.*, p )?< \.001")
"""Cells that mean nothing but themselves in markdown, such as `-5.8 [-7.9, -3.8]`; in a link `](` would be."""


def report(run: FinishedRun, charts: Mapping[str, Chart] = NO_CHARTS) -> str:
    """The whole report as markdown, with the charts that are in `plots/`."""
    question = run.recipe.question
    parts = [markdown(line) for line in run.manifest["answer"]]
    parts += [f"*{markdown(question)}*"] if question.strip() else []
    parts += [_part(Picture("asr"), charts)]
    shown = claims_section(kept_claims(run.manifest))
    sections = [*([shown] if shown else []), *sections_of(run)]
    return _blocks([*parts, *(as_markdown(section, charts).rstrip("\n") for section in sections)]) + "\n"


def as_markdown(section: Section, charts: Mapping[str, Chart] = NO_CHARTS) -> str:
    """A section as markdown; its text is escaped."""
    parts = (_part(part, charts) for part in section.parts)
    return _blocks([f"## {markdown(section.title)}", *parts]) + "\n"


def part_as_markdown(part: Part) -> str:
    """A paragraph, table or list as markdown; its text is escaped."""
    return _part(part, NO_CHARTS)


def _blocks(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part)


def _part(part: Part, charts: Mapping[str, Chart]) -> str:
    match part:
        case str():
            return markdown(part)
        case Table(head, rows, note):
            return _blocks([_table(head, rows), markdown(note)])
        case Bullets(lines):
            return "\n".join(f"- {markdown(line)}" for line in lines)
        case Picture(name):
            return f"![{markdown(charts[name].description)}](plots/{name}.svg)" if name in charts else ""
        case Folded(title, parts):
            summary = f"<details><summary>{html.escape(plain(title), quote=False)}</summary>"
            return _blocks([summary, *(_part(inner, charts) for inner in parts), "</details>"])


def _table(head: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [map(_cell, head), ["---"] * len(head), *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text if FIGURES.fullmatch(text) else markdown_cell(text)
