"""A prompt set in this project's format: a folder with `prompts.parquet` (or .jsonl, .csv) and `dataset.json`, or one
such file."""

import csv
import io
import os.path
from pathlib import Path
from typing import NamedTuple

from ssn_probe import limits
from ssn_probe.data.table_checks import SUFFIXES
from ssn_probe.errors import DataError
from ssn_probe.limits import check_regular
from ssn_probe.spec.node import read_json
from ssn_probe.tables import UNREADABLE


class SetFiles(NamedTuple):
    """The files of a prompt set, and its name unless its card gives another."""

    name: str
    table: Path
    card: Path | None


def is_own_format(source: str) -> bool:
    """Is this an existing set of this project? A file is, if its columns say so or cannot be read at all."""
    path = Path(source)
    if os.path.isdir(path):
        return any(os.path.lexists(path / f"prompts{suffix}") for suffix in SUFFIXES)
    if path.suffix not in SUFFIXES:
        return False
    try:
        check_regular(path, limits.PROMPTS, DataError)
        names = _names(path)
    except (*UNREADABLE, csv.Error, TypeError, DataError):
        return True
    return not names or ("text" in names and bool(names & {"prompt_id", "context"}))


def _names(path: Path) -> set[str]:
    """The columns of a table."""
    import polars as pl

    if path.suffix == ".parquet":
        return set(pl.read_parquet_schema(path))
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline(10_000_000)
    return set(read_json(first)) if path.suffix == ".jsonl" else set(next(csv.reader(io.StringIO(first)), []))


def local_files(source: str) -> SetFiles:
    """The table and, where there is one, the card of a folder or of a single file."""
    path = Path(source)
    if os.path.isdir(path):
        tables = [path / f"prompts{suffix}" for suffix in SUFFIXES if os.path.lexists(path / f"prompts{suffix}")]
        card = path / "dataset.json"
    else:
        tables, card = [path], path.with_suffix(".json")
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise DataError(f"cannot tell which table of {path} is meant: it has {names}", "Keep one, or name the file.")
    return SetFiles(path.stem, tables[0], card if os.path.lexists(card) else None)
