"""What is common to all formats: what damaged files raise, and text that is UTF-8."""

import codecs
from pathlib import Path

import polars as pl

from ssn_probe.errors import DataError

UNREADABLE = (
    OSError,
    ValueError,
    OverflowError,
    RecursionError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
"""What reading a damaged file raises; a panic of polars is not an `Exception`."""


def decoded(path: Path, content: bytes) -> str:
    """The text of a file. Raises DataError with the line that is not UTF-8."""
    hint = "Save it as UTF-8."
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"cannot read {path}: it is UTF-16, not UTF-8", hint)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"cannot read {path}: line {line:,} is not UTF-8", hint) from error
