"""What a reader would repair by itself is one error that names the line; what is unambiguous is read as it stands."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prompt_rows import load, make_rows, write

from ssn_probe.errors import DataError
from ssn_probe.neurons import read_neurons
from ssn_probe.tables import parquet_table

HEADER = "prompt_id,language,context,split,text\n"
ROW = "p{0},en,harmful,evaluate,say {0}\n"


def csv_rows(*texts: str) -> str:
    return HEADER + "".join(f"p{number},en,harmful,evaluate,{text}\n" for number, text in enumerate(texts))


def written(folder: Path, text: str | bytes, name: str = "prompts.csv") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


READ = {
    "plain": (csv_rows("say a", "say b"), ["say a", "say b"]),
    "quoted": (csv_rows('"say ""a"", b"', "c"), ['say "a", b', "c"]),
    "quotes within": (csv_rows('say "a"', "b"), ['say "a"', "b"]),
    "line break": (csv_rows('"say\r\na, b"', "c"), ["say\r\na, b", "c"]),
    "line break and commas": (csv_rows('"say\na, b, c, d, e"', "c"), ["say\na, b, c, d, e", "c"]),
    "windows": (csv_rows("a", "b").replace("\n", "\r\n"), ["a", "b"]),
    "marked": ("\ufeff" + csv_rows("a"), ["a"]),
    "another separator of lines": (csv_rows("a\u2028b\x0bc"), ["a\u2028b\x0bc"]),
    "long": (csv_rows("a" * 200_000), ["a" * 200_000]),
    "number": (csv_rows("007"), ["007"]),
    "empty lines at the end": (csv_rows("a", "b") + "\r\n\n", ["a", "b"]),
    "backslash": (csv_rows('a\\"b\\"', "c:\\"), ['a\\"b\\"', "c:\\"]),
}


@pytest.mark.parametrize(("text", "texts"), READ.values(), ids=READ)
def test_a_csv_that_can_be_read_in_one_way(text: str, texts: list[str], tmp_path: Path) -> None:
    assert load(written(tmp_path, text)).frame["text"].to_list() == texts


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "backslash before quotes": (csv_rows("a", r'"he said \"hi\" b"', "c"), "line 3"),
    "backslash before one quote": (csv_rows(r'"a \"x"', "b", r'"c \"x"', "d"), "line 2"),
    "a quote that is not closed": (csv_rows("a", '"b', "c", "d"), "line 3"),
    "a quote that is closed later": (csv_rows('"a', "b", 'c"', "d"), "the cell that begins in line 2 holds"),
    "quotes of two lines": (csv_rows("a", '5" disk', '6" disk', "c"), "line 3: a quote stands alone"),
    "a quote in one cell": (csv_rows('5" disk', "b"), "line 2: a quote stands alone"),
    "text after a quote": (csv_rows('"a"b'), "line 2"),
    "too few cells": (HEADER + "p1,en,harmful,evaluate,a\np2,en,harmful\n", "line 3 has 3 cells, and the header 5"),
    "too many cells": (csv_rows("a", "b, c"), "line 3 has 6 cells, and the header 5"),
    "an empty line": (csv_rows("a").replace("p0", "\np0"), "line 2 is empty"),
    "two columns": (HEADER.replace("split", "text") + ROW.format(1), "the column 'text' 2 times"),
    "no header": (ROW.format(1) + ROW.format(2), "lacks the columns"),
    "semicolons": (csv_rows("a").replace(",", ";"), "separated by ';'"),
    "semicolons, and a cell with quotes": (csv_rows('"a ""b"""').replace(",", ";"), "separated by ';'"),
    "quoted semicolons": ('"prompt_id";"text"\n"a";"b"\n', "separated by ';'"),
    "rows of empty cells": (csv_rows("a") + ",,,,\n" * 2, "2 empty cells in prompt_id, the first in row 2"),
    "tabs": (csv_rows("a").replace(",", "\t"), r"separated by '\\t'"),
    "Latin-1": (csv_rows("a", "caf\xe9").encode("latin-1"), "line 3 is not UTF-8"),
    "UTF-16": (csv_rows("a").encode("utf-16"), "is UTF-16"),
    "null": (csv_rows("a\0b"), "null character"),
    "something at the end": (csv_rows("a") + "\0", "line 3 has 1 cells"),
    "old line ends": (csv_rows("a", "b").replace("\n", "\r"), r"its lines end with \\r"),
    "an old line end": (csv_rows("a\rb", "c"), "line 3 has 1 cells"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_csv_that_a_reader_would_repair(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(written(tmp_path, text))
    assert caught.value.hint


def test_lines_are_not_lost_behind_an_escaped_quote(tmp_path: Path) -> None:
    """An odd number of escaped quotes made one prompt of many lines, an even number lost the quotes."""
    for texts in ([r'"x \"a\""'], [r'"x \"a"', "b", "c", r'"y \"d"']):
        with pytest.raises(DataError, match="line 2"):
            load(written(tmp_path, csv_rows(*texts)))


LINES: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "a name twice": (lambda row: json.dumps(row)[:-1] + ', "text": "other"}', "line 3: 'text' appears twice"),
    "no object": (lambda row: "5", "line 3 is not a JSON object"),
    "an array": (lambda row: json.dumps([row]), "line 3 is not a JSON object"),
    "two objects": (lambda row: json.dumps(row) * 2, "line 3: Extra data"),
    "a trailing comma": (lambda row: json.dumps(row)[:-1] + ",}", "line 3: "),
    "a number": (lambda row: json.dumps(row | {"text": 5}), "line 3: text is not text, but 5"),
    "true": (lambda row: json.dumps(row | {"text": True}), "line 3: text is not text, but True"),
    "a list": (lambda row: json.dumps(row | {"text": ["a"]}), r"line 3: text is not text, but \['a'\]"),
    "not a number": (
        lambda row: json.dumps(row | {"reference": float("nan")}),
        "line 3: reference is not text, but nan",
    ),
    "a fraction": (lambda row: json.dumps(row | {"cluster": 1.0}), "line 3: cluster is not text, but 1.0"),
    "an exponent": (lambda row: json.dumps(row | {"prompt_id": 1e5}), "line 3: prompt_id is not text, but 100000.0"),
    "two types": (lambda row: json.dumps(row | {"prompt_id": 7}), "line 3: prompt_id is 7, and other lines have text"),
    "half a character": (
        lambda row: json.dumps(row | {"text": "a\ud83d"}),
        "line 3: there is half a character, in text",
    ),
    "nested": (lambda row: '{"text": ' + "[" * 99_999, "line 3: "),
    "digits": (lambda row: '{"text": ' + "9" * 9_999 + "}", "line 3: "),
}


@pytest.mark.parametrize(("line", "message"), LINES.values(), ids=LINES)
def test_a_line_that_a_reader_would_repair(line: Callable[[dict[str, Any]], str], message: str, tmp_path: Path) -> None:
    rows = make_rows()
    lines = [json.dumps(row) for row in rows]
    lines[2] = line(rows[2])
    with pytest.raises(DataError, match=message) as caught:
        load(written(tmp_path, "\n".join(lines), "prompts.jsonl"))
    assert caught.value.hint


def test_an_array_instead_of_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a JSON array"):
        load(written(tmp_path, json.dumps(make_rows(), indent=1), "prompts.jsonl"))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_whole_numbers_are_ids(suffix: str, tmp_path: Path) -> None:
    rows = [row | {"prompt_id": number // 2, "cluster": 7 * (number // 2)} for number, row in enumerate(make_rows())]
    assert load(write(tmp_path, rows, suffix)).frame["prompt_id"][2] == "1"


def test_a_column_may_be_empty_for_long(tmp_path: Path) -> None:
    rows = [row | {"reference": None if number < 200 else "last"} for number, row in enumerate(make_rows(count=20))]
    assert load(write(tmp_path, rows)).frame["reference"].drop_nulls().unique().to_list() == ["last"]


COLUMNS: dict[str, tuple[pl.Expr, str]] = {
    "numbers": (pl.int_range(pl.len()).alias("text"), "text is Int64"),
    "fractions": (pl.int_range(pl.len()).cast(pl.Float64).alias("cluster"), "cluster is Float64"),
    "truths": (pl.lit(True).alias("topic"), "topic is Boolean"),
    "bytes": (pl.col("text").cast(pl.Binary), "text is Binary"),
    "lists": (pl.concat_list("text"), "text is List"),
    "dates": (pl.lit(0).cast(pl.Date).alias("prompt_id"), "prompt_id is Date"),
    "case": (pl.col("text").alias("Text"), "unknown column 'Text'"),
    "blank": (pl.col("text").alias("language "), "unknown column 'language '"),
}


@pytest.mark.parametrize(("column", "message"), COLUMNS.values(), ids=COLUMNS)
def test_a_parquet_that_a_reader_would_repair(column: pl.Expr, message: str, tmp_path: Path) -> None:
    pl.DataFrame(make_rows(), infer_schema_length=None).with_columns(column).write_parquet(tmp_path / "prompts.parquet")
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert caught.value.hint


def test_categories_are_text(tmp_path: Path) -> None:
    frame = pl.DataFrame(make_rows(), infer_schema_length=None)
    frame.with_columns(pl.col("context", "language").cast(pl.Categorical)).write_parquet(tmp_path / "prompts.parquet")
    assert load(tmp_path).frame["context"].dtype == pl.String


def test_a_small_parquet_of_much_data_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.limits.TABLE_BYTES", 1_000_000)
    monkeypatch.setattr("ssn_probe.limits.TABLE_ROWS", 50_000)
    frames = {
        "repeated": pl.DataFrame({"text": ["a" * 1000] * 2000}),  # written once, for all rows
        "compressed": pl.DataFrame({"text": [f"{number:07}" + "a" * 1000 for number in range(2000)]}),
        "rows": pl.DataFrame({"text": ["a"] * 60_000}),
    }
    for name, frame in frames.items():
        path = tmp_path / f"{name}.parquet"
        frame.write_parquet(path, compression="zstd")
        assert path.stat().st_size < 100_000
        with pytest.raises(DataError, match="more than the limit of"):
            parquet_table(path, path.read_bytes(), ["text"])
    path = tmp_path / "compressed.parquet"
    assert parquet_table(path, path.read_bytes(), ["other"])[1] == ["text"]  # what nothing reads may be large


def test_a_damaged_footer_is_at_most_an_error_of_data(tmp_path: Path) -> None:
    whole = (write(tmp_path, make_rows(), ".parquet") / "prompts.parquet").read_bytes()
    for place in range(len(whole) - 400, len(whole), 3):
        damaged = whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :]
        with contextlib.suppress(DataError):
            load(written(tmp_path, damaged, "prompts.parquet"))


NAMES = {"spilt": "split", "Text": "text", "topics": "topic", "pair-id": "pair_id", " reference": "reference"}


@pytest.mark.parametrize(("name", "meant"), NAMES.items())
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_column_that_is_nearly_a_known_one(name: str, meant: str, suffix: str, tmp_path: Path) -> None:
    rows = [{name if field == meant else field: value for field, value in row.items()} for row in make_rows()]
    with pytest.raises(DataError, match="unknown") as caught:
        load(write(tmp_path, rows, suffix))
    assert f"Did you mean '{meant}'?" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["preference", "prompt", "Unnamed: 0", "", "id", "source", "label"])
def test_a_column_of_another_name_may_stay(name: str, tmp_path: Path) -> None:
    frame = pl.DataFrame(make_rows()).drop("reference").with_columns(pl.lit("a").alias(name))
    frame.write_parquet(tmp_path / "prompts.parquet")
    assert load(tmp_path).unused == (() if name in ("", "Unnamed: 0") else (name,))


def test_a_missing_column_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks the columns .*'text'\]; it has 'id', 'prompt'"):
        load(written(tmp_path, "id,prompt\na,b\n"))


