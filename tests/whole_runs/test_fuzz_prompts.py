"""Whatever a prompt set or its card holds is data that a run can work with, or one clear error."""

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fuzzing import PANIC, cells, clear, small_set, stored, texts, values
from hypothesis import example, given, settings
from hypothesis import strategies as st
from judging import verdict
from prompt_rows import make_rows, write

from ssn_probe import ASR, OverRefusal, Patch, Prompts, Recipe, SafetyNeurons, Suppress, Utility
from ssn_probe.data.card import CARD
from ssn_probe.data.judges import make_judge
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.data.table_checks import OPTIONAL, REQUIRED
from ssn_probe.errors import DataError
from ssn_probe.neurons import LANGUAGE
from ssn_probe.study.plan import make_plan

FRAME = pl.DataFrame(make_rows(), infer_schema_length=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def used(folder: Path) -> None:
    """All that happens to a prompt set before a model is loaded."""
    source = str(folder)
    prompts = Prompts(source)
    found = load_prompts(prompts)
    assert all(LANGUAGE.fullmatch(language) for language in found.languages)
    assert found.frame.select(pl.col(REQUIRED).str.strip_chars().str.len_chars().min()).row(0) >= (1, 1, 1, 1)
    stored([found.name, found.license, found.anchor, found.judge, *found.languages])
    found.frame.write_parquet(io.BytesIO())
    clear(lambda: load_prompts(Prompts(source, harmless=source, limit=1)))
    ms = SafetyNeurons(prompts)
    clear(lambda: make_plan(Recipe(arms={"a": Suppress(ms)}, measures=(OverRefusal(prompts), Utility(prompts)))))
    clear(lambda: make_plan(Recipe(arms={"a": Patch(ms)}, measures=(ASR(prompts),))))
    if found.judge is not None:
        judge = make_judge(found.judge, found.languages, found.name)
        assert verdict(judge, found.languages[0], "sorry") in ("refused", "complied", "invalid")


def tried(folder: Path, suffix: str, content: bytes, card: bytes | None = None) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / f"prompts{suffix}").write_bytes(content)
    if card is not None:
        (folder / "dataset.json").write_bytes(card)
    clear(lambda: used(folder))


def written(suffix: str, frame: pl.DataFrame = FRAME) -> bytes:
    if suffix == ".jsonl":
        return "\n".join(json.dumps(row, default=str) for row in frame.rows(named=True)).encode()
    content = io.BytesIO()
    frame.write_csv(content) if suffix == ".csv" else frame.write_parquet(content)
    return content.getvalue()


SUFFIXES = [".jsonl", ".csv", ".parquet"]


# ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=60)
@given(suffix=st.sampled_from(SUFFIXES), content=st.binary(max_size=60))
@example(suffix=".parquet", content=PANIC)
@example(suffix=".jsonl", content=b'{"a":' + b"[" * 10_000)
def test_a_table_of_any_bytes(suffix: str, content: bytes, folder: Path) -> None:
    tried(folder, suffix, content)


