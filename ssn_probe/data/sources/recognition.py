"""Which columns of an unknown table hold what: recognised by their names, or one error that says what is needed."""

from collections.abc import Sequence

import polars as pl

from ssn_probe.data.sources.adapters import ID_COLUMNS, LANGUAGE_COLUMNS, TEXT_COLUMNS, TOPIC_COLUMNS, Adapter
from ssn_probe.data.sources.table_files import Table
from ssn_probe.data.table_checks import CONTEXTS
from ssn_probe.errors import DataError
from ssn_probe.languages import language_code
from ssn_probe.tables.column_names import shortened

WORDS = ("id", "cat", "tag", "set", "url", "row", "key", "ref", "src", "tgt", "lab", "ans", "sub", "new", "age", "mix")
"""Names of columns that are also codes of languages."""
MOST_SHOWN = 20


def column_of(frame: pl.DataFrame, names: Sequence[str]) -> str | None:
    """The first of these columns that a table has, whatever its letter case."""
    here = {name.casefold(): name for name in reversed(frame.columns)}
    return next((here[name.casefold()] for name in names if name.casefold() in here), None)


def language_columns(frame: pl.DataFrame) -> dict[str, str]:
    """The columns of texts of a wide table → their languages."""
    return {name: code for name in frame.columns if _may_be_language(frame, name) and (code := language_code(name))}


def _may_be_language(frame: pl.DataFrame, name: str) -> bool:
    """`id` is Indonesian where it holds sentences, and another column the ids."""
    if name == "id" and column_of(frame, [one for one in ID_COLUMNS if one != "id"]):
        texts = frame[name].drop_nulls()
        return texts.dtype == pl.String and 2 * texts.str.contains(" ").sum() > len(texts)
    return name.casefold() not in WORDS


def recognised(name: str, tables: Sequence[Table]) -> Adapter:
    """The format of tables by the names of their columns. Raises DataError that names them and what is needed."""
    frame = tables[0].frame
    text = column_of(frame, TEXT_COLUMNS)
    if text is None and len(frame.columns) == 1 and not language_columns(frame):
        text = frame.columns[0]
    if text is None and not language_columns(frame):
        has = ", ".join(map(shortened, frame.columns[:MOST_SHOWN])) + ", …" * (len(frame.columns) > MOST_SHOWN)
        raise DataError(
            f"cannot tell where {tables[0].path} has its prompts: its columns are {has or 'none'}",
            "Give a column per language (en, zh, German, …); or a row per prompt and language, with one of the columns "
            f"{', '.join(TEXT_COLUMNS)} and one of {', '.join(LANGUAGE_COLUMNS)}; or the project's own columns "
            "prompt_id, language, context, text.",
        )
    context = column_of(frame, ["context"])
    labelled = context is not None and set(frame[context].cast(pl.String).unique().drop_nulls()) <= set(CONTEXTS)
    return Adapter(
        name=name,
        wide=text is None,
        text=(text or "",),
        topic=TOPIC_COLUMNS,
        reference="reference",
        context=None,
        contexts=tuple(("context", one, one) for one in CONTEXTS) if labelled else (),
    )
