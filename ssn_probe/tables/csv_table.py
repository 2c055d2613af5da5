"""csv: read by two readers that must agree, since each repairs other things."""

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.tables.column_names import check_names
from ssn_probe.tables.unreadable import UNREADABLE, decoded

QUOTES = "A cell with a comma, a line break or a quote stands in double quotes, and a quote within it is doubled."


def csv_table(
    path: Path,
    content: bytes,
    known: Sequence[str] | None,
    is_row: Callable[[dict[str, str]], bool],
    *,
    separator: str = ",",
    names: Sequence[str] = (),
) -> tuple[pl.DataFrame, list[str]]:
    """Every column as text, and the names of the header; an empty cell without quotes is null.

    `known`: names that a header may not nearly have, or have twice; None where it may have any. `is_row`: could these
    cells be a row of their own? A cell with a line break that holds such a row has swallowed it. `separator`: between
    cells, a comma or a tab. `names`: those of the columns of a file without a header.
    Raises DataError with the line of what is not unambiguous.
    """
    text = decoded(path, content).rstrip("\r\n") + "\n"
    if not names:
        _check_lines(path, text, separator)
    header, rows, lines = _strict(path, text, separator, names)
    check_names(path, header, header if known is None else known)
    for cells, line in zip(rows, lines, strict=True):
        if any("\n" in cell or "\r" in cell for cell in cells):
            _check_swallowed(path, cells, line, header, is_row)
    try:
        frame = pl.read_csv(
            io.BytesIO(text.encode()),
            infer_schema=False,  # an id such as 007 is text
            separator=separator,
            has_header=not names,
            new_columns=names or None,
        )
    except UNREADABLE as error:
        raise DataError(f"cannot read {path}: {error}", QUOTES) from error
    _check_agree(path, frame, rows, lines)
    return frame, header


def _strict(
    path: Path, text: str, separator: str, names: Sequence[str]
) -> tuple[list[str], list[list[str]], list[int]]:
    """The header, the rows and the line that each begins at."""
    rows, lines, before, quotes = [], [], 0, 0

    def counted() -> Iterator[str]:
        nonlocal quotes
        for line in io.StringIO(text, newline=""):
            quotes += line.count('"')
            yield line

    with _long_cells():
        reader = csv.reader(counted(), strict=True, delimiter=separator)
        try:
            for row in reader:
                if quotes % 2:
                    raise csv.Error("a quote stands alone in a cell")
                rows.append(row)
                lines.append(before + 1)
                before = reader.line_num
        except csv.Error as error:
            raise DataError(f"cannot read {path}, line {before + 1:,}: {error}", QUOTES) from error
    if not names and not any(rows[0]):
        raise DataError(f"cannot read {path}: it has no header", "Begin with the names of the columns.")
    header = list(names) or rows[0]
    for row, line in zip(rows, lines, strict=True):
        if not row:
            raise DataError(f"cannot read {path}: line {line:,} is empty", "Remove the line.")
        if len(row) != len(header):
            what = f"has {len(row)} cells, and the {'format' if names else 'header'} {len(header)}"
            raise DataError(f"cannot read {path}: line {line:,} {what}", QUOTES)
    return (header, rows, lines) if names else (header, rows[1:], lines[1:])


def _check_lines(path: Path, text: str, separator: str) -> None:
    header = text.split("\n", 1)[0]
    if "\r" in header[:-1]:
        raise DataError(f"cannot read {path}: its lines end with \\r", "End them with \\n or \\r\\n.")
    other = next((mark for mark in ";\t|," if mark in header and mark != separator), None)
    if other is not None and separator not in header:
        named = ", or call the file .tsv" if other == "\t" else ", or call the file .csv" if other == "," else ""
        hint = f"Separate them by {'commas' if separator == ',' else 'tabs'}{named}."
        raise DataError(f"cannot read {path}: its cells are separated by {other!r}", hint)


@contextmanager
def _long_cells():
    """Inside, a cell may have any length; the limit of Python's csv module is one for the whole process."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _check_swallowed(
    path: Path, cells: list[str], line: int, header: list[str], is_row: Callable[[dict[str, str]], bool]
) -> None:
    for cell in cells:
        for number, part in enumerate(cell.splitlines()[1:], start=1):
            inner = next(csv.reader([part]), [])
            if len(inner) == len(header) and is_row(dict(zip(header, inner, strict=True))):
                raise DataError(
                    f"cannot read {path}: the cell that begins in line {line:,} holds what looks like another row, "
                    f"{number} {'line' if number == 1 else 'lines'} below",
                    f"A quote is not closed, or stands where it does not belong. {QUOTES} If the text is right as it "
                    "is, give the table as jsonl or parquet.",
                )


def _check_agree(path: Path, frame: pl.DataFrame, rows: list[list[str]], lines: list[int]) -> None:
    if frame.height != len(rows):
        raise DataError(
            f"cannot read {path}: it has {len(rows):,} rows, or {frame.height:,}, by how quotes are read", QUOTES
        )
    for position, name in enumerate(frame.columns):
        column = pl.Series([row[position] for row in rows], dtype=pl.String)
        other = (column != frame[name].fill_null("")).arg_true()
        if len(other):
            where = f"line {lines[other[0]]:,}, column {name!r}"
            raise DataError(f"cannot read {path}: {where} can be read in two ways", QUOTES)
