"""JSON of others with any names: lines of objects, an array of objects, or one object of columns, as text."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.spec.node import read_json
from ssn_probe.tables.column_names import MOST_NAMES
from ssn_probe.tables.json_lines import HALF, json_object
from ssn_probe.tables.unreadable import decoded

FORMS = 'Write an array of objects, [{"id": …, "text": …}, …], or one object per line in a file .jsonl.'


def json_table(path: Path, content: bytes, *, lines: bool) -> pl.DataFrame:
    """Every field as text; lists and objects are JSON again. `lines`: an object per line.

    Raises DataError for what is not such a table.
    """
    text = decoded(path, content)
    if lines:
        numbered = enumerate(text.split("\n"), start=1)
        rows = [(f"line {line:,}", json_object(path, line, one)) for line, one in numbered if one.strip()]
    else:
        rows = list(_rows(path, text))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    if len(names) > MOST_NAMES:
        raise DataError(f"{path} has {len(names):,} fields", f"Give at most {MOST_NAMES:,}.")
    if any(map(HALF.search, names)):
        raise DataError(f"{path}: there is half a character, in the name of a field", "Remove it.")
    columns = {name: [_as_text(path, place, name, row.get(name)) for place, row in rows] for name in names}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))


def _rows(path: Path, text: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        data = read_json(text)
    except ValueError as error:
        raise DataError(f"cannot read {path}: {error}", FORMS) from error
    if isinstance(data, dict) and data and all(isinstance(column, list) for column in data.values()):
        if len({len(column) for column in data.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column):,}" for name, column in data.items())
            raise DataError(f"cannot read {path}: its columns have different lengths ({lengths})", FORMS)
        data = [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DataError(f"cannot read {path}: it is no table", FORMS)
    return [(f"row {number:,}", row) for number, row in enumerate(data, start=1)]


def _as_text(path: Path, place: str, name: str, value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if HALF.search(text):
        raise DataError(f"{path}, {place}: there is half a character, in {name}", "Remove it.")
    return text
