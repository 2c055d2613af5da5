"""A study over organisms of several seeds, as a table and in words."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssn_probe.report.cells import ABSENT, number, p_value
from ssn_probe.report.document import Bullets
from ssn_probe.report.document import Table as Cells
from ssn_probe.report.markdown import part_as_markdown
from ssn_probe.stats.over_models import mean_over_models, share_of_models
from ssn_probe.text import change_in_points, counted, markdown, percent, points, points_interval

HEADER = (
    "seed",
    "accepted",
    "baseline",
    "with the arm",
    "exchanged labels",
    "neurons (exchanged)",
    "difference [95 % of such sets]",
    "p",
    "p, log-odds",
    "own neurons",
    "difference from own",
    "equally important",
    "difference from these",
)


def study_cells(rows: pl.DataFrame) -> list[list[str]]:
    """A row of cells per organism, under `HEADER`; shares in per cent."""
    return [_cells(row) for row in rows.rows(named=True)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["seed"]),
        "yes" if row["accepted"] else "no",
        *(_percent(row[name]) for name in ("baseline", "value", "label_sets")),
        _sizes(row),
        _difference(row, "difference"),
        *(p_value(row[name]) for name in ("p", "p_log_odds")),
        *(_percent(row["own"]), _points(row["sharing"])),
        *(_percent(row["important"]), _points(row["beyond_importance"])),
    ]


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:.1f}"


def _points(value: float | None) -> str:
    return ABSENT if value is None else points(value)


def _sizes(row: Mapping[str, Any]) -> str:
    """Neurons per language of the set, and in brackets of the sets found with exchanged labels."""
    sizes = [number(row[name], 1) for name in ("neurons", "label_neurons")]
    return f"{sizes[0]} ({sizes[1]})"


def _difference(row: Mapping[str, Any], name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return ABSENT
    return points(value) if low is None else f"{points(value)} [{points_interval(low, high)}]"


def study_sentences(rows: pl.DataFrame) -> list[str]:
    """In how many organisms the claim holds, and the mean differences over them; the accepted ones only."""
    accepted = rows.filter("accepted")
    tested = accepted.drop_nulls("holds")
    if tested.is_empty():
        return ["No accepted organism has a test yet."]
    share = share_of_models(tested["holds"].to_list())
    interval = f"exact 95 % interval {percent(share.low, 0)} to {percent(share.high, 0)}"
    said = [
        f"The arm does more than sets found with exchanged labels (p ≤ .05) in {tested['holds'].sum()} of "
        f"{counted(tested.height, 'accepted organism')}: {percent(share.value, 0)}, {interval}. Where the labels "
        "decide nothing, 5 % would be expected."
    ]
    for name, other in (
        ("difference", "sets found with exchanged labels"),
        ("sharing", "as many of each language's own neurons"),
        ("beyond_importance", "as many equally important neurons"),
    ):
        mean = mean_over_models(tested[name].drop_nulls().to_list())
        if mean is not None:
            change = change_in_points(mean.value, mean.low, mean.high)
            said.append(f"Mean difference from {other}: {change} over {counted(mean.n, 'organism')} (Student's t).")
    untested = accepted.height - tested.height
    if untested:
        said.append(f"{counted(untested, 'accepted organism')} had no valid test, and counts in none of these figures.")
    return said


def study_page(title: str, made: str, rows: pl.DataFrame) -> str:
    """The study as a page of markdown."""
    parts = (made, Cells(HEADER, tuple(map(tuple, study_cells(rows)))), Bullets(tuple(study_sentences(rows))))
    return "\n\n".join([f"# {markdown(title)}", *map(part_as_markdown, parts)]) + "\n"


def show_study(terminal: Console, rows: pl.DataFrame) -> None:
    """The study in the terminal."""
    shown = Table(box=None, pad_edge=False)
    for place, name in enumerate(HEADER):
        shown.add_column(name, justify="left" if place == 1 else "right")
    cells = study_cells(rows)
    for column, name, values in zip(shown.columns, HEADER, zip(*cells, strict=True), strict=True):
        column.min_width = max(map(len, [*values, *name.split()]))  # a header may wrap, a figure or a word may not
    for row in cells:
        shown.add_row(*map(Text, row))
    terminal.width = max(terminal.width, 160)  # a narrow terminal breaks the lines itself
    terminal.print(shown)
    for sentence in study_sentences(rows):
        terminal.print(Text(sentence), soft_wrap=True)
