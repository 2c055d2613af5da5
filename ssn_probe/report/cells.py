"""The cells that the tables of a report are made of: plain text."""

from collections.abc import Mapping
from typing import Any

from ssn_probe.neurons import EVERY
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import points, probability

ABSENT = "–"


def number(value: float | None, digits: int = 2) -> str:
    """A figure with so many decimals, or a dash."""
    return ABSENT if value is None else f"{value:z.{digits}f}"


def p_value(p: float | None) -> str:
    """A p-value, or a dash where there was no test."""
    return ABSENT if p is None else probability(p)


def share_cell(row: Mapping[str, Any], measure: str = "") -> str:
    """A share in per cent with its interval: `26.5 [20.9, 33.0]`, or a dash; `measure`: a prefix of the columns."""
    value, low, high = (row[name] for name in ((measure, f"{measure}_low", f"{measure}_high") if measure else VALUE))
    return ABSENT if value is None else f"{100 * value:z.1f} [{100 * low:z.1f}, {100 * high:z.1f}]"


VALUE = ("value", "low", "high")


def change_cell(row: Mapping[str, Any] | None) -> str:
    """A paired difference of shares with its interval, in points; a dash where there was none."""
    if row is None or row["delta"] is None:
        return ABSENT
    return f"{points(row['delta'])} [{points(row['delta_low'])}, {points(row['delta_high'])}]"


def language_cell(language: str, anchor: str | None, note: str = "") -> str:
    """A language's name, or the average's with what it leaves out; `note` is added to the anchor."""
    if language == AVERAGE:
        return AVERAGE if anchor is None else f"{AVERAGE} without {anchor}"
    return f"{language} (anchor{note})" if language == anchor else language


def set_language_cell(language: str) -> str:
    """Whose neurons a set's row counts."""
    return "every language" if language == EVERY else language
