"""Markdown tables and the cells that reports share."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import markdown, percent, points

ABSENT = "–"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; cells are taken as they are, so escape what is not ours."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def rate_cell(row: Mapping[str, Any]) -> str:
    """A share with its interval in per cent."""
    return f"{percent(row['value'])} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def change_cell(row: Mapping[str, Any] | None) -> str:
    """A paired difference of shares with its interval, in points; a dash where there was none."""
    if row is None or row["delta"] is None:
        return ABSENT
    return f"{points(row['delta'])} [{points(row['delta_low'])}, {points(row['delta_high'])}]"


def language_cell(language: str, anchor: str | None, note: str = "") -> str:
    """A language's name, or the average's with what it leaves out; `note` is added to the anchor."""
    if language == AVERAGE:
        return AVERAGE if anchor is None else f"{AVERAGE} without {markdown(anchor)}"
    return f"{markdown(language)} (anchor{note})" if language == anchor else markdown(language)