@settings(deadline=None, max_examples=80)
@given(
    suffix=st.sampled_from(SUFFIXES[:2]), at=st.integers(0, 9999), new=st.binary(max_size=3), taken=st.integers(0, 3)
)
def test_a_table_with_bytes_put_in_or_taken_out(suffix: str, at: int, new: bytes, taken: int, folder: Path) -> None:
    content = written(suffix)
    at %= len(content)
    tried(folder, suffix, content[:at] + new + content[at + taken :])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_that_breaks_off(suffix: str, folder: Path) -> None:
    content = written(suffix)
    for length in range(0, len(content), len(content) // 20):
        tried(folder, suffix, content[:length])


@settings(deadline=None, max_examples=50)
@given(
    column=st.sampled_from(REQUIRED + OPTIONAL), drawn=st.lists(cells, min_size=1, max_size=2), row=st.integers(0, 99)
)
def test_a_table_with_other_cells(column: str, drawn: list[Any], row: int, folder: Path) -> None:
    """One value everywhere (a column of another type), or in one row of a JSON file (types mixed)."""
    everywhere = pl.Series(column, drawn[:1] * len(FRAME), strict=False)
    tried(folder, ".parquet", written(".parquet", FRAME.with_columns(everywhere)))
    rows = FRAME.rows(named=True)
    for place, value in enumerate(drawn):
        rows[(row + place) % len(rows)][column] = value if not isinstance(value, bytes) else value.hex()
    lines = (json.dumps(one, default=str) for one in rows)
    tried(folder, ".jsonl", "\n".join(lines).encode())


@pytest.mark.parametrize("column", REQUIRED + OPTIONAL)
def test_a_column_of_records_is_no_text(column: str, tmp_path: Path) -> None:
    """polars would write a record out as {"user","…"}, and the model be asked that."""
    rows = [row | {column: {"role": "user", "content": row.get(column, "x")}} for row in make_rows()]
    with pytest.raises(DataError, match=f"not text: {column} is Struct"):
        load_prompts(Prompts(str(write(tmp_path, rows, ".parquet"))))


@pytest.mark.parametrize("text", ["", "   ", "\n"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_blank_text_is_an_empty_cell_in_every_format(text: str, suffix: str, tmp_path: Path) -> None:
    rows = [make_rows()[0] | {"text": text}, *make_rows()[1:]]
    with pytest.raises(DataError, match="empty cell in text"):
        load_prompts(Prompts(str(write(tmp_path, rows, suffix))))


@pytest.mark.parametrize("text", ["\ud800", "x\0y"])
def test_half_a_character_is_not_read_as_another(text: str, tmp_path: Path) -> None:
    """polars reads \\ud800 as a null character."""
    line = json.dumps(make_rows()[0] | {"text": text})
    rest = "\n".join(json.dumps(row) for row in make_rows()[1:])
    (tmp_path / "prompts.jsonl").write_text(f"{line}\n{rest}", encoding="utf-8")
    with pytest.raises(DataError, match="half a character, in text"):
        load_prompts(Prompts(str(tmp_path)))


@pytest.mark.parametrize("name", ["g*", "g[a]", "g?", "a{b}", "a%20b", "s3:", "~", "é"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_is_not_a_pattern(name: str, suffix: str, tmp_path: Path) -> None:
    """Given a path, polars reads every file that it matches as a pattern, and adds them up."""
    write(tmp_path / "gaa", make_rows(), suffix)
    try:
        here = write(tmp_path / name, make_rows(count=2), suffix)
    except UnicodeEncodeError:
        pytest.skip("file names are ASCII in this locale")
    assert len(load_prompts(Prompts(str(here))).frame) == len(make_rows(count=2))


@pytest.mark.parametrize("suffix", SUFFIXES[:2])
def test_a_byte_order_mark_is_no_mistake(suffix: str, tmp_path: Path) -> None:
    write(tmp_path, make_rows(), suffix)
    table, card = tmp_path / f"prompts{suffix}", tmp_path / "dataset.json"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    card.write_bytes(b"\xef\xbb\xbf" + b'{"name": "marked"}')
    found = load_prompts(Prompts(str(tmp_path)))
    assert (found.name, len(found.frame)) == ("marked", len(FRAME))


def test_the_digest_is_that_of_the_rows_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that changes while it is read gives the digest of what was read."""
    write(tmp_path, make_rows(), ".csv")
    before = load_prompts(Prompts(str(tmp_path)))
    read = pl.read_csv

    def changing(*arguments: Any, **options: Any) -> pl.DataFrame:
        (tmp_path / "prompts.csv").write_text("changed\n", encoding="utf-8")
        return read(*arguments, **options)

    monkeypatch.setattr(pl, "read_csv", changing)
    after = load_prompts(Prompts(str(tmp_path)))
    assert after.frame.equals(before.frame)
    assert after.digest == before.digest


# ── cards ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

cards = st.dictionaries(st.sampled_from([name for name, _, _ in CARD]) | texts, values, max_size=3)


@settings(deadline=None, max_examples=80)
@given(card=cards | st.binary(max_size=20))
@example(card=b'{"judge": ' + b"[" * 900 + b"]" * 900 + b"}")
@example(card={"name": "\ud800"})
@example(card={"languages": ["en", "\ud800"]})
def test_a_card_of_anything(card: Any, folder: Path) -> None:
    tried(folder, ".csv", written(".csv"), card if isinstance(card, bytes) else json.dumps(card).encode())


CARDS = {
    "name twice": (b'{"name": "a", "name": "b"}', "'name' appears twice"),
    "half a character": (b'{"license": "\\ud800"}', "surrogates not allowed"),
    "not a number": (b'{"judge": {"threshold": NaN}}', "not JSON compliant"),
    "nested": (b'{"a":' * 100_000, "nested too deeply"),
    "too many tokens": (b'{"max_new_tokens": 1000000000000000000000000}', "max_new_tokens"),
}


@pytest.mark.parametrize(("content", "message"), CARDS.values(), ids=CARDS)
def test_a_card_that_would_break_a_run_late(content: bytes, message: str, tmp_path: Path) -> None:
    write(tmp_path, make_rows())
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_prompts(Prompts(str(tmp_path)))


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")], ids=["folder", "broken link"])
def test_a_card_that_is_no_file_is_not_passed_over(make: Any, tmp_path: Path) -> None:
    write(tmp_path, make_rows())
    make(tmp_path / "dataset.json")
    with pytest.raises(DataError, match=r"Cannot read .*dataset\.json"):
        load_prompts(Prompts(str(tmp_path)))


def test_the_small_set_is_sound(tmp_path: Path) -> None:
    """Otherwise these tests would show nothing."""
    used(Path(small_set(tmp_path)))
