"""Two runs beside each other on a terminal and in a notebook."""

from typing import Any

from rich.console import Group
from rich.table import Table

from ssn_probe.report import document
from ssn_probe.report.compared_runs import (
    NAMES,
    READING,
    average_name,
    averages_table,
    compared_title,
    differences_table,
    differs_table,
    headlines,
    pairs_line,
    runs_table,
)
from ssn_probe.spec.display import literal
from ssn_probe.study.run_comparison import ARM, RunComparison


def run_comparison_card(found: RunComparison) -> Group:
    """Which runs, how they differ per language (in ASR) and on the average, in what else, and all of it in words."""
    measure = next((name for name in NAMES if name in set(found.table["measure"])), None)
    parts: list[Any] = [_grid(runs_table(found)), literal(pairs_line(found)), *map(literal, found.notes), literal("")]
    arms = found.table.filter(measure=measure, compared=ARM)
    for own in arms.partition_by("first_arm", "second_arm", maintain_order=True):
        parts += [literal(f"{NAMES[str(measure)]}, {compared_title(own.row(0, named=True))}", "bold")]
        parts += [_grid(differences_table(own, average_name(found))), literal("")]
    parts += [literal(f"On the {average_name(found)}", "bold"), _grid(averages_table(found)), literal(READING, "dim")]
    differs = differs_table(found)
    parts += [literal(""), literal("Also differs" if differs else "Nothing else differs.", "bold")]
    parts += [_grid(differs)] if differs else []
    return Group(*parts, literal(""), *map(literal, headlines(found)))


def _grid(table: document.Table) -> Table:
    """A table of the report as one of the terminal."""
    grid = Table(box=None, pad_edge=False)
    numbers = [all(any(one.isdigit() for one in row[place]) for row in table.rows) for place in range(len(table.head))]
    for title, is_number in zip(table.head, numbers, strict=True):
        grid.add_column(literal(title), justify="right" if is_number else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*map(literal, row))
    return grid
