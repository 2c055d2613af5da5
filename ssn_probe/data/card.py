"""The card of a prompt set, `dataset.json`: what the data declare about themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssn_probe.data.clusters import CLUSTERS
from ssn_probe.data.judges import FIELDS
from ssn_probe.errors import DataError
from ssn_probe.spec.node import brief, canonical, read_json
from ssn_probe.tables import check_names, unused_names

MOST_NEW_TOKENS = 1_000_000
LONGEST_NAME = 500
DESCRIPTIONS = (
    *("note", "notes", "description", "comment", "title", "version", "date", "author", "authors", "citation"),
    *("source", "sources", "url", "homepage", "template_note"),
)
"""Fields for readers, which change nothing: no note names them as unused."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value)) and len(set(value)) == len(value)


CARD: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "name",
        lambda value: _is_text(value) and len(value) <= LONGEST_NAME,
        f"a non-empty text of at most {LONGEST_NAME} characters",
    ),
    ("anchor", _is_text, "a language code"),
    ("license", _is_text, "a non-empty text"),
    (
        "max_new_tokens",
        lambda value: type(value) is int and 0 < value <= MOST_NEW_TOKENS,
        f"a whole number from 1 to {MOST_NEW_TOKENS:,}",
    ),
    ("languages", _is_list, "a list of language codes, each once"),
    (
        "cluster",
        lambda value: _is_list(value) and len(value) <= len(CLUSTERS),
        f"a list of one to {len(CLUSTERS)} columns of the table, each once",
    ),
    ("judge", lambda value: isinstance(value, dict), "a JSON object"),
)
"""What a card may declare: the name, whether a value is valid, and a description of valid values."""
NAMES = tuple(name for name, _, _ in CARD)


def read_card(card: Path, content: bytes) -> dict[str, Any]:
    """What a card declares. Raises DataError for what is malformed, and for names that are nearly known ones."""
    try:
        declared = read_json(content.decode("utf-8-sig"))
        canonical(declared).encode()  # raises for NaN and for half a character, which no result file could contain
    except (ValueError, RecursionError) as error:
        raise DataError(f"{card} is not JSON: {error}", "Fix it, or remove it.") from error
    if not isinstance(declared, dict):
        raise DataError(f"{card} is not a JSON object", 'Write {"name": …, "anchor": …, "judge": …}.')
    check_names(card, list(declared), NAMES, "field")
    judge = declared.get("judge")
    if isinstance(judge, dict):
        check_names(card, list(judge), FIELDS, "field of its judge")
    for name, fits, wanted in CARD:
        if name in declared and not fits(declared[name]):
            raise DataError(f"{card}: {name} is {brief(declared[name])}", f"Give {name} as {wanted}, or leave it out.")
    return declared


def unused_fields(declared: dict[str, Any]) -> list[str]:
    """The fields of a card that nothing reads, and that do not describe it."""
    judge = declared.get("judge") or {}
    own = unused_names(declared, [*NAMES, *DESCRIPTIONS])
    return own + [f"judge.{name}" for name in unused_names(judge, [*FIELDS, *DESCRIPTIONS])]
