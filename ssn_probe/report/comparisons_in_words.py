"""What an arm is compared with, in words: the sets of each comparison, what they gave, and what that shows."""

from collections.abc import Callable
from typing import NamedTuple

from ssn_probe.report.conditions import Row
from ssn_probe.spec import Intervention
from ssn_probe.stats import MINIMUM_CONTROLS, smallest_p
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.summary import KL, LOG_ODDS
from ssn_probe.text import p_equals, percent, points

ALPHA = 0.05
QUESTIONS = {
    "importance": "Is it these neurons, and not any that are as important?",
    "own": "Is it that languages share them?",
}
"""What a test of ASR asks, beside the primary one."""
OTHERS = "sets found under exchanged labels"


class Unit(NamedTuple):
    """How the figures of a measure are written: a value, a difference, what comes after a difference."""

    value: Callable[[float], str]
    difference: Callable[[float], str]
    name: str


SHARES = Unit(percent, points, " points")
UNITS = {
    LOG_ODDS: Unit(lambda value: f"{value:.2f}", lambda value: f"{value:+.2f}", ""),
    KL: Unit(lambda value: f"{value:.4f}", lambda value: f"{value:+.4f}", ""),
}


def unit_of(measure: str) -> Unit:
    """How the figures of a measure are written."""
    return UNITS.get(measure, SHARES)


def is_shown(row: Row | None) -> bool:
    """Is the rank among these sets a test that rejects? After Holm, but for the primary one."""
    p = None if row is None else p_of(row)
    return p is not None and p <= ALPHA


def p_of(row: Row) -> float | None:
    """The p that is printed: of the primary test its own, of every other Holm's."""
    return row["p"] if row["primary"] else row["p_holm"]


def has_room(row: Row) -> bool:
    """Could the sets have differed? They could not where every one of them is the set itself."""
    return not all(row[name] == row["observed"] for name in ("mean", "low", "high"))


def not_testable(row: Row) -> str:
    """Says that there is nothing to compare."""
    return f"Not testable: each of {sets_of(row)} gave exactly what the set gave."


def why_no_null(robustness: Robustness | None, arm: str) -> str | None:
    """Why sets of exchanged labels are no null for an arm's set; None where they are."""
    exchanged = () if robustness is None else robustness.exchangeability
    return next((found.reason for found in exchanged if arm in found.sets), None)


def sets_of(row: Row) -> str:
    """How many sets, and how many of them are empty."""
    empty = f", {row['empty']:,} of them empty," if row["empty"] else ""
    return f"{COMPARISONS[row['comparison']].counted(row['sets'])}{empty}"


def figures_of(row: Row) -> str:
    """The mean of compared sets, where 95 % of such sets fall, and how much more the observed set gave."""
    unit = unit_of(row["measure"])
    gave = f"{unit.value(row['mean'])}{'' if row['sets'] == 1 else ' on average'}"
    more = f"a difference of {unit.difference(row['difference'])}{unit.name}"
    if row["low"] is None:
        return f"{gave}, {more}"
    low, high = (unit.value(end) for end in _possible(row))
    ends = " to ".join(unit.difference(row[f"difference_{end}"]) for end in ("low", "high"))
    return f"{gave} (95 % of such sets: {low} to {high}), {more} ({ends})"


def _possible(row: Row) -> tuple[float, float]:
    """The interval of compared sets, as far as a share can go."""
    low, high = row["low"], row["high"]
    return (low, high) if row["measure"] in UNITS else (max(0.0, low), min(1.0, high))


def test_of(row: Row, *, falls: bool) -> str:
    """What would have been shown, and p; why there is no p."""
    p = p_of(row)
    if p is None:
        few = row["sets"] < MINIMUM_CONTROLS
        return f"too few for a test ({MINIMUM_CONTROLS} is the least)" if few else "a description, without a test"
    bound = f"{'less' if falls else 'more'} than {unit_of(row['measure']).value(row['shown_from'])} would have "
    if row["primary"]:
        return f"{bound}shown it; {p_equals(p)}"
    if p > ALPHA and row["p"] <= smallest_p(row["sets"]):
        return f"{p_equals(p)} after Holm, the smallest that so few sets can give"
    return f"{bound}had p ≤ .05 before Holm; {p_equals(p)} after Holm"


def question_line(row: Row, *, falls: bool) -> str:
    """A comparison that is tested: what it asks, the sets, what they gave, and whether that is an answer."""
    question = QUESTIONS[row["comparison"]]
    if not has_room(row):
        return f"{question} {not_testable(row)}"
    answered = "Shown" if is_shown(row) else "Not shown" if p_of(row) is not None else "Not tested"
    return f"{question} {answered}: {sets_of(row)} gave {figures_of(row)}; {test_of(row, falls=falls)}."


def description(row: Row) -> str:
    """A comparison that is none but described: the sets, and what they gave."""
    unit = unit_of(row["measure"])
    ends = "" if row["low"] is None else f" ({' to '.join(unit.value(end) for end in _possible(row))})"
    return f"{sets_of(row)} gave {unit.value(row['mean'])}{ends}"


def verdict(node: Intervention, row: Row, compared: Row | None, no_null: str | None = None) -> str:
    """What the primary test shows of an arm that is expected to raise, or to lower, ASR.

    `row`: of the summary; `compared`: among the sets of exchanged labels; `no_null`: why these are no null. Failing to
    reject is no proof of absence: the words claim no more than the test, the interval says how much.
    """
    raised, lowered = row["delta_low"] > 0, row["delta_high"] < 0
    as_expected, opposite = (lowered, raised) if node.lowers else (raised, lowered)
    moved = ("lowered ASR", "raised ASR") if node.lowers else ("raised ASR", "lowered ASR")
    tested = compared is not None and p_of(compared) is not None and no_null is None
    if as_expected and not tested:
        return f"{moved[0]}, and was not tested against {OTHERS}"
    if as_expected and is_shown(compared):
        return f"{'strengthened' if node.lowers else 'broke'} refusal more than {OTHERS}"
    if as_expected:
        return f"{moved[0]}, but was not shown to do so more than {OTHERS}"
    not_shown = f"was not shown to {'strengthen' if node.lowers else 'break'} refusal"
    return f"{not_shown}; it {moved[1]}" if opposite else not_shown


def primary_sets(row: Row | None, tested: float, *, falls: bool, no_null: str | None = None) -> str:
    """The one primary test: what sets of exchanged labels gave beside the primary arm, whose ASR is `tested`."""
    if row is None and no_null is None:
        return f"No {OTHERS} were run, so nothing says what the labels have to do with it."
    if row is None:
        return f"No valid null exists, so there is no test: {no_null}."
    if not has_room(row):
        return not_testable(row)
    part = abs(row["observed"] - tested) > 1e-9
    own = f"The set of the prompts whose labels exchange gave {percent(row['observed'])}; " if part else ""
    known = row["neurons_mean"] is not None
    sizes = f" ({row['neurons_mean']:.1f} neurons per language, the set {row['neurons']:.1f})" if known else ""
    found = f"{own}{sets_of(row)}{sizes} gave {figures_of(row)}"
    if no_null is not None:
        return f"No valid null exists: {no_null}. {found}."
    test = test_of(row, falls=falls)
    return f"{found}; {test}{', the one primary test' if p_of(row) is not None else ''}."
