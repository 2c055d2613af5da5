"""The table of a prompt set: read, completed and checked."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ssn_probe.data.clusters import CLUSTERS, cluster_columns, combined
from ssn_probe.data.sameness import same_spelling
from ssn_probe.errors import DataError, nearest
from ssn_probe.neurons import LANGUAGE
from ssn_probe.spec.node import brief
from ssn_probe.tables import csv_table, json_lines, parquet_table, unused_names
from ssn_probe.tables.column_names import shortened
from ssn_probe.text import counted

CONTEXTS = ("harmful", "harmless", "lookalike")
SPLITS = ("identify", "evaluate", "train")
REQUIRED = ("prompt_id", "language", "context", "text")
OPTIONAL = ("split", *CLUSTERS, "pair_id", "topic", "reference")
KNOWN = REQUIRED + OPTIONAL
NOTHING = ("", "nan", "none", "null", "n/a", "#n/a", "<na>")
"""What an empty cell is written as."""
MAY_BE_NUMBERS = ("prompt_id", *CLUSTERS, "pair_id", "topic", "reference")
"""Columns whose whole numbers stand for themselves: 7 is the id "7"."""
NUMBER = re.compile(r"[0-9]{1,15}(\.0*)?(e[0-9]{1,2})?")
"""An id that a spreadsheet may have written in another way: 007, 7.0, 1e5."""
MOST_LANGUAGES = 1_000
MOST_SHOWN = 20
"""So many columns are named."""
SUFFIXES = (".parquet", ".jsonl", ".csv")


def read_table(table: Path, content: bytes, clusters: Sequence[str] = ()) -> tuple[pl.DataFrame, list[str]]:
    """The rows of a table, every known column as text, optional ones filled; and the columns that nothing reads.

    `clusters`: the columns that are read as clusters, in place of `cluster` and those that cross it.
    Raises DataError for what is malformed, or can be read in more than one way.
    """
    known = tuple(dict.fromkeys((*(name for name in KNOWN if name not in CLUSTERS), *clusters))) if clusters else KNOWN
    frame, names = _read(table, content, known)
    missing = [name for name in (*REQUIRED, *clusters) if name not in names]
    if missing:
        has = ", ".join(map(shortened, names[:MOST_SHOWN])) + ", …" * (len(names) > MOST_SHOWN)
        raise DataError(
            f"{table} lacks the columns {missing}; it has {has or 'none'}",
            f"Required: {', '.join(REQUIRED)}. A row is one prompt in one language."
            + " `cluster` in the card names columns of the table." * bool(clusters),
        )
    if frame.is_empty():
        raise DataError(f"{table} has no prompts", "Give at least one row per language and context.")
    if clusters:
        labels = [pl.col(name).alias(column) for name, column in zip(clusters, CLUSTERS, strict=False)]
        frame = frame.drop(CLUSTERS, strict=False).hstack(frame.select(labels))
    return checked(frame, table), unused_names(names, known)


def checked(frame: pl.DataFrame, table: Path) -> pl.DataFrame:
    """Rows with all required columns, as text: the known columns, completed. Raises DataError that names the table."""
    absent = [pl.lit(None, pl.String).alias(name) for name in OPTIONAL if name not in frame.columns]
    frame = frame.with_columns(absent).select(KNOWN)
    frame = _with_defaults(frame.drop(set(CLUSTERS) - set(cluster_columns(frame))))
    _check_cells(frame, table)
    _check_units(frame, table)
    return frame


def _read(table: Path, content: bytes, known: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    numbers = [name for name in known if name in MAY_BE_NUMBERS or name not in KNOWN]
    match table.suffix:
        case ".csv":
            return csv_table(table, content, known, _could_be_a_row)
        case ".jsonl":
            return json_lines(table, content, known, numbers)
    frame, names = parquet_table(table, content, known)
    return _as_text(frame, table, numbers), names


def _could_be_a_row(cells: dict[str, str]) -> bool:
    return cells.get("context", "").strip() in CONTEXTS and bool(LANGUAGE.fullmatch(cells.get("language", "").strip()))


def _as_text(frame: pl.DataFrame, table: Path, numbers: Sequence[str]) -> pl.DataFrame:
    """The columns of a parquet file as text; a column of anything but text, categories or whole numbers is refused."""
    for name, kind in frame.schema.items():
        number = kind.is_integer() and name in numbers
        if not (number or kind in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
            also = " or as whole numbers" if name in numbers else ""
            raise DataError(f"{table} has a column that is not text: {name} is {kind}", f"Give {name} as text{also}.")
    return frame.select(pl.all().cast(pl.String))


def _with_defaults(frame: pl.DataFrame) -> pl.DataFrame:
    """A cluster is the id itself, a split a fixed function of all clusters, unless they are given."""
    frame = frame.with_columns(pl.col(cluster_columns(frame)).fill_null(pl.col("prompt_id")))
    return frame.with_columns(pl.col("split").fill_null(combined(frame).map_elements(_split_of, pl.String)))


def _split_of(cluster: str) -> str:
    """60 % identify, 30 % evaluate, 10 % train, by a hash of the cluster: the same on every machine, for ever."""
    share = int(hashlib.sha256(cluster.encode()).hexdigest()[:8], 16) / 2**32
    return "identify" if share < 0.6 else "evaluate" if share < 0.9 else "train"


def _check_cells(frame: pl.DataFrame, table: Path) -> None:
    """Every cell by itself: not empty where required, real characters, known contexts, splits and language codes."""
    for column in REQUIRED:
        bare = frame[column].str.strip_chars()
        nothing = bare.str.to_lowercase().is_in(NOTHING) if column == "text" else bare == ""  # nan is a language, too
        empty = nothing.fill_null(True).arg_true()
        if len(empty):
            what = f"{counted(len(empty), 'empty cell')} in {column}, the first in row {empty[0] + 1:,}"
            raise DataError(f"{table} has {what}", "Fill them, or remove the rows.")
    for column in frame.columns:
        if frame[column].str.contains("\0", literal=True).any():
            hint = "Remove it. In JSON, \\ud800 to \\udfff stand for a character only in pairs."
            raise DataError(f"{table} has a null character, or half a character, in {column}", hint)
    for column, known in (("context", CONTEXTS), ("split", SPLITS)):
        for value in frame[column].unique(maintain_order=True):
            if value not in known:
                raise DataError(f"{table}: unknown {column} {brief(value)}", nearest(str(value)[:80], known))
    languages = frame["language"].unique(maintain_order=True)
    if len(languages) > MOST_LANGUAGES:
        hint = f"Give at most {MOST_LANGUAGES:,}: is another column called language?"
        raise DataError(f"{table} has {len(languages):,} languages", hint)
    for language in languages:
        if not LANGUAGE.fullmatch(language):
            hint = "Give codes such as en, zh-Hans or qaa."
            raise DataError(f"{table}: {brief(language)} is not a language code", hint)


def _check_units(frame: pl.DataFrame, table: Path) -> None:
    """A prompt appears once per language; its translations, and what shares all its clusters, are in one split."""
    repeated = frame.filter(frame.select("prompt_id", "language").is_duplicated())
    if not repeated.is_empty():
        raise DataError(
            f"{table}: {brief(repeated['prompt_id'][0])} appears more than once in {repeated['language'][0]!r}",
            "Give each prompt_id once per language.",
        )
    _check_groups(frame, table)
    _check_spellings(frame, table)
    for unit, names in (("cluster", combined(frame)), ("prompt_id", frame["prompt_id"])):
        splits = pl.DataFrame({"name": names, "split": frame["split"]}).group_by("name").agg(pl.col("split").n_unique())
        crossing = splits.filter(pl.col("split") > 1)["name"]
        if len(crossing):
            raise DataError(
                f"{table}: the {unit} {brief(crossing.min())} is in several splits",
                "Prompts that are not independent, and translations of one prompt, belong in one split.",
            )


def _check_groups(frame: pl.DataFrame, table: Path) -> None:
    """What groups prompts names a group: an empty text would make all prompts one, and a blank would part them."""
    for column in (*cluster_columns(frame), "pair_id"):
        names = frame[column].drop_nulls().unique(maintain_order=True)
        bare = names.str.strip_chars()
        if (bare == "").any():
            raise DataError(f"{table} has empty texts as {column}", "Leave the cells empty (null), or name the groups.")
        if bare.is_duplicated().any():
            twice = brief(names.filter(bare.is_duplicated())[0])
            raise DataError(f"{table}: {column} {twice} is written with and without blanks", "Write it in one way.")
    languages = frame["language"].unique(maintain_order=True)
    alike = languages.filter(languages.str.to_lowercase().str.replace_all("_", "-").is_duplicated())
    if len(alike):
        raise DataError(
            f"{table}: one language is written in several ways: {', '.join(alike[:5])}", "Choose one of them."
        )


def _check_spellings(frame: pl.DataFrame, table: Path) -> None:
    """Ids that differ by case, blanks or zeros alone, in different languages, are one id for their author."""
    spoken = frame.group_by("prompt_id", maintain_order=True).agg("language")
    several = spoken.with_columns(same=pl.col("prompt_id").map_elements(_spelled, pl.String))
    several = several.filter(pl.col("same").is_duplicated())
    for _, ids in several.group_by("same", maintain_order=True):
        names, languages = ids["prompt_id"], ids["language"].to_list()
        if sum(map(len, languages)) == len(set().union(*languages)):
            raise DataError(
                f"{table}: the prompt_id {brief(names[0])} ({languages[0][0]}) is {brief(names[1])} in "
                f"{languages[1][0]}",
                "Translations of a prompt share their prompt_id: write it in one way.",
            )


def _spelled(name: str) -> str:
    """An id without what is easily written differently."""
    folded = same_spelling(name)
    return repr(float(folded)) if NUMBER.fullmatch(folded) else folded
