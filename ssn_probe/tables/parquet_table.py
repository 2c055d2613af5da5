"""parquet: its size is known before it is read, and only the columns that are known are."""

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ssn_probe import limits
from ssn_probe.errors import DataError
from ssn_probe.tables.column_names import check_names
from ssn_probe.tables.parquet_footer import rows_and_bytes
from ssn_probe.tables.unreadable import UNREADABLE
from ssn_probe.text import size


def parquet_table(path: Path, content: bytes, known: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """The known columns, and the names of all. Raises DataError for a file that is damaged or too large."""
    try:
        rows, sizes = rows_and_bytes(content)
        names = list(pl.read_parquet_schema(io.BytesIO(content)))
    except UNREADABLE as error:
        raise DataError(f"cannot read {path}: {error}", "Write the file again.") from error
    check_names(path, names, known)
    here = [name for name in names if name in known]
    if not here:
        return pl.DataFrame(), names
    _check_size(path, rows, sum(sizes[name] for name in known))
    try:
        frame = pl.read_parquet(io.BytesIO(content), columns=here)
    except UNREADABLE as error:
        raise DataError(f"cannot read {path}: {error}", "Write the file again.") from error
    # A long text that is stored once, for all its rows, becomes large only now.
    texts = [pl.col(name).str.len_bytes().sum() for name, kind in frame.schema.items() if kind == pl.String]
    _check_size(path, frame.height, sum(frame.select(texts).row(0)) if texts else 0)
    return frame, names


def _check_size(path: Path, rows: int, count: int) -> None:
    if rows > limits.TABLE_ROWS:
        raise DataError(f"{path} has {rows:,} rows, more than the limit of {limits.TABLE_ROWS:,}", "Give fewer rows.")
    if count > limits.TABLE_BYTES:
        raise DataError(
            f"{path} holds {size(count)} of data, more than the limit of {size(limits.TABLE_BYTES)}", "Give less data."
        )
