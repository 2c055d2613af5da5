"""The conditions that a summary has rows of, how a reader calls them, and how their rows are found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssn_probe.study.arms import AT, BASELINE, OF, PLACEBO, TESTED, WEAKENED
from ssn_probe.study.summary import AVERAGE

Row = Mapping[str, Any]
"""One row of the summary, by column."""
VARIANTS = {WEAKENED: "without its top neuron", PLACEBO: "placebo"}
"""Conditions beside a tested arm, in words."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """An arm in one role; `set_language`: whose neurons apply everywhere; `step`: the step of a learning curve."""

    arm: str
    role: str = TESTED
    set_language: str | None = None
    step: int | None = None

    @property
    def name(self) -> str:
        """The arm in plain words: `ms of qab`, `ss after 8 steps`."""
        owner = "" if self.set_language is None else f" of {self.set_language}"
        return f"{self.arm}{owner}{'' if self.step is None else f' after {self.step:,} steps'}"

    @property
    def title(self) -> str:
        """The name, and the role where the arm is not as the recipe has it."""
        return f"{self.name}, {VARIANTS[self.role]}" if self.role in VARIANTS else self.name


def by_condition(rows: pl.DataFrame) -> dict[Condition, dict[str, Row]]:
    """The rows of one measure by condition and language, in the order of the table."""
    found: dict[Condition, dict[str, Row]] = {}
    for row in rows.rows(named=True):
        found.setdefault(_condition(row), {})[row["language"]] = row
    return found


def _condition(row: Row) -> Condition:
    name, _, step = row["arm"].partition(AT)
    arm, _, owner = name.partition(OF)
    return Condition(
        arm=arm,
        role=row["role"],
        set_language=owner.removesuffix(")") or None,
        step=int(step.removesuffix(")")) if step else None,
    )


def last_steps(conditions: Mapping[Condition, dict[str, Row]]) -> dict[Condition, dict[str, Row]]:
    """Without the points of learning curves but the last of each, which is what a table per language has room for."""
    last: dict[tuple[str, str, str | None], int] = {}
    for one in conditions:
        place = (one.arm, one.role, one.set_language)
        last[place] = max(last.get(place, 0), one.step or 0)
    return {
        one: rows for one, rows in conditions.items() if (one.step or 0) == last[one.arm, one.role, one.set_language]
    }


def summary_row(
    summary: pl.DataFrame, arm: str, measure: str, *, role: str = TESTED, language: str = AVERAGE
) -> Row | None:
    """The row of an arm that has one per measure and language, by default that of the average."""
    rows = summary.filter(arm=arm, measure=measure, role=role, language=language)
    return rows.row(0, named=True) if rows.height else None


def baseline_rows(summary: pl.DataFrame, measure: str = "asr") -> dict[str, Row]:
    """The untouched model's rows, by language."""
    return {row["language"]: row for row in summary.filter(measure=measure, role=BASELINE).rows(named=True)}