def test_other_columns_are_listed(tmp_path: Path) -> None:
    rows = [row | {"texts": "a", "category": "b"} for row in make_rows()]
    assert load(write(tmp_path, rows, description="mine", owner="me")).unused == ("category", "texts", "owner")
    assert load(write(tmp_path / "other", make_rows())).unused == ()


def test_two_tables_in_one_folder_are_a_question(tmp_path: Path) -> None:
    write(tmp_path, make_rows(), ".csv")
    write(tmp_path, make_rows(), ".jsonl")
    with pytest.raises(DataError, match=r"it has prompts\.jsonl and prompts\.csv"):
        load(tmp_path)
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-8")
    assert load(tmp_path / "prompts.csv").unused == ("dataset.json (the card of prompts.csv is prompts.json)",)


CARD_NAMES = {
    "max_new_token": ({"max_new_token": 512}, "Did you mean 'max_new_tokens'?"),
    "anchr": ({"anchr": "de"}, "Did you mean 'anchor'?"),
    "licence": ({"licence": "MIT"}, "Did you mean 'license'?"),
    "Judge": ({"Judge": {}}, "Did you mean 'judge'?"),
    "refuse": ({"judge": {"kind": "patterns", "refuse": {}}}, "Did you mean 'refused'?"),
}


@pytest.mark.parametrize(("card", "hint"), CARD_NAMES.values(), ids=CARD_NAMES)
def test_a_field_of_a_card_that_is_nearly_a_known_one(card: dict[str, Any], hint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown field") as caught:
        load(write(tmp_path, make_rows(), **card))
    assert hint in str(caught.value.hint)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["prompts.csv", "prompts.parquet", "dataset.json"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    if name == "dataset.json":
        write(tmp_path, make_rows())
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="not a file, but a pipe"):
        load(tmp_path)
    with pytest.raises(DataError, match="not a file, but a pipe"):
        read_neurons(tmp_path / name)


NEURONS = {
    "two columns": ("language,layer,site,index,index\nen,0,q,1,2\n", "the column 'index' 2 times"),
    "nearly": ("language,layer,site,index,scores\nen,0,q,1,0.5\n", "unknown column 'scores'"),
    "too few cells": ("language,layer,site,index\nen,0,q\n", "line 2 has 3 cells"),
    "swallowed": ('language,layer,site,index\n"en,0,q,1\nen",0,q,1\n', "is not a language code"),
    "exponent": ("language,layer,site,index\nen,0,q,1e2\n", "not a whole number"),
    "blank": ("language,layer,site,index\nen,0,q, 1\n", "not a whole number"),
    "too large": ("language,layer,site,index\nen,0,q,5000000000\n", "set.csv has values that cannot be neurons"),
    "site": ("language,layer,site,index\nen,0,mlp,1\n", "set.csv: unknown site 'mlp'"),
}


@pytest.mark.parametrize(("text", "message"), NEURONS.values(), ids=NEURONS)
def test_a_neuron_file_that_a_reader_would_repair(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_neurons(written(tmp_path, text, "set.csv") / "set.csv")


@pytest.mark.parametrize("name", ["set.CSV", "set.csv"])
def test_a_neuron_file_may_be_named_in_capitals(name: str, tmp_path: Path) -> None:
    table = written(tmp_path, "language,layer,site,index\nen,0,q,1\n\n", name) / name
    assert read_neurons(table).frame.height == 1


def test_a_neuron_file_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither parquet nor csv"):
        read_neurons(written(tmp_path, '{"language": "en"}\n', "set.jsonl") / "set.jsonl")
