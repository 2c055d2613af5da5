"""A data frame as a prompt set: a copy that is called by its content, so that recipes can name it."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.files import write_whole
from ssn_probe.spec import Prompts


def prompts_from_frame(
    frame: Any, *, name: str = "frame", out: str | os.PathLike[str] = "results", **options: Any
) -> Prompts:
    """The prompts of a polars or pandas data frame, for recipes.

    Args:
        frame: a row per prompt and language, or a column per language, with the columns that a file would have.
        name: what the set is called in results.
        out: the folder of results, whose cache keeps a copy under the SHA-256 of its content.
        options: those of `Prompts`: `harmless`, `languages`, `limit`, `max_new_tokens`.

    Raises:
        DataError: it is no data frame, or has columns that cannot be written as JSON.
    """
    if type(frame).__module__.partition(".")[0] == "pandas" and hasattr(frame, "columns"):
        frame = pl.from_pandas(frame)
    if not isinstance(frame, pl.DataFrame):
        raise DataError(f"a {type(frame).__name__} is no data frame", "Give one of polars or pandas.")
    if not name or Path(name).name != name:
        raise DataError(f"a set cannot be called {name!r}", "Give a name without slashes.")
    written = io.BytesIO()
    try:
        frame.write_ndjson(written)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"the frame cannot be written: {error}", "Give columns of text and whole numbers.") from error
    content = written.getvalue()
    path = Path(out) / "cache" / "prompts" / hashlib.sha256(content).hexdigest()[:16] / f"{name}.jsonl"
    if not path.exists():
        write_whole(path, lambda temporary: temporary.write_bytes(content))
    return Prompts(str(path), **options)
