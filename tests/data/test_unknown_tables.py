"""Tables of any kind are recognised by their columns, read strictly, or refused with one error that names the fix."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_files as made
import polars as pl
import pytest
from prompt_rows import load, make_rows, write

from ssn_probe.data.prompt_set import check_can_identify
from ssn_probe.errors import DataError

ROWS = [{"language": language, "prompt": made.text(language, n)} for language in ("en", "de") for n in range(6)]
WIDE = [{"id": n, "English": made.text("en", n), "de": made.text("de", n), "jw": made.text("jv", n)} for n in range(6)]


def column_json(path: Path) -> Path:
    return made.json_file(path, {name: [row[name] for row in ROWS] for name in ROWS[0]})


def dictionaries(path: Path) -> Path:
    return made.json_file(path, ROWS)


def delimited(path: Path) -> Path:
    mark = "," if path.suffix == ".csv" else "\t"
    return made.csv_file(path, list(ROWS[0]), [list(row.values()) for row in ROWS], separator=mark)


LONG: dict[str, Callable[[Path], Path]] = {
    "csv": lambda folder: delimited(folder / "a.csv"),
    "tsv": lambda folder: delimited(folder / "a.tsv"),
    "json": lambda folder: dictionaries(folder / "a.json"),
    "json of columns": lambda folder: column_json(folder / "a.json"),
    "jsonl": lambda folder: made.json_file(folder / "a.jsonl", ROWS),
    "parquet": lambda folder: made.parquet_file(folder / "a.parquet", ROWS),
}


@pytest.mark.parametrize("write", LONG.values(), ids=LONG)
def test_every_kind_of_file_gives_the_same_set(write: Callable[[Path], Path], tmp_path: Path) -> None:
    found = load(write(tmp_path))
    assert found.digest == load(made.parquet_file(tmp_path / "same.parquet", ROWS)).digest
    assert found.languages == ("en", "de")
    assert found.frame.filter(prompt_id="2")["text"].to_list() == [made.text("en", 1), made.text("de", 1)]


def test_wide_columns_by_code_alias_and_name(tmp_path: Path) -> None:
    found = load(made.parquet_file(tmp_path / "a.parquet", WIDE))
    assert found.languages == ("en", "de", "jv")
    assert found.frame.filter(prompt_id="4", language="jv")["text"].to_list() == [made.text("jv", 4)]


def test_a_wide_table_has_references_by_language_or_one_for_all(tmp_path: Path) -> None:
    rows = [row | {"reference_English": f"No {row['id']}.", "de-reference": f"Nein {row['id']}."} for row in WIDE]
    found = load(made.parquet_file(tmp_path / "a.parquet", rows))
    assert found.frame.filter(prompt_id="4")["reference"].to_list() == ["No 4.", "Nein 4.", None]
    assert not found.unused
    one = load(made.parquet_file(tmp_path / "b.parquet", [row | {"reference": "No."} for row in WIDE]))
    assert one.frame["reference"].to_list() == ["No."] * 18


def test_ids_may_be_called_as_in_the_projects_own_format(tmp_path: Path) -> None:
    rows = [{"prompt_id": f"p{row['id']}", "en": row["English"], "de": row["de"]} for row in WIDE]
    assert load(made.parquet_file(tmp_path / "a.parquet", rows)).frame["prompt_id"][0] == "p0"
    long = [{"prompt_id": "p0", "language": "en", "text": "a", "contxt": "harmless"}]
    with pytest.raises(DataError, match=r"lacks the columns|unknown column 'contxt'"):
        load(made.parquet_file(tmp_path / "typo.parquet", long))


@pytest.mark.parametrize("asked", ["jv", "jw", "jav_Latn", "Javanese"])
def test_a_language_is_found_under_every_name(asked: str, tmp_path: Path) -> None:
    found = load(made.parquet_file(tmp_path / "a.parquet", WIDE), languages=(asked, "eng"))
    assert found.languages == ("jv", "en")
    assert found.digest == load(tmp_path / "a.parquet", languages=("jv", "en")).digest


def test_a_language_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="languages is"):
        load(made.parquet_file(tmp_path / "a.parquet", WIDE), languages=("jv", "Javanese"))


@pytest.mark.parametrize("ids", [{"index": 7}, {"prompt_id": 7}, {}], ids=["index", "prompt_id", "no ids"])
def test_id_is_indonesian_where_its_texts_are(ids: dict[str, int], tmp_path: Path) -> None:
    rows = [ids | {"ID": f"Bagaimana cara melipat perahu kertas {n}?", "en": made.text("en", n)} for n in range(4)]
    rows = [row | {name: n for name in ids} for n, row in enumerate(rows)]
    found = load(made.parquet_file(tmp_path / "a.parquet", rows))
    assert found.languages == ("id", "en")
    assert found.frame["prompt_id"][0] == ("0" if ids else "1")


def test_ids_in_words_are_no_indonesian(tmp_path: Path) -> None:
    rows = [{"id": f"paper boats {n}", "en": made.text("en", n)} for n in range(4)]
    found = load(made.parquet_file(tmp_path / "a.parquet", rows))
    assert (found.languages, found.frame["prompt_id"][0]) == (("en",), "paper boats 0")


def test_columns_that_only_sound_like_languages(tmp_path: Path) -> None:
    """`no` and `is` may be answers, `len` is a number; `it` has sentences, and `prompt_en` names its language."""
    row = {"no": 1, "is": "yes", "in": "x", "len": 9, "max": "3 of 4", "it": "Come piego una barca?", "prompt_id": 1}
    rows = [row | {"prompt_en": made.text("en", n), "de_text": made.text("de", n), "prompt_id": n} for n in range(4)]
    assert load(made.parquet_file(tmp_path / "a.parquet", rows)).languages == ("it", "en", "de")


def test_words_beside_prompt_are_no_small_languages(tmp_path: Path) -> None:
    """`txt` is Citak, `one` Oneida."""
    rows = [{f"prompt_{word}": made.text("en", n) for word in ("txt", "old", "one", "de")} for n in range(4)]
    assert load(made.parquet_file(tmp_path / "a.parquet", rows)).languages == ("de",)


def test_what_pandas_writes_for_nothing_is_empty(tmp_path: Path) -> None:
    rows = [
        {"id": float(n), "en": made.text("en", n), "de": ("nan", "None", " ", made.text("de", n))[n]} for n in range(4)
    ]
    found = load(made.parquet_file(tmp_path / "a.parquet", rows))
    assert found.frame.filter(language="de")["prompt_id"].to_list() == ["3"]
    assert any("3 empty cells" in note for note in found.notes)


def test_a_table_counts_as_what_it_is_given_as(tmp_path: Path) -> None:
    path = made.parquet_file(tmp_path / "a.parquet", WIDE)
    other = made.parquet_file(tmp_path / "b.parquet", [row | {"de": f"Was ist {row['id']}?"} for row in WIDE])
    found = load(path, harmless=str(other))
    assert dict(found.frame.group_by("context").len().iter_rows()) == {"harmful": 18, "harmless": 18}
    assert any("all count as harmful" in note for note in found.notes)
    assert any("all count as harmless" in note for note in found.notes)


def test_a_column_context_is_read(tmp_path: Path) -> None:
    rows = [row | {"context": ("harmful", "harmless")[n % 2]} for n, row in enumerate(ROWS)]
    assert set(load(made.parquet_file(tmp_path / "a.parquet", rows)).frame["context"]) == {"harmful", "harmless"}


LABELS = {
    "context": ("Harmful", "benign"),
    "label": ("unsafe", "safe"),
    "prompt_harm_label": ("harmful", "unharmful"),
    "is_harmful": (True, False),
    "toxic": (1.0, 0.0),
}


@pytest.mark.parametrize(("name", "labels"), LABELS.items(), ids=LABELS)
def test_labels_that_say_which_prompts_are_harmful_are_read(name: str, labels: tuple, tmp_path: Path) -> None:
    rows = [row | {name: labels[n % 2]} for n, row in enumerate(WIDE)]
    found = load(made.parquet_file(tmp_path / "a.parquet", rows))
    said = dict(found.frame.select("prompt_id", "context").iter_rows())
    assert (said["0"], said["1"]) == ("harmful", "harmless")
    assert name not in found.unused
    assert any(name in note for note in found.notes) == (name != "context")


def test_empty_rows_need_no_language(tmp_path: Path) -> None:
    rows = [*ROWS, {"language": "", "prompt": ""}]
    assert load(made.parquet_file(tmp_path / "a.parquet", rows)).frame.height == len(ROWS)


def test_several_languages_beside_a_text_are_a_wide_table(tmp_path: Path) -> None:
    rows = [row | {"prompt": "original"} for row in WIDE]
    found = load(made.parquet_file(tmp_path / "a.parquet", rows))
    assert (found.languages, found.unused) == (("en", "de", "jv"), ("prompt",))


def test_a_table_as_alpaca_has_its_request_alone(tmp_path: Path) -> None:
    row = {"instruction": "Fold it:", "input": "a boat", "output": "Done.", "text": "Fold it: a boat Done."}
    found = load(made.json_file(tmp_path / "en.json", [row]))
    assert found.frame["text"].to_list() == ["Fold it:\n\na boat"]


def test_tables_of_one_folder_have_the_same_columns(tmp_path: Path) -> None:
    made.parquet_file(tmp_path / "set" / "a.parquet", WIDE)
    made.parquet_file(tmp_path / "set" / "b.parquet", ROWS)
    with pytest.raises(DataError, match=r"b\.parquet has other columns than the tables beside it"):
        load(tmp_path / "set")


def test_labels_of_something_else_are_not_read(tmp_path: Path) -> None:
    rows = [row | {"label": n, "context": "about paper"} for n, row in enumerate(WIDE)]
    found = load(made.parquet_file(tmp_path / "a.parquet", rows))
    assert set(found.frame["context"]) == {"harmful"}
    assert set(found.unused) == {"label", "context"}


@pytest.mark.parametrize("empty", [None, "nan", "NaN", " ", "None"])
def test_rows_without_a_label_are_left_out_whatever_writes_them(empty: str | None, tmp_path: Path) -> None:
    rows = [row | {"label": "unsafe" if n else "safe"} for n, row in enumerate(WIDE)]
    found = load(made.parquet_file(tmp_path / "a.parquet", [*rows, WIDE[0] | {"id": 99, "label": empty}]))
    assert set(found.frame["context"]) == {"harmful", "harmless"}
    assert any("3 rows without a label left out" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "labels"), [("label", ("safe", "dubious")), ("context", ("Harmful", "0")), ("toxic", (0, 1, 2))]
)
def test_labels_that_are_known_in_part_are_refused(name: str, labels: tuple, tmp_path: Path) -> None:
    """The others would make every prompt of the set a harmful one."""
    rows = [WIDE[n % len(WIDE)] | {name: label} for n, label in enumerate(labels)]
    with pytest.raises(DataError, match=f"column {name} says of some .* '{labels[-1]}'") as caught:
        load(made.parquet_file(tmp_path / "a.parquet", rows))
    assert "another name" in str(caught.value.hint)
    truth = [row | {"is_harmful": n % 2} for n, row in enumerate(rows)]
    assert set(load(made.parquet_file(tmp_path / "b.parquet", truth)).frame["context"]) == {"harmful", "harmless"}


def test_labels_that_say_nothing_of_harm_are_named(tmp_path: Path) -> None:
    rows = [row | {"label": n % 2} for n, row in enumerate(WIDE)]
    found = load(made.parquet_file(tmp_path / "a.parquet", rows))
    assert any("label does not say which prompts are harmful: its labels are '0', '1'" in one for one in found.notes)
    with pytest.raises(DataError) as caught:
        check_can_identify(found)
    assert "its labels are '0', '1'" in str(caught.value.hint)


def test_shards_of_a_language_are_no_other_group(tmp_path: Path) -> None:
    for language, mark in (("en", "a09b74b3ef9c3b56"), ("de", "0f3b74b3ef9c3b57")):
        rows = [{"prompt": made.text(language, n)} for n in range(3)]
        made.parquet_file(tmp_path / "set" / language / f"train-00000-of-00001-{mark}.parquet", rows)
    assert load(tmp_path / "set").frame["prompt_id"].n_unique() == 3


def test_the_name_of_a_file_tells_its_language_in_every_format(tmp_path: Path) -> None:
    names = {"alpaca_de": "de", "x_de": "de", "val_it": "it", "pt-br": "pt", "a_pt_BR": "pt", "a-zho_Hans": "zh"}
    for name, language in (names | {"prompts_new": "en", "German": "de"}).items():
        made.alpaca(tmp_path / f"{name}.json")
        assert load(f"alpaca:{tmp_path / name}.json").languages == (language,)


def test_a_file_per_language(tmp_path: Path) -> None:
    """Such as {"safety": [text, …]} in af.json: the only column holds the texts."""
    for language in ("en", "af", "jp"):
        data = {"safety": [made.text(language, number) for number in range(5)]}
        made.json_file(tmp_path / "set" / f"{language}.json", data)
    found = load(tmp_path / "set")
    assert set(found.languages) == {"en", "af", "ja"}
    assert found.frame.filter(prompt_id="3").height == 3


def test_splits_of_others_do_not_repeat_ids(tmp_path: Path) -> None:
    for split in ("train", "test"):
        made.parquet_file(tmp_path / "set" / f"{split}-00000-of-00001.parquet", WIDE)
    found = load(tmp_path / "set")
    assert found.frame["prompt_id"].n_unique() == 12
    assert {"train-3", "test-3"} <= set(found.frame["prompt_id"])


# ── through datasets ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_saved_by_datasets(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    Dataset.from_list(WIDE).save_to_disk(str(tmp_path / "one"))
    splits = {"en": [{"prompt": row["English"]} for row in WIDE], "de": [{"prompt": row["de"]} for row in WIDE]}
    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(str(tmp_path / "splits"))
    one, several = load(tmp_path / "one"), load(tmp_path / "splits")
    assert one.digest == load(made.parquet_file(tmp_path / "a.parquet", WIDE)).digest
    assert several.languages == ("en", "de")
    assert several.frame.height == 12


@pytest.mark.parametrize("place", ["saved", "a.parquet"])
def test_classes_of_datasets_have_their_names(place: str, tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars

    disable_progress_bars()
    classes = {"language": ClassLabel(names=["en", "de"]), "label": ClassLabel(names=["safe", "unsafe"])}
    columns = {"prompt": [made.text("en", 1), made.text("de", 1)], "language": [0, 1], "label": [1, 0]}
    data = Dataset.from_dict(columns, features=Features({"prompt": Value("string"), **classes}))
    data.save_to_disk(str(tmp_path / place)) if place == "saved" else data.to_parquet(tmp_path / place)
    rows = load(tmp_path / place).frame.select("language", "context").rows()
    assert rows == [("en", "harmful"), ("de", "harmless")]


def test_a_saved_folder_in_a_named_format(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_polars(pl.read_parquet(made.polyguard(tmp_path / "a.parquet"))).save_to_disk(str(tmp_path / "saved"))
    assert load(f"polyguard:{tmp_path / 'saved'}").digest == load(f"polyguard:{tmp_path / 'a.parquet'}").digest


def test_a_folder_that_datasets_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed lines are no table that is read here."""
    import gzip

    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    lines = "\n".join(json.dumps(row) for row in ROWS).encode()
    (tmp_path / "set" / "train.jsonl.gz").write_bytes(gzip.compress(lines))
    assert load(tmp_path / "set").frame.height == 12


