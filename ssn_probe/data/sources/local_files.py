"""A prompt set on disk: a folder with `prompts.parquet` (or .jsonl, .csv) and `dataset.json`, or one such file."""

import os.path
from pathlib import Path
from typing import NamedTuple

from ssn_probe.data.table_checks import SUFFIXES
from ssn_probe.errors import DataError
from ssn_probe.spec.node import brief


class SetFiles(NamedTuple):
    """The files of a prompt set, and its name unless its card gives another."""

    name: str
    table: Path
    card: Path | None


def local_files(source: str) -> SetFiles:
    """The table and, where there is one, the card of a folder or of a single file."""
    path = Path(source)
    if os.path.isdir(path):
        tables = [path / f"prompts{suffix}" for suffix in SUFFIXES if os.path.lexists(path / f"prompts{suffix}")]
        card = path / "dataset.json"
    elif os.path.exists(path) and path.suffix in SUFFIXES:
        tables, card = [path], path.with_suffix(".json")
    else:
        raise DataError(
            f"no prompt set {brief(source)}",
            "Give 'organism', a folder with prompts.parquet (or .jsonl, .csv) and dataset.json, or one such file.",
        )
    if not tables:
        raise DataError(f"{path} has no prompts.parquet, prompts.jsonl or prompts.csv", "Add one of them.")
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise DataError(f"cannot tell which table of {path} is meant: it has {names}", "Keep one, or name the file.")
    return SetFiles(path.stem, tables[0], card if os.path.lexists(card) else None)
