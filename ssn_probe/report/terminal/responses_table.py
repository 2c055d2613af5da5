"""What a model answered in a run, whether it ended or not: prompt by prompt, with the verdict and its reason."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ssn_probe.errors import ResultError, nearest
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.display import literal
from ssn_probe.text import counted, plain

TABLES = ("responses", "samples")
"""Tables of a run that hold responses: to *identify* prompts by the untouched model, and to *evaluate* prompts."""
BEGINNING = 80
"""Characters of a response that are shown: responses to harmful prompts may be harmful."""
SHOWN = {"prompt_id": "prompt", "eval_language": "language", "arm": "arm", "verdict": "verdict", "reason": "reason"}


def show_responses(
    terminal: Console, run: RunFolder, *, wanted: Mapping[str, str | None], count: int, full: bool = False
) -> None:
    """The first `count` responses whose columns are as `wanted` says (None: any); `full`: the whole texts."""
    rows, files = _responses(run)
    for column, value in wanted.items():
        if value is not None:
            known = rows[column].drop_nulls().unique(maintain_order=True).to_list()
            if value not in known:
                raise ResultError(f"no response of {run.name} has the {SHOWN[column]} {value!r}", nearest(value, known))
            rows = rows.filter(rows[column] == value)
    table = Table(box=None, pad_edge=False)
    for title in (*SHOWN.values(), "response" if full else f"first {BEGINNING} characters of the response"):
        table.add_column(title)
    for row in rows.head(count).iter_rows(named=True):
        text = row["response"] or ""
        text = text if full or len(text) <= BEGINNING else f"{text[:BEGINNING]}…"
        table.add_row(*(literal(_cell(row.get(name))) for name in SHOWN), literal(plain(text)))
    terminal.print(table)
    left = rows.height - count
    if left > 0:
        terminal.print(literal(f"and {counted(left, 'response')} more: -n {rows.height}"))
    for file in files:
        terminal.print(literal(f"Whole texts: {file}"), soft_wrap=True)


def _cell(value: Any) -> str:
    return "" if value is None else plain(str(value))


def _responses(run: RunFolder) -> tuple[Any, list[Path]]:
    import polars as pl

    names = [name for name in TABLES if os.path.lexists(run.path / f"{name}.parquet")]
    if not names:
        raise ResultError(
            f"{run.name} has no responses", "Its recipe generates none, or it ended before the first were there."
        )
    frames = [run.table(name) for name in names]
    rows = pl.concat(frames, how="diagonal_relaxed")
    lacking = [pl.lit(None, pl.String).alias(name) for name in SHOWN if name not in rows.columns]
    return rows.with_columns(lacking), [run.path / f"{name}.parquet" for name in names]
