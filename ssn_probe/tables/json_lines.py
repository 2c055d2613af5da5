"""JSON lines: one object per line, each name once, every value text or a whole number."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.spec.node import brief, read_json
from ssn_probe.tables.column_names import check_names
from ssn_probe.tables.unreadable import decoded

ONE_OBJECT = "Write one JSON object per line."
HALF = re.compile("[\ud800-\udfff]")


def json_lines(
    path: Path, content: bytes, known: Sequence[str], numbers: Sequence[str]
) -> tuple[pl.DataFrame, list[str]]:
    """The known columns as text, and all names; `numbers`: the columns in which whole numbers stand for themselves.

    Raises DataError with the line of what is not unambiguous.
    """
    columns: dict[str, list[str | None]] = {}
    kinds: dict[str, type] = {}
    names: dict[str, int] = {}
    height = 0
    for line, text in enumerate(decoded(path, content).split("\n"), start=1):
        if not text.strip():
            continue
        row = json_object(path, line, text)
        for name in row:
            names.setdefault(name, line)
        for name in known:
            value = row.get(name)
            if value is not None:
                _check_value(path, line, name, value, kinds, numbers)
                if name not in columns:
                    columns[name] = [None] * height
                columns[name].append(str(value))
            elif name in columns:
                columns[name].append(None)
        height += 1
    check_names(path, list(names), known, "field")
    for name in (name for name in names if name in known):
        columns.setdefault(name, [None] * height)
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    return frame, list(names)


def json_object(path: Path, line: int, text: str) -> dict[str, Any]:
    """The object of one line. Raises DataError with the line."""
    if line == 1 and text.lstrip().startswith("["):
        raise DataError(f"cannot read {path}: it is a JSON array", "Write one JSON object per line, and no brackets.")
    try:
        row = read_json(text)
    except json.JSONDecodeError as error:
        raise DataError(f"cannot read {path}, line {line:,}: {error.msg} (column {error.colno})", ONE_OBJECT) from error
    except ValueError as error:
        raise DataError(f"cannot read {path}, line {line:,}: {error}", ONE_OBJECT) from error
    if not isinstance(row, dict):
        raise DataError(f"cannot read {path}: line {line:,} is not a JSON object", ONE_OBJECT)
    return row


def _check_value(path: Path, line: int, name: str, value: Any, kinds: dict[str, type], numbers: Sequence[str]) -> None:
    is_number = type(value) is int and name in numbers
    if not isinstance(value, str) and not is_number:
        also = " or as a whole number" if name in numbers else ""
        raise DataError(f"{path}, line {line:,}: {name} is not text, but {brief(value)}", f"Give {name} as text{also}.")
    if kinds.setdefault(name, type(value)) is not type(value):
        raise DataError(
            f"{path}, line {line:,}: {name} is {brief(value)}, and other lines have {_kind(kinds[name])}",
            f"Give {name} as text in every line.",
        )
    if isinstance(value, str) and HALF.search(value):
        raise DataError(
            f"{path}, line {line:,}: there is half a character, in {name}",
            "Remove it. In JSON, \\ud800 to \\udfff stand for a character only in pairs.",
        )


def _kind(kind: type) -> str:
    return "text" if kind is str else "whole numbers"
