"""From the tables of others to the frame of this project, as an adapter says, with a note of all that was decided."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ssn_probe.data.same_texts import joined_by_text
from ssn_probe.data.sources.adapters import BY_NAME, FILE, Adapter
from ssn_probe.data.sources.recognition import JARGON, column_of, language_columns, reference_columns
from ssn_probe.data.sources.table_files import SHARD, Table, as_text
from ssn_probe.data.table_checks import NOTHING, checked
from ssn_probe.errors import DataError
from ssn_probe.languages import language_code
from ssn_probe.spec.node import brief
from ssn_probe.tables import unused_names
from ssn_probe.tables.column_names import shortened
from ssn_probe.text import counted, listing

SPLITS = ("train", "test", "dev", "val", "validation", "all", "default", "data", "main")
"""Parts of the names of files that are no languages, although some are codes of one."""
FIRST_TAG = re.compile(r"""\[\s*(['"])(.+?)\1\s*[],]""")
"""A list as Python or JSON writes it, with commas inside its texts."""
NESTED = re.compile(r"""\[\s*[\[{].*[\]}]\s*\]|\{\s*['"].*\}""", re.DOTALL)
"""Messages or an object of others as JSON or Python writes it."""
VARIANT = re.compile(r"(_n|_en)$")
TAG = re.compile(r"(?<![^_.-])[A-Za-z]{2,3}([_-][A-Z]{2}|[_-][A-Z][a-z]{3}|-[a-z]{2})$")
"""A language with a region or a script, at the end of a file's name: `pt-BR`, `zho_Hans`."""
LAST = re.compile(r"(?<=[_.-])[^_.-]+$")
APART = 25
"""So many rows lie between a prompt of XSTest and its contrast."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ForeignSet:
    """A set of others in this project's columns; `notes` are sentences for whoever reads its results."""

    name: str
    frame: pl.DataFrame
    license: str | None = None
    revision: str | None = None
    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


class Opened(NamedTuple):
    """The tables that a source leads to, the format that it names if any, and what the hub says of them."""

    adapter: Adapter | None
    name: str
    tables: Sequence[Table]
    license: str | None = None
    revision: str | None = None


def converted(adapter: Adapter, tables: Sequence[Table], role: str) -> ForeignSet:
    """The set that these tables hold. `role`: the context of prompts where nothing says it.

    Raises DataError for what is missing or can be read in two ways.
    """
    where = tables[0].path if len(tables) == 1 else tables[0].path.parent
    rows = pl.concat([_rows(adapter, table) for table in tables])
    if adapter.by_topic:
        rows = rows.with_columns(pl.col("topic").map_elements(_bare_topic, pl.String)).with_columns(group="topic")
    rows = rows.with_columns(number=pl.int_range(pl.len()).over("language", "group") + 1)
    notes = [] if adapter.note is None else [adapter.note]
    parallel, more = _parallel(adapter, rows)
    rows, empty = _filled(rows, where)
    if rows.is_empty():
        raise DataError(f"{where} has no prompts", "Give at least one text.")
    rows, labels = _with_contexts(adapter, rows, role)
    if rows.is_empty():
        raise _unlabelled(adapter, where)
    rows = _with_pairs(adapter, _with_ids(rows, parallel, where))
    alone = rows.filter(context="harmful")["pair_id"].null_count() if adapter.pairs == "contrast" else 0
    if alone:
        notes.append(
            f"{counted(alone, 'harmful prompt')} without the prompt that it contrasts with, {APART} rows above"
        )
    frame = checked(joined_by_text(rows), where)
    unused = {name for table in tables for name in table.frame.columns} - _read(adapter, tables)
    return ForeignSet(
        name=adapter.name,
        frame=frame,
        license=adapter.license,
        notes=tuple(f"{adapter.name}: {note}" for note in (*notes, *more, *empty, *labels)),
        unused=tuple(unused_names(unused, ())),
    )


# ── the rows of one table ────────────────────────────────────────────────────────────────────────────────────────────


def _rows(adapter: Adapter, table: Table) -> pl.DataFrame:
    """`language, text, id, topic, reference, group, place` and what contexts and pairs are read from, all text."""
    frame, wanted = table.frame, {}
    spoken, group = _name_says(table.label)
    length = frame.height
    said = language_columns(frame) if adapter.wide else {}
    for name, columns in (("id", adapter.id), ("topic", adapter.topic), ("reference", (adapter.reference or "",))):
        wanted[name] = _column(frame.drop(said), table, columns, length).alias(name)
    for columns, _, _ in adapter.contexts:
        parts = [_column(frame, table, [part], length).fill_null("") for part in columns.split("+")]
        wanted[f"by {columns}"] = (
            pl.DataFrame([p.alias(str(i)) for i, p in enumerate(parts)])
            .select(pl.concat_str(pl.all(), separator="+").alias(f"by {columns}"))
            .to_series()
        )
    wanted["focus"] = _column(frame, table, ("focus",), length).alias("focus")
    for column, value in adapter.keep:
        found = _column(frame, table, (column,), length)
        wanted[f"keep {column}"] = found.fill_null(value).alias(f"keep {column}")
    kept = pl.DataFrame(list(wanted.values())).with_columns(
        pl.col("topic").map_elements(_topic, pl.String), group=pl.lit(group), place=pl.int_range(length)
    )
    kept = kept.with_columns(_wide(adapter, table, said) if adapter.wide else _long(adapter, table, spoken))
    for column, value in adapter.keep:
        kept = kept.filter(pl.col(f"keep {column}") == value).drop(f"keep {column}")
    return kept.explode("language", "text", "reference") if adapter.wide else kept.drop_nulls("language")


def _column(frame: pl.DataFrame, table: Table, names: Sequence[str], length: int) -> pl.Series:
    """The first of these columns as text, or nulls; `@file` is the table's label."""
    for name in names:
        found = None if name == FILE else column_of(frame, [name])
        if name == FILE:
            return pl.Series([table.label], dtype=pl.String).new_from_index(0, length)
        if found is not None:
            return as_text(frame[found], table.path)
    return pl.Series([None], dtype=pl.String).new_from_index(0, length)


def _wide(adapter: Adapter, table: Table, languages: dict[str, str]) -> list[pl.Series]:
    """The columns `language`, `text` and `reference`, lists with one item per language."""
    twice = [name for name, code in languages.items() if list(languages.values()).count(code) > 1]
    if twice:
        raise DataError(f"{table.path}: the columns {listing(twice)} are one language", "Keep one of them.")
    if not languages:
        raise _lacks(adapter, table, "a column per language, such as en or zh")
    columns, length = reference_columns(table.frame), table.frame.height
    named = {code: (columns.get(code, adapter.reference or ""),) for code in languages.values()}
    texts = [as_text(table.frame[name], table.path) for name in languages]
    answers = [_column(table.frame, table, column, length).alias(code) for code, column in named.items()]
    return [
        pl.Series("language", [list(named)] * length, pl.List(pl.String)),
        pl.DataFrame(texts).select(pl.concat_list(pl.all()).alias("text")).to_series(),
        pl.DataFrame(answers).select(pl.concat_list(pl.all()).alias("reference")).to_series(),
    ]


def _long(adapter: Adapter, table: Table, spoken: str | None) -> list[pl.Series]:
    """The columns `language` and `text`."""
    frame = table.frame
    name = column_of(frame, adapter.text)
    if name is None:
        raise _lacks(adapter, table, f"the column {' or '.join(adapter.text)}")
    text = as_text(frame[name], table.path).alias("text")
    first = text.drop_nulls().head(1)
    if frame[name].dtype.is_nested() or (len(first) and NESTED.fullmatch(first[0].strip())):
        raise DataError(f"{table.path}: {name} holds lists or objects, and no text", "Give the request alone, as text.")
    more = _column(frame, table, (adapter.appended or "",), frame.height).fill_null("").str.strip_chars()
    if adapter.appended:
        both = pl.DataFrame([text, more.alias("more")])
        text = both.select(
            pl.when(pl.col("more") == "").then("text").otherwise(pl.col("text") + "\n\n" + pl.col("more"))
        ).to_series()
    return [_languages(adapter, table, spoken, text), text.alias("text")]


def _languages(adapter: Adapter, table: Table, spoken: str | None, text: pl.Series) -> pl.Series:
    """The language of every row: of its column, of the file's name, or that of the adapter; null in empty rows."""
    column = column_of(table.frame, adapter.language)
    if column is None:
        spoken = spoken or adapter.spoken
        if spoken is None:
            raise DataError(
                f"{table.path} does not say in which language its prompts are",
                "Add a column language, or name the file after the language: prompts_de.csv. Of a known set, name the "
                "format: xstest:PATH.",
            )
        return pl.Series("language", [spoken]).new_from_index(0, table.frame.height)
    named = as_text(table.frame[column], table.path).fill_null("")
    codes = {name: language_code(name) for name in named.unique(maintain_order=True)}
    known = named.replace_strict(codes, return_dtype=pl.String).alias("language")
    lost = (known.is_null() & (text.fill_null("").str.strip_chars() != "")).arg_true()
    if len(lost):
        raise DataError(
            f"{table.path}, row {lost[0] + 1:,}: {brief(named[lost[0]])} in the column {column} is no language",
            "Give codes such as en, zh or jav_Latn, or English names.",
        )
    return known


def _lacks(adapter: Adapter, table: Table, what: str) -> DataError:
    has = ", ".join(map(shortened, table.frame.columns[:20]))
    if adapter.name not in BY_NAME:
        hint = "Give one file, or a folder whose tables have the same columns."
        raise DataError(f"{table.path} has other columns than the tables beside it: {has}", hint)
    return DataError(
        f"{table.path} is not in the format of {adapter.name}: it lacks {what}; its columns are {has}",
        "Give a file in that format, or the path alone: then its columns say what it is.",
    )


def _name_says(label: str) -> tuple[str | None, str]:
    """The language that a file's name or one of its folders is, and the rest of its name."""
    *folders, stem = [SHARD.sub("", part) for part in label.split("/")]
    ends = [found[0] for pattern in (TAG, LAST) if (found := pattern.search(stem))]
    tries = [(word, stem.removesuffix(word).rstrip("_.-")) for word in (stem, *ends)]
    for word, rest in [*((folder, stem) for folder in reversed(folders)), *tries]:
        code = None if re.split("[_-]", word.casefold())[0] in (*SPLITS, *JARGON) else language_code(word)
        if code is not None:
            return code, VARIANT.sub("", rest)
    return None, VARIANT.sub("", stem)


def _topic(text: str) -> str:
    """The first of a list of tags; a contrast has the topic of what it contrasts with."""
    listed = FIRST_TAG.match(text)
    return listed[2] if listed else text.removeprefix("contrast_")


# ── all tables together ──────────────────────────────────────────────────────────────────────────────────────────────


def _parallel(adapter: Adapter, rows: pl.DataFrame) -> tuple[bool, list[str]]:
    """Do prompts of one id, or of one place where there are no ids, say the same in all languages?"""
    if not adapter.parallel or adapter.wide or rows["language"].n_unique() == 1 or not rows["id"].is_null().any():
        return adapter.parallel, []
    sides = rows.group_by("group", "number").agg(pl.len(), pl.col("topic").n_unique().alias("topics"))
    if sides["len"].n_unique() == 1 and sides["topics"].max() == 1:
        return True, ["it has no ids: prompts at one place in their languages are taken as translations of each other"]
    return False, ["it has no ids, and its languages differ in number or order: nothing says what is a translation"]


def _filled(rows: pl.DataFrame, where: Path) -> tuple[pl.DataFrame, list[str]]:
    """The rows with a text; empty cells, and what pandas writes for them, are counted."""
    empty = pl.col("text").fill_null("").str.strip_chars().str.to_lowercase().is_in(NOTHING)
    left = rows.filter(empty).group_by("language", maintain_order=True).len()
    per = ", ".join(f"{language} {count:,}" for language, count in left.iter_rows())
    notes = [f"{counted(int(left['len'].sum()), 'empty cell')} of {where.name} ({per}) left out"] if per else []
    return rows.filter(~empty), notes


def _with_contexts(adapter: Adapter, rows: pl.DataFrame, role: str) -> tuple[pl.DataFrame, list[str]]:
    """`context`: of the labels, of the format, or what the set is given as; rows without a label are counted."""
    if not adapter.contexts:
        context = adapter.context or role
        said = (
            []
            if adapter.context
            else [f"no column that is known says which prompts are harmful: all count as {context}"]
        )
        return rows.with_columns(context=pl.lit(context)), said
    keys = list(dict.fromkeys(f"by {columns}" for columns, _, _ in adapter.contexts))
    found = [_context(adapter, dict(zip(keys, values, strict=True))) for values in rows.select(keys).iter_rows()]
    rows = rows.with_columns(context=pl.Series(found, dtype=pl.String))
    count = rows["context"].null_count()
    return rows.drop_nulls("context"), [f"{counted(count, 'row')} without a label left out"] if count else []


def _unlabelled(adapter: Adapter, where: Path) -> DataError:
    """No row has a label: this says where the labels would be."""
    rules = [
        f"{'the name of the file' if columns == FILE else columns} is {pattern}: {context}"
        for columns, pattern, context in adapter.contexts
    ]
    return DataError(
        f"no row of {where} has a label that {adapter.name} knows, so that nothing says which prompts are harmful",
        f"The labels are {'; '.join(rules)}. Or give the path alone: then all prompts count as harmful, or harmless.",
    )


def _context(adapter: Adapter, values: dict[str, str]) -> str | None:
    return next(
        (
            context
            for columns, pattern, context in adapter.contexts
            if (value := values[f"by {columns}"].strip().casefold()) and fnmatchcase(value, pattern)
        ),
        None,
    )


def _with_ids(rows: pl.DataFrame, parallel: bool, where: Path) -> pl.DataFrame:
    """`prompt_id` from the column of ids, else from the place; of its own in each language where none is parallel."""
    without = rows["id"].is_null().sum()
    if 0 < without < rows.height:
        hint = "Give every prompt an id, which its translations share, or none."
        raise DataError(f"{where}: {without:,} of {rows.height:,} prompts have no id", hint)
    ids = pl.col("number").cast(pl.String) if without else pl.col("id").str.strip_chars()
    prefix = [pl.col("group"), pl.lit("-")] if rows["group"].n_unique() > 1 else []
    spoken = [] if parallel else [pl.col("language"), pl.lit("-")]
    rows = rows.with_columns(prompt_id=pl.concat_str([*spoken, *prefix, ids]))
    twice = rows.filter(rows.select("prompt_id", "language").is_duplicated())
    if twice.height:
        name, language = twice.select("prompt_id", "language").row(0)
        first, second = (twice.filter(prompt_id=name, language=language)["place"] + 1)[:2]
        raise DataError(
            f"{where}: the id {brief(name)} stands more than once in {language}, in rows {first:,} and {second:,}",
            "Give every prompt an id of its own, which its translations share; or leave the column of ids out: then "
            "prompts are numbered by their order.",
        )
    return rows


def _bare_topic(label: str) -> str:
    """A topic of XSafety, whose files are called a little differently in some languages."""
    return VARIANT.sub("", label.rsplit("/", 1)[-1])


def _with_pairs(adapter: Adapter, rows: pl.DataFrame) -> pl.DataFrame:
    """`pair_id` and `cluster`: what belongs together stays in one split."""
    match adapter.pairs:
        case "id":
            pair = rows["id"].to_list()
        case "contrast":
            pair = _contrasts(rows)
        case _:
            pair = [None] * rows.height
    rows = rows.with_columns(pair_id=pl.Series([one and f"pair-{one}" for one in pair], dtype=pl.String))
    return rows.with_columns(cluster=pl.col("pair_id"))


def _contrasts(rows: pl.DataFrame) -> list[str | None]:
    """The number of the first of two rows that stand 25 apart, share their focus, and differ in context."""
    numbers = [int(one) if (one or "").isdigit() else place for one, place in rows.select("id", "number").iter_rows()]
    sides = dict(zip(numbers, rows.select("focus", "context").iter_rows(), strict=True))
    found: dict[int, str] = {}
    for number, (focus, context) in sides.items():
        other = sides.get(number - APART)
        if other is not None and focus and other[0] == focus and other[1] != context == "harmful":
            found[number] = found[number - APART] = str(number - APART)
    return [found.get(number) for number in numbers]


def _read(adapter: Adapter, tables: Sequence[Table]) -> set[str]:
    """The columns that were read."""
    rules = [*(part for columns, *_ in adapter.contexts for part in columns.split("+")), *(c for c, _ in adapter.keep)]
    single = (adapter.reference, adapter.appended, "focus" if adapter.pairs == "contrast" else None, *rules)
    groups = [adapter.id, adapter.topic, adapter.text, adapter.language, *((name or "",) for name in single)]
    found = {column_of(table.frame, group) or "" for table in tables for group in groups}
    wide = [table.frame for table in tables if adapter.wide]
    return found.union(*map(language_columns, wide), *(reference_columns(frame).values() for frame in wide))
