"""Which columns of an unknown table hold what: recognised by their names, or one error that says what is needed."""

import re
from collections.abc import Sequence

import polars as pl

from ssn_probe.data.sources.adapters import (
    ID_COLUMNS,
    LABEL_COLUMNS,
    LANGUAGE_COLUMNS,
    SAYS,
    TEXT_COLUMNS,
    TOPIC_COLUMNS,
    TRUTH_COLUMNS,
    TRUTHS,
    Adapter,
)
from ssn_probe.data.sources.table_files import Table, as_text
from ssn_probe.data.table_checks import NOTHING
from ssn_probe.errors import DataError
from ssn_probe.languages import language_code, language_of
from ssn_probe.spec.node import brief
from ssn_probe.tables.column_names import shortened

JARGON = (
    *("cat", "tag", "set", "url", "row", "key", "ref", "src", "tgt", "lab", "ans", "sub", "new", "age", "mix"),
    *("doc", "res", "inp", "raw", "sys", "bot", "val", "des", "def", "min", "max", "dev", "all"),
    *("txt", "str", "tmp", "old", "one", "two", "bad", "top", "mod", "opt", "org", "aug"),
)
"""What columns and files are called, is also the code of a language, and hardly ever means it."""
WORDS = ("am", "an", "as", "be", "he", "id", "in", "is", "it", "my", "no", "or", "os", "pa", "so", "to")
"""Words that are also codes of languages; so may be any three letters."""
PART = "|".join(TEXT_COLUMNS)
TEXT_IN = re.compile(rf"(?:{PART})[_ .-](?P<last>.+)|(?P<first>.+)[_ .-](?:{PART})", re.IGNORECASE)
"""`prompt_de`, `de_text`."""
REFERENCE_IN = re.compile("reference[_ .-](?P<last>.+)|(?P<first>.+)[_ .-]reference", re.IGNORECASE)
"""`reference_de`, `de_reference`."""
SENTENCE = r"\S\s+\S|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
FIRST = 50
"""So many cells are examined by their language."""
MOST_SHOWN = 20
FEW = 5
"""A column of labels has at most so many: others are no labels, and are not named."""


def column_of(frame: pl.DataFrame, names: Sequence[str]) -> str | None:
    """The first of these columns that a table has, whatever its letter case."""
    here = {name.casefold(): name for name in reversed(frame.columns)}
    return next((here[name.casefold()] for name in names if name.casefold() in here), None)


def language_columns(frame: pl.DataFrame) -> dict[str, str]:
    """The columns of texts of a wide table → their languages."""
    return {name: code for name in frame.columns if (code := _language(frame, name))}


def reference_columns(frame: pl.DataFrame) -> dict[str, str]:
    """The languages of a wide table → their columns of responses to learn or to compare with, as `reference_de`."""
    found = {name: REFERENCE_IN.fullmatch(name) for name in reversed(frame.columns)}
    said = {name: language_code(match["last"] or match["first"]) for name, match in found.items() if match}
    return {code: name for name, code in said.items() if code is not None}


def _language(frame: pl.DataFrame, name: str) -> str | None:
    """The language of a column: its name says one, and its cells are texts; sentences, if it could be another word.

    `id` is Indonesian where some of its cells are.
    """
    found = TEXT_IN.fullmatch(name)
    said = ((found["last"] or found["first"]) if found else name).strip()
    code = language_code(said) or language_code(name)
    word = said.casefold()
    if code is None or word in JARGON or (found and name.casefold() in map(str.casefold, ID_COLUMNS)):
        return None
    doubtful = word in WORDS or re.fullmatch("[a-z]{3}", word)
    texts = _texts(frame[name])
    if texts is None or (word == "id" and not any(language_of(text, ("en", "id")) == "id" for text in texts[:FIRST])):
        return None
    fits = texts.str.contains(SENTENCE if doubtful else r"\p{L}")
    return code if 2 * int(fits.sum()) > len(texts) or texts.is_empty() else None


def _texts(column: pl.Series) -> pl.Series | None:
    """The cells that are not empty; None where they are no texts."""
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return None
    texts = column.cast(pl.String).drop_nulls()
    return texts.filter(texts.str.strip_chars() != "")


def recognised(name: str, tables: Sequence[Table]) -> Adapter:
    """The format of tables by the names of their columns. Raises DataError that names them and what is needed."""
    frame = tables[0].frame
    spoken = language_columns(frame)
    text = column_of(frame, TEXT_COLUMNS)
    if len(spoken) > 1 and column_of(frame, LANGUAGE_COLUMNS) is None:
        text = None
    alone = len({name for table in tables for name in table.frame.columns}) == 1
    if text is None and alone and not spoken:
        text = frame.columns[0]
    if text is None and not spoken:
        has = ", ".join(map(shortened, frame.columns[:MOST_SHOWN])) + ", …" * (len(frame.columns) > MOST_SHOWN)
        raise DataError(
            f"cannot tell where {tables[0].path} has its prompts: its columns are {has or 'none'}",
            "Give a column per language (en, zh, German, …); or a row per prompt and language, with one of the columns "
            f"{', '.join(TEXT_COLUMNS)} and one of {', '.join(LANGUAGE_COLUMNS)}; or the project's own columns "
            "prompt_id, language, context, text.",
        )
    label, labels, note = _labels(tables)
    asks = text is not None and text.casefold() in ("text", "instruction") and column_of(frame, ["output"])
    if asks and (column := column_of(frame, ["instruction"])):
        text = column  # as alpaca, whose column text has the response, too
    return Adapter(
        name=name,
        wide=text is None,
        text=(text or "",),
        appended="input" if asks else None,
        topic=TOPIC_COLUMNS,
        reference="reference",
        context=None,
        contexts=tuple((label, word, context) for word, context in labels.items()),
        note=note,
    )


def _labels(tables: Sequence[Table]) -> tuple[str, dict[str, str], str | None]:
    """The column that says which prompts are harmful, its labels → contexts, and a note; nothing where none does.

    A column that says it of some prompts and has other labels, too, is refused: all would count as harmful.
    """
    partly, unread = None, None
    for names, known in ((LABEL_COLUMNS, SAYS), (TRUTH_COLUMNS, TRUTHS)):
        for name in names:
            labels = _labels_in(name, tables)
            if labels and labels <= set(known):
                note = None if name == "context" else f"the column {name} says which prompts are harmful"
                return name, {label: known[label] for label in sorted(labels)}, note
            if labels & set(known):
                partly = partly or (name, sorted(labels - set(known)), known)
            elif 0 < len(labels) <= FEW:
                unread = unread or (name, sorted(labels))
    if partly:
        name, other, known = partly
        raise DataError(
            f"{tables[0].path}: the column {name} says of some prompts whether they are harmful, and of others "
            f"{_quoted(other)}",
            f"Write {', '.join(known)}; or nothing: such rows are left out. A column about something else has another "
            "name.",
        )
    if unread:
        name, other = unread
        return "", {}, f"the column {name} does not say which prompts are harmful: its labels are {_quoted(other)}"
    return "", {}, None


def _labels_in(name: str, tables: Sequence[Table]) -> set[str]:
    """The labels in a column that all tables have."""
    found = [(table, column) for table in tables if (column := column_of(table.frame, [name]))]
    if len(found) < len(tables):
        return set()
    columns = [as_text(table.frame[column], table.path).unique().drop_nulls() for table, column in found]
    return {label.strip().casefold() for column in columns for label in column} - set(NOTHING)


def _quoted(labels: Sequence[str]) -> str:
    shown = ", ".join(map(brief, labels[:FEW]))
    return shown + ", …" * (len(labels) > FEW)
