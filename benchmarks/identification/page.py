"""The blocks of docs/identification.md that are made from the rows: table, differences, exchanged labels.

A block stands between `<!-- name -->` and `<!-- end -->`; all else on the page is written by hand and names no figure
that another set of rows would change.
"""

import re
from collections.abc import Callable, Mapping

import polars as pl

from benchmarks.identification.own import DEFAULT
from benchmarks.identification.peers import METHODS
from benchmarks.identification.rows import EXCHANGED
from benchmarks.identification.table import UNTOUCHED, interval, paired, short

CANDIDATES = ("half-scale", "coalition gradient")
"""Definitions in `peers` that are no one's but ours."""
OTHERS = tuple(name for name in METHODS if not name.startswith(CANDIDATES))
"""Definitions of others."""
RULE = "h − b"
SHOWN = ("AP D", "AP H", "mass D", "mass H", "ASR", "utility", "passes")
WITH_ENDS = ("AP D", "AP H", "ASR")
GAPS = ("AP D", "AP H", "AP", "ASR")
LATER = 5
"""The organisms of the list from this one on had no part in the choice of what is compared."""


def with_mean(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with `AP`, the mean of `AP D` and `AP H`."""
    return rows.with_columns(AP=(pl.col("AP D") + pl.col("AP H")) / 2)


def best(rows: pl.DataFrame, names: tuple[str, ...], column: str = "AP") -> str:
    """Which of these methods has the highest mean of a column. Raises ValueError where there is none of them."""
    means = rows.filter(pl.col("method").is_in(names)).group_by("method").agg(pl.col(column).mean()).drop_nulls()
    return max(means.rows(), key=lambda row: (row[1], row[0]))[0]


def table(rows: pl.DataFrame) -> str:
    """Every method: mean over organisms and, of three columns, the 95 % interval; by the mean of both precisions."""
    rows = with_mean(rows)
    means = rows.group_by("method").agg(pl.col("AP").mean(), pl.len()).sort("AP", descending=True, nulls_last=True)
    lines = [f"| method | n | {' | '.join(SHOWN)} |", "|" + "---|" * (len(SHOWN) + 2)]
    for name, _, count in means.rows():
        here = rows.filter(method=name)
        label = f"**{name}**" if name == f"{DEFAULT}, {RULE}" else _safe(name)
        lines.append(f"| {label} | {count} | {' | '.join(_cell(here, column) for column in SHOWN)} |")
    return "\n".join(lines)


def _safe(name: str) -> str:
    """The name of a method in a cell, where a bar would end it."""
    return name.replace("|", "\\|")


def _cell(rows: pl.DataFrame, column: str) -> str:
    values = rows[column].drop_nulls().to_list()
    if not values:
        return ""
    found = interval(values)
    if column in WITH_ENDS:
        return short(*found)
    if column == "passes":
        return f"{found[0]:,.0f}" if found[0] >= 100 else f"{found[0]:.3g}"
    return f"{found[0]:.2f}"


def differences(rows: pl.DataFrame, organisms: list[str]) -> str:
    """Paired differences of methods that decide something, over all organisms and over the later ones."""
    rows = with_mean(rows)
    ours, default, rivals = f"{DEFAULT}, 2h − b", f"{DEFAULT}, {RULE}", {}
    for column in ("AP D", "AP H", "AP"):
        rivals.setdefault(best(rows, OTHERS, column), []).append(column)
    pairs = {
        f"{ours} less {default}": (ours, default),
        f"{ours} less {DEFAULT}, h": (ours, f"{DEFAULT}, h"),
        **{
            f"{one} less {other}, of others the best by {' and '.join(columns)}": (one, other)
            for other, columns in rivals.items()
            for one in (default, ours)
        },
        f"{default} less {DEFAULT}:1, {RULE}: halved candidates": (default, f"{DEFAULT}:1, {RULE}"),
        f"{default} less ablation:1, {RULE}: exact, one neuron at a time": (default, f"ablation:1, {RULE}"),
        f"{DEFAULT}:1, {RULE} less ablation:1, {RULE}: first order": (f"{DEFAULT}:1, {RULE}", f"ablation:1, {RULE}"),
        f"{default} less coalition gradient, {RULE}: more masks": (default, f"coalition gradient, {RULE}"),
        f"{default} less {default}, own language: averaged": (default, f"{default}, own language"),
    }
    lines = [f"| difference | n | {' | '.join(GAPS)} |", "|" + "---|" * (len(GAPS) + 2)]
    later = rows.filter(pl.col("organism").is_in(organisms[LATER:]))
    for chosen, of in ((rows, ""), (later, "later organisms: ")):
        for name, (one, two) in pairs.items():
            gaps = [paired(chosen, one, two, column) for column in GAPS]
            if gaps[0] and (not of or two in (default, *rivals)):
                cells = [short(*interval(gap), "+") if gap else "" for gap in gaps]
                lines.append(f"| {of}{_safe(name)} | {len(gaps[0])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def exchanged(rows: pl.DataFrame) -> str:
    """What the rules of the default effect find, and what they find under exchanged labels."""
    shown = rows.filter(pl.col("found exchanged").is_not_null()) if "found exchanged" in rows.columns else rows.head(0)
    head = [f"{name}: labels as they are; exchanged; difference" for name in EXCHANGED]
    lines = [f"| rule | n | {' | '.join(head)} |", "|" + "---|" * (len(head) + 2)]
    for name in shown["method"].unique(maintain_order=True):
        here, cells = shown.filter(method=name), []
        for column in EXCHANGED:
            pairs = here.select(column, f"{column} exchanged").drop_nulls().rows()
            gap = short(*interval([one - two for one, two in pairs]), "+")
            cells.append(f"{here[column].mean():.2f}; {here[f'{column} exchanged'].mean():.2f}; {gap}")
        lines.append(f"| {name} | {here.height} | {' | '.join(cells)} |")
    left = shown.with_columns(left=pl.col("ASR") - pl.col("ASR exchanged"))
    more = paired(left, f"{DEFAULT}, {RULE}", f"{DEFAULT}, 2h − b", "left")
    if more:
        found = short(*interval(more), "+")
        lines += ["", f"The difference in ASR of h − b less that of 2h − b, paired: {found}, n = {len(more)}."]
    return "\n".join(lines)


def filled(page: str, rows: pl.DataFrame, organisms: list[str]) -> str:
    """The page with its blocks made anew.

    Raises ValueError where the page lacks a block.
    """
    blocks: Mapping[str, Callable[[], str]] = {
        "table": lambda: table(rows),
        "differences": lambda: differences(rows.filter(pl.col("method") != UNTOUCHED), organisms),
        "exchanged": lambda: exchanged(rows),
    }
    for name, made in blocks.items():
        text = f"<!-- {name} -->\n{made()}\n<!-- end -->"
        page, count = re.subn(f"<!-- {name} -->.*?<!-- end -->", lambda _, text=text: text, page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has {count} blocks {name!r}")
    return page
