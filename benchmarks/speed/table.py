"""One table of all lines: a column for every tool, on the CPU and on a GPU."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from benchmarks.report import amount
from benchmarks.speed.lines import OURS
from benchmarks.speed.peers import NOT_INSTALLED, PEERS
from benchmarks.timing import Row

NOT_MEASURED = "not measured"
NONE = "–"
TOOLS = (OURS, *PEERS, "peft")
Rows = Mapping[tuple[str, str], Mapping[str, Row]]
"""(line, ÷ what) → tool → row."""


def keyed(rows: Sequence[Row]) -> Rows:
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.name, row.group.rpartition(" ÷ ")[2]), {})[row.tool] = row
    return found


def table(title: str, cpu: Sequence[Row], gpu: Sequence[Row] | None, missing: Mapping[str, Mapping[str, str]]) -> Table:
    """Ratios with quartiles, absolute times of a GPU too. `missing`: line → tool → why it has no time."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("what", "÷", "goal", *TOOLS, f"{OURS}, GPU"):
        made.add_column(heading, justify="left" if heading in ("what", "÷") else "right")
    on_gpu = None if gpu is None else keyed(gpu)
    for key, tools in keyed(cpu).items():
        mine = tools.get(OURS)
        goal = "" if mine is None or mine.target is None else f"≤ {mine.target:g} {'met' if mine.met else 'MISSED'}"
        why = missing.get(key[0], {})
        cells = [cell(tools.get(tool)) if tool in tools else why.get(tool, NONE) for tool in TOOLS]
        card = NOT_MEASURED if on_gpu is None else cell(on_gpu.get(key, {}).get(OURS), absolute=True)
        made.add_row(*key, goal, *cells, card)
    return made


def cell(row: Row | None, *, absolute: bool = False) -> str:
    """A ratio with its quartiles, and what one run took."""
    if row is None:
        return NOT_MEASURED
    took = f", {row.seconds * 1000:.3g} ms" if absolute and row.seconds else ""
    return amount(row.value, "") + took


__all__ = ["NOT_INSTALLED", "cell", "keyed", "table"]
