"""What an arm is compared with, in words, and the rules that decide whether that shows anything."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ssn_probe.report.conditions import Row
from ssn_probe.stats import MINIMUM_CONTROLS, smallest_p
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.summary import KL, LANGUAGE_LOG_ODDS, LOG_ODDS
from ssn_probe.text import p_equals, percent, points, signed

ALPHA = 0.05
OTHERS = "sets found under exchanged labels"


class Unit(NamedTuple):
    """How the figures of a measure are written: a value, a difference, what comes after a difference."""

    value: Callable[[float], str]
    difference: Callable[[float], str]
    name: str


SHARES = Unit(percent, points, " points")
LOGS = Unit(lambda value: f"{value:z.2f}", partial(signed, digits=2), "")
UNITS = {
    LOG_ODDS: LOGS,
    LANGUAGE_LOG_ODDS: LOGS,
    KL: Unit(lambda value: f"{value:z.4f}", partial(signed, digits=4), ""),
}


def unit_of(measure: str) -> Unit:
    """How the figures of a measure are written."""
    return UNITS.get(measure, SHARES)


def is_known(value: float | None) -> bool:
    """Is there a figure?"""
    return value is not None and math.isfinite(value)


def is_shown(row: Row) -> bool:
    """Is the rank among these sets a test that rejects? After Holm, but for the primary one."""
    p = p_of(row)
    return p is not None and p <= ALPHA


def p_of(row: Row) -> float | None:
    """The p that is printed: of the primary test its own, of every other Holm's."""
    p = row["p"] if row["primary"] else row["p_holm"]
    return p if is_known(p) else None


def has_room(row: Row) -> bool:
    """Could the sets have differed? They could not where every one of them is the set itself."""
    # The mean of nineteen times two thirds is not two thirds to the last bit.
    ends = (row[name] for name in ("mean", "low", "high"))
    return not all(end is not None and math.isclose(end, row["observed"], rel_tol=1e-9, abs_tol=1e-12) for end in ends)


def why_no_null(robustness: Robustness | None, arm: str) -> str | None:
    """Why sets of exchanged labels are no null for an arm's set; None where they are."""
    exchanged = () if robustness is None else robustness.exchangeability
    return next((found.reason for found in exchanged if arm in found.sets), None)


def why_not_tested(row: Row) -> str:
    """Why the rank among these sets is no test; empty where it is one."""
    sets, several = COMPARISONS[row["comparison"]].counted(row["sets"]), row["sets"] != 1
    if not has_room(row):
        return f"each of {sets} gave exactly what the set gave"
    if p_of(row) is not None:
        return ""
    if row["sets"] < MINIMUM_CONTROLS:
        return f"{sets} {'are' if several else 'is'} too few for a test ({MINIMUM_CONTROLS} is the least)"
    return f"{sets} {'are' if several else 'is'} a description, without a test"


def difference_of(row: Row) -> str:
    """How much more the set gave than the others on average, and p: `+3.7 points (-3.8 to +11.2), p = .150`."""
    unit, p = unit_of(row["measure"]), p_of(row)
    if not is_known(row["difference"]):
        return ""
    found = f"{unit.difference(row['difference'])}{unit.name}"
    if is_known(row["difference_low"]) and is_known(row["difference_high"]):
        found += f" ({' to '.join(unit.difference(row[f'difference_{end}']) for end in ('low', 'high'))})"
    return found if p is None else f"{found}, {p_equals(p)}{'' if row['primary'] else ' after Holm'}"


def needed(row: Row, *, falls: bool) -> str:
    """What would have been shown."""
    p = p_of(row)
    if not row["primary"] and p is not None and p > ALPHA and row["p"] <= smallest_p(row["sets"]):
        return "so few sets can give no smaller p"
    if not is_known(row["shown_from"]):
        return ""
    bound = f"{'less' if falls else 'more'} than {unit_of(row['measure']).value(row['shown_from'])} would have "
    return f"{bound}shown it" if row["primary"] else f"{bound}had p ≤ .05 before Holm"
