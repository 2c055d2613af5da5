"""A line of the table: one kind of work, the plain pass that is its unit, and every tool that does it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.timing import Row, Run, compare

OURS = "ssn-probe"


@dataclass(frozen=True, kw_only=True)
class Line:
    """`beside` names the `reference`; `goal` is the largest ratio that the project allows itself.

    `check` ends the benchmark where tools do not do the same work, and says what differs where that is rounding.
    `missing`: tools that could do it and are not here, and why.
    """

    name: str
    beside: str
    reference: Run
    tools: Mapping[str, Run]
    goal: float | None = None
    check: Callable[[], str] = str
    missing: Mapping[str, str] = field(default_factory=dict)


def measure(lines: Sequence[Line], *, where: str, repeats: int) -> list[Row]:
    """A row per line and tool: every run of a tool stands between two runs of the line's reference."""
    rows = []
    for line in lines:
        goals, note = {} if line.goal is None else {OURS: line.goal}, line.check()
        found = compare(f"{where} ÷ {line.beside}", line.reference, line.tools, repeats=repeats, targets=goals)
        rows += [replace(row, name=line.name, tool=row.name, note=note) for row in found]
    return rows
