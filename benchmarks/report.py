"""What a run of the benchmarks prints and writes: tables with rich, the same as JSON, and the machine beside them."""

import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.timing import Row, Spread

PACKAGES = ("torch", "transformers", "nnsight", "peft", "polars", "numpy")


def machine(threads: int) -> dict[str, Any]:
    """What the numbers depend on: processor, cores, threads, versions, and how busy the machine is."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show(console: Console, rows: Iterable[Row]) -> None:
    """One table per group."""
    for group, members in groupby(rows, key=lambda row: row.group):
        kept = list(members)
        heading = "memory" if kept[0].unit == "MiB" else "processor time"
        cells = [_cells(row) for row in kept]
        table = Table(title=group, title_justify="left", title_style="bold")
        used = [i for i in range(len(cells[0])) if any(line[i] for line in cells)]
        for i in used:
            title = ("what", heading, "wall time", "one run", "target", "")[i]
            table.add_column(title, justify="left" if i in (0, 5) else "right")
        for line in cells:
            table.add_row(*(line[i] for i in used))
        console.print(table)


def _cells(row: Row) -> list[str]:
    seconds = (
        "" if row.seconds is None else f"{_number(row.seconds)} s" if row.seconds >= 0.01 else f"{row.seconds:.1g} s"
    )
    target = "" if row.target is None else f"≤ {row.target:g} {'met' if row.met else 'MISSED'}"
    wall = "" if row.wall is None else amount(row.wall, row.unit)
    return [row.name, amount(row.value, row.unit), wall, seconds, target, row.note]


def amount(value: Spread, unit: str) -> str:
    middle = f"{_number(value.median)} {unit}".rstrip()
    return middle if value.low == value.high else f"{middle} ({_number(value.low)}–{_number(value.high)})"


def _number(value: float) -> str:
    """Three digits or so, and never more than three after the point."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3
    return f"{value:,.{digits}f}"


def write(file: Path, about: dict[str, Any], rows: Iterable[Row]) -> None:
    """The machine and every row, as JSON."""
    content = {"machine": about, "rows": [row.to_json() for row in rows]}
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
