"""Malformed prompt sets: every mistake in a table or a card is one DataError that names it and the fix."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prompt_rows import Row, load, make_rows, write

from ssn_probe.data.table_checks import REQUIRED
from ssn_probe.errors import DataError


def edit(number: int, **values: Any) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [row | values if place == number else row for place, row in enumerate(rows)]


MALFORMED: dict[str, tuple[Callable[[list[Row]], list[Row]], str, str]] = {
    "context": (edit(2, context="harmfull"), "unknown context 'harmfull'", "'harmful'"),
    "split": (edit(2, split="test"), "unknown split 'test'", "evaluate"),
    "no id": (edit(2, prompt_id=None, cluster=None), "empty cell in", "Fill them"),
    "no language": (edit(2, language=None), "empty cell in", "Fill them"),
    "no context": (edit(2, context=None), "empty cell in", "Fill them"),
    "no text": (edit(2, text=None), "empty cell in", "Fill them"),
    "no text, as pandas writes it": (edit(2, text="NaN"), "1 empty cell in text, the first in row 3", "Fill them"),
    "same row twice": (lambda rows: [*rows, rows[2]], "'identify-harmful-1' appears more than once in 'en'", "once"),
    "two rows twice": (lambda rows: [*rows, rows[2], rows[4]], "appears more than once in 'en'", "once"),
    "empty cluster": (edit(3, cluster=" "), "empty texts as cluster", "null"),
    "cluster with a blank": (edit(3, cluster="identify-0 "), "with and without blanks", "in one way"),
    "pair with a blank": (lambda rows: edit(1, pair_id="a ")(edit(0, pair_id="a")(rows)), "pair_id", "in one way"),
    "language in two ways": (edit(2, language="EN"), "written in several ways: en, EN", "Choose"),
    "id twice": (edit(3, language="en"), "'identify-harmful-1' appears more than once in 'en'", "once"),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(("spoil", "message", "hint"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_table_is_one_clear_error(
    spoil: Callable[[list[Row]], list[Row]], message: str, hint: str, suffix: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(write(tmp_path, spoil(make_rows()), suffix))
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("column", REQUIRED)
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != column} for row in make_rows()]
    with pytest.raises(DataError, match=rf"lacks the columns \['{column}'\]"):
        load(write(tmp_path, rows))


def test_a_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    rows = [row | {"text": [{"role": "user", "content": row["text"]}]} for row in make_rows()]
    with pytest.raises(DataError, match="text"):
        load(write(tmp_path, rows))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prompts.jsonl", b"{"),
        ("prompts.jsonl", b""),
        ("prompts.csv", b""),
        ("prompts.csv", b"\xff\xfe\x00"),
        ("prompts.parquet", b"PAR1"),
        ("prompts.parquet", b"\x80\x04N."),
    ],
)
def test_a_file_that_cannot_be_read(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        load(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_without_rows_is_empty(suffix: str, tmp_path: Path) -> None:
    frame = pl.DataFrame(schema=dict.fromkeys(REQUIRED, pl.String))
    path = tmp_path / f"prompts{suffix}"
    frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path)
    with pytest.raises(DataError, match="has no prompts"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["missing", "missing.csv", "notes.txt", ""])
def test_no_such_set(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="no prompt") as caught:
        load(tmp_path / name)
    assert caught.value.hint


CARDS = {
    "not JSON": ("{", "is not JSON"),
    "empty": ("", "is not JSON"),
    "not UTF-8": (b'{"name": "caf\xe9"}', "is not JSON"),
    "a list": ("[]", "not a JSON object"),
    "a word for a number": ('{"max_new_tokens": "many"}', "max_new_tokens"),
    "null for a number": ('{"max_new_tokens": null}', "max_new_tokens"),
    "no tokens": ('{"max_new_tokens": 0}', "max_new_tokens"),
    "a name of thousands of characters": (json.dumps({"name": "x" * 9_999}), "name is 'xxx"),
    "languages as a word": ('{"languages": "en"}', "languages"),
    "languages as numbers": ('{"languages": [1, 2]}', "languages"),
    "an anchor that is no language": ('{"anchor": "fr"}', "the anchor 'fr' is not a language of the set"),
    "a language without rows": ('{"languages": ["en", "de", "sw"]}', "in sw"),
}


@pytest.mark.parametrize(("content", "message"), CARDS.values(), ids=CARDS)
def test_a_malformed_card_is_one_clear_error(content: str | bytes, message: str, tmp_path: Path) -> None:
    write(tmp_path, make_rows())
    card = tmp_path / "dataset.json"
    card.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("language", ["../../evil", "average", "*", "en us", "\x1b[31m"])
def test_a_language_that_is_no_code_is_refused(language: str, tmp_path: Path) -> None:
    """Language codes name files in the cache and rows in the tables."""
    rows = [row | {"language": language if row["language"] == "de" else "en"} for row in make_rows()]
    with pytest.raises(DataError, match="is not a language code"):
        load(write(tmp_path, rows))


SPELLINGS = {
    "case": ("P1", "p1"),
    "blank": ("p1", "p1 "),
    "zeros": ("007", "7"),
    "spreadsheet": ("7", "7.0"),
    "power": ("100000", "1e5"),
}


@pytest.mark.parametrize(("one", "other"), SPELLINGS.values(), ids=SPELLINGS)
def test_an_id_that_languages_write_differently_is_an_error(one: str, other: str, tmp_path: Path) -> None:
    rows = edit(1, prompt_id=other)(edit(0, prompt_id=one)(make_rows()))
    with pytest.raises(DataError, match=r"the prompt_id .* is .* in de") as caught:
        load(write(tmp_path, rows, ".csv"))
    assert "in one way" in str(caught.value.hint)


def test_ids_that_differ_by_case_within_a_language_are_two(tmp_path: Path) -> None:
    names = {"identify-harmful-1": "a", "identify-harmful-2": "A"}
    rows = [row | {"prompt_id": names.get(row["prompt_id"], row["prompt_id"])} for row in make_rows()]
    assert {"a", "A"} < set(load(write(tmp_path, rows)).frame["prompt_id"])


def test_more_languages_than_there_can_be(tmp_path: Path) -> None:
    rows = [make_rows()[0] | {"language": f"l{number}"} for number in range(1_001)]
    with pytest.raises(DataError, match="has 1,001 languages"):
        load(write(tmp_path, rows))