def test_a_damaged_saved_folder(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot read .* as a data set") as caught:
        load(tmp_path)
    assert caught.value.hint


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED: dict[str, tuple[str, bytes, str, str]] = {
    "semicolons": ("a.csv", b"id;en;de\n1;a;b\n", "separated by ';'", "commas"),
    "tabs": ("a.csv", b"id\ten\n1\ta\n", r"separated by '\\t'", ".tsv"),
    "commas": ("a.tsv", b"id,en\n1,a\n", "separated by ','", ".csv"),
    "cp1252": ("a.csv", "id,en,de\n1,a,b\n2,a,für\n".encode("cp1252"), "line 3 is not UTF-8", "UTF-8"),
    "ragged": ("a.csv", b"id,en,de\n1,a,b\n2,a\n", "line 3 has 2 cells, and the header 3", "comma"),
    "a comma too many": ("a.csv", b"id,en,de\n1,a, or b,c\n", "line 2 has 4 cells", "quotes"),
    "an open quote": ("a.csv", b'id,en,de\n1,"a,b\n2,a,b\n', "cannot read", "quotes"),
    "swallowed": ("a.csv", b'id,en,de\n1,"a\n2,x,y\n3,z",b\n', "looks like another row", "quote"),
    "two headers": ("a.csv", b"id,en,en\n1,a,b\n", "the column 'en' 2 times", "Keep one"),
    "one language twice": ("a.csv", b"id,jw,jv\n1,a,b\n", "the columns jw and jv are one language", "Keep one"),
    "an id twice": ("a.csv", b"id,en\n1,a\n1,b\n", "more than once in en, in rows 1 and 2", "an id of its own"),
    "no column": ("a.csv", b"number,words\n1,a\n", "its columns are 'number', 'words'", "language"),
    "no language": ("a.csv", b"id,prompt\n1,a\n", "does not say in which language", "prompts_de.csv"),
    "a header of texts": ("a.csv", b"How do I fold it?,1\nHow?,2\n", "its columns are 'How do I fold it", "language"),
    "a file called new": ("prompts_new.csv", b"id,prompt\n1,a\n", "does not say in which language", "xstest:PATH"),
    "messages": ("a.json", b'[{"language": "en", "prompt": [{"role": "user"}]}]', "prompt holds lists", "as text"),
    "an id missing": ("a.csv", b"id,en\n1,a\n,b\n", "1 of 2 prompts have no id", "or none"),
    "an unknown language": ("a.csv", b"language,text\nKlingonese,a\n", "'Klingonese' .* is no language", "codes"),
    "no language in a row": ("a.csv", b"language,text\nen,a\n,\n,b\n", "row 3: '' in the column", "codes"),
    "nothing but a header": ("a.csv", b"id,en\n", "has no prompts", "at least one"),
    "empty cells only": ("a.csv", b"id,en\n1,\n", "has no prompts", "at least one"),
    "json that is no table": ("a.json", b'{"a": 1}', "is no table", "array"),
    "json of uneven columns": ("a.json", b'{"en": ["a"], "de": []}', "different lengths", "array"),
    "half a character": ("a.json", b'[{"en": "\\ud800"}]', "half a character", "Remove"),
    "half a character in a name": ("a.json", b'[{"\\ud800": "a"}]', "half a character", "Remove"),
    "broken json": ("a.json", b"[", "cannot read", "array"),
    "no parquet": ("a.parquet", b"PAR1", "cannot read", "again"),
    "a text": ("a.txt", b"hello", "is no table", ".csv"),
}


@pytest.mark.parametrize(("name", "content", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_one_error_names_the_fix(name: str, content: bytes, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert hint in str(caught.value.hint)
    assert str(path) in caught.value.message


FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "no tags of languages": ("multijail", "lacks a column per language", {"prompt": ["a"]}),
    "no goal": ("jailbreakbench", "lacks the column Goal", {"prompt": ["a"]}),
    "no label": ("jailbreakbench", "no row of .* has a label", {"Goal": ["a"]}),
    "a text that is a list": ("polyguard", "prompt holds lists", {"language": ["en"], "prompt": [["a"]]}),
}


@pytest.mark.parametrize(("name", "message", "columns"), FORMATS.values(), ids=FORMATS)
def test_a_file_in_another_format_than_named(name: str, message: str, columns: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame(columns).write_parquet(path)
    with pytest.raises(DataError, match=message) as caught:
        load(f"{name}:{path}")
    assert caught.value.hint


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    for place in ("data/MultiJail.csv", "./prompts", "~/prompts.jsonl"):
        with pytest.raises(DataError, match="there is no file or folder"):
            load(place)
    with pytest.raises(DataError, match="there is no file or folder"):
        load(f"multijail:{tmp_path / 'nothing'}")
    with pytest.raises(DataError, match="none of the files"):
        load(f"multijail:{tmp_path}")


def test_a_misspelled_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prompt set 'multijial'") as caught:
        load("multijial")
    assert "'multijail'" in str(caught.value.hint)
    assert "organism, lighthouses, everyday" in str(caught.value.hint)


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_length_of_responses_may_be_given(tmp_path: Path) -> None:
    path = made.parquet_file(tmp_path / "a.parquet", WIDE)
    usual, short = load(path), load(path, max_new_tokens=7)
    assert (usual.max_new_tokens, short.max_new_tokens) == (64, 7)
    assert usual.digest != short.digest
    assert load(path, max_new_tokens=64).digest == usual.digest
    own = write(tmp_path / "own", make_rows(), max_new_tokens=9)
    assert load(own, max_new_tokens=9).digest == load(own).digest
    assert load(own, max_new_tokens=8).max_new_tokens == 8
