"""Responses that people labelled as refusals or not, in the format of PolyGuardPrompts: judges are measured on them.

A row is a request, a response and whether it refuses. Rows of one `prompt_id` are one request in several languages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ssn_probe.data.sources import open_tables
from ssn_probe.data.sources.adapters import ID_COLUMNS, LANGUAGE_COLUMNS
from ssn_probe.data.sources.recognition import column_of
from ssn_probe.data.sources.table_files import READ, Table, as_text
from ssn_probe.errors import DataError
from ssn_probe.languages import language_code
from ssn_probe.spec.node import brief

COLUMNS = {
    "language": LANGUAGE_COLUMNS,
    "request": ("prompt", "request", "question"),
    "response": ("response",),
    "label": ("response_refusal_label", "refusal_label", "refusal", "label", "verdict"),
}
LABELS = {
    **dict.fromkeys(("refusal", "refused", "yes", "true"), "refused"),
    **dict.fromkeys(("compliance", "complied", "no", "false"), "complied"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledResponses:
    """`frame`: `prompt_id, language, request, response, label` (refused or complied); `unlabelled` rows left out,
    as those without a response."""

    name: str
    frame: pl.DataFrame
    unlabelled: int
    license: str | None
    revision: str | None


def labelled_responses(source: str = "polyguard") -> LabelledResponses:
    """The labelled responses of a source: `polyguard`, `polyguard:PATH`, a path, or a name on the hub.

    Raises DataError for what is not in this format.
    """
    if Path(source).suffix in READ and ":" not in source and not Path(source).exists():
        raise DataError(f"there is no file {brief(source)} of labelled responses", "Check the path.")
    opened = open_tables(source)
    rows = pl.concat([_rows(table) for table in opened.tables])
    kept = rows.drop_nulls().filter(pl.col("response").str.strip_chars() != "")
    if kept.is_empty():
        raise DataError(f"{source} has no labelled response", "Label some as refusal or compliance.")
    return LabelledResponses(
        name=opened.adapter.name if opened.adapter else opened.name,
        frame=kept,
        unlabelled=rows.height - kept.height,
        license=opened.license or (opened.adapter and opened.adapter.license),
        revision=opened.revision,
    )


def _rows(table: Table) -> pl.DataFrame:
    found = {name: column_of(table.frame, columns) for name, columns in COLUMNS.items()}
    missing = [name for name, column in found.items() if column is None]
    if missing:
        raise DataError(
            f"{table.path} is not in the format of PolyGuardPrompts: it lacks {', '.join(missing)}; its columns are "
            f"{', '.join(map(repr, table.frame.columns[:20]))}",
            "Give the columns id, language, prompt, response and response_refusal_label (refusal or compliance).",
        )
    texts = {name: as_text(table.frame[column], table.path).alias(name) for name, column in found.items() if column}
    place = column_of(table.frame, ID_COLUMNS)
    ids = pl.int_range(table.frame.height, eager=True).cast(pl.String) if place is None else table.frame[place]
    return pl.DataFrame(
        {
            "prompt_id": as_text(ids, table.path),
            "language": _mapped(table, texts["language"], language_code, "no language"),
            "request": texts["request"],
            "response": texts["response"],
            "label": _mapped(table, texts["label"], lambda label: LABELS.get(label.strip().casefold()), "no label"),
        }
    )


def _mapped(table: Table, column: pl.Series, meaning: Callable[[str], str | None], what: str) -> pl.Series:
    """The meaning of every cell; null stays null."""
    values = column.drop_nulls().unique(maintain_order=True)
    meanings = {value: meaning(value) for value in values if value.strip()}
    unknown = [value for value, one in meanings.items() if one is None]
    if unknown:
        raise DataError(
            f"{table.path}: {brief(unknown[0])} is {what} that is known",
            f"Labels are {', '.join(LABELS)}; languages codes or English names.",
        )
    return column.replace_strict(meanings, default=None, return_dtype=pl.String)
