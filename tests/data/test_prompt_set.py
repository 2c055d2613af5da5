"""Contract 3: prompt sets are parallel, their splits are fixed and never crossed, and what is malformed is refused."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_rows import LANGUAGES, Row, load, make_rows, write

from ssn_probe.data.table_checks import OPTIONAL, REQUIRED
from ssn_probe.errors import DataError

# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_every_format_gives_the_same_table(suffix: str, tmp_path: Path) -> None:
    """Also where ids look like numbers, and harmful prompts, which have no reference, come first for long."""
    rows = sorted(make_rows(count=40), key=lambda row: row["context"])
    rows = [row | {"prompt_id": f"{number // 2:03}"} for number, row in enumerate(rows)]
    found = load(write(tmp_path / "set", rows, suffix, anchor="de"))
    columns = [name for name in REQUIRED + OPTIONAL if name in rows[0]]
    assert found.frame.select(columns).rows(named=True) == [{name: row[name] for name in columns} for row in rows]
    assert (found.languages, found.anchor) == (LANGUAGES, "de")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_single_file_is_a_set(suffix: str, tmp_path: Path) -> None:
    write(tmp_path, make_rows(), suffix, name="mine")
    found = load(tmp_path / f"mine{suffix}")
    assert (found.name, found.languages, found.judge, found.license) == ("mine", LANGUAGES, None, None)
    (tmp_path / "mine.json").write_text('{"name": "données", "license": "CC0", "max_new_tokens": 7}', encoding="utf-8")
    found = load(tmp_path / f"mine{suffix}")
    assert (found.name, found.license, found.max_new_tokens) == ("données", "CC0", 7)


def test_the_organism_is_parallel_and_complete() -> None:
    found = load("organism")
    assert (found.name, found.anchor) == ("organism", "qaa")
    assert found.languages == ("qaa", "qab", "qac", "qad", "qae", "qaf", "qag")
    per_prompt = found.frame.group_by("prompt_id").agg(
        pl.col("language").n_unique(), pl.col("split", "context", "cluster").n_unique()
    )
    assert set(per_prompt["language"]) == {7}
    assert set(per_prompt["split"]) == set(per_prompt["context"]) == set(per_prompt["cluster"]) == {1}
    assert found.judge is not None


def test_defaults(tmp_path: Path) -> None:
    """Only the four columns that are needed, and no card."""
    rows = [{name: row[name] for name in REQUIRED} for row in make_rows(count=30)]
    found = load(write(tmp_path / "mine", rows))
    assert (found.name, found.anchor, found.max_new_tokens, found.judge) == ("mine", "en", 64, None)
    assert found.frame["cluster"].to_list() == found.frame["prompt_id"].to_list()
    assert found.frame.select("pair_id", "topic", "reference").null_count().row(0) == (len(rows),) * 3
    assert set(found.frame["split"]) == {"identify", "evaluate", "train"}


def test_select_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    found = load(write(tmp_path, list(reversed(make_rows()))))
    assert found.select("evaluate", "harmful", "de")["prompt_id"].to_list() == [
        f"evaluate-harmful-{number}" for number in (2, 1, 0)
    ]
    assert found.select("evaluate", "harmful").height == 6
    assert found.select("train", "harmful").is_empty()


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def bare(clusters: list[str | None], languages: Iterable[str] = LANGUAGES) -> list[Row]:
    """Prompts without a declared split."""
    return [
        {"prompt_id": f"{context}-{number}", "language": language, "context": context, "text": "x", "cluster": cluster}
        for context in ("harmful", "harmless")
        for number, cluster in enumerate(clusters)
        for language in languages
    ]


def test_assigned_splits_are_a_fixed_function_of_the_cluster(tmp_path: Path) -> None:
    """The shares are pinned: whoever changes the function moves prompts that chose neurons into their own test."""
    found = load(write(tmp_path, bare([f"cluster {number}" for number in range(500)]))).frame
    splits = dict(found.select("cluster", "split").iter_rows())
    first = ("identify", "identify", "identify", "evaluate", "identify", "train", "evaluate", "identify")
    assert tuple(splits[f"cluster {number}"] for number in range(8)) == first
    shares = {split: list(splits.values()).count(split) / 500 for split in ("identify", "evaluate", "train")}
    assert shares == pytest.approx({"identify": 0.6, "evaluate": 0.3, "train": 0.1}, abs=0.05)


@settings(max_examples=15)
@given(clusters=st.lists(st.none() | st.text("ab", min_size=1, max_size=2), min_size=12, max_size=12))
def test_assigned_splits_never_cross_a_cluster_or_a_translation(
    clusters: list[str | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write(tmp_path_factory.mktemp("set"), bare([*clusters, *"cdefghij"]))
    frame = load(folder).frame
    for unit in ("cluster", "prompt_id"):
        assert frame.group_by(unit).agg(pl.col("split").n_unique())["split"].to_list() == [1] * frame[unit].n_unique()


def test_another_language_does_not_move_a_prompt(tmp_path: Path) -> None:
    clusters = [f"c{number}" for number in range(40)]
    two, three = (
        load(write(tmp_path / str(len(languages)), bare(clusters, languages))).frame
        for languages in (LANGUAGES, ("sw", *LANGUAGES))
    )
    assert dict(two.select("prompt_id", "split").iter_rows()) == dict(three.select("prompt_id", "split").iter_rows())


CROSSING: dict[str, dict[int, Row]] = {
    "a cluster": {0: {"cluster": "both"}, -1: {"cluster": "both"}},
    "a translation that evaluates what the prompt chose": {1: {"split": "evaluate", "cluster": "of its own"}},
    "no split, two clusters": {0: {"split": None, "cluster": "cluster 0"}, 1: {"split": None, "cluster": "cluster 3"}},
}


@pytest.mark.parametrize("changes", CROSSING.values(), ids=CROSSING)
def test_declared_splits_may_not_cross(changes: dict[int, Row], tmp_path: Path) -> None:
    rows = make_rows()
    for number, change in changes.items():
        rows[number] |= change
    with pytest.raises(DataError, match="several splits") as caught:
        load(write(tmp_path, rows))
    assert caught.value.hint


# ── restricting and combining ────────────────────────────────────────────────────────────────────────────────────────


def test_a_limit_keeps_the_same_ids_in_every_language(tmp_path: Path) -> None:
    """Also where the languages stand in different orders in the file."""
    english, german = (make_rows([language], count=5) for language in LANGUAGES)
    found = load(write(tmp_path, english + german[::-1]), limit=2)
    for split in ("identify", "evaluate"):
        for context in ("harmful", "harmless", "lookalike"):
            ids = [set(found.select(split, context, language)["prompt_id"]) for language in LANGUAGES]
            assert ids == [{f"{split}-{context}-0", f"{split}-{context}-1"}] * 2


def test_a_limit_is_that_of_each_language_where_no_ids_are_shared(tmp_path: Path) -> None:
    rows = [row | {"prompt_id": f"{row['language']}:{row['prompt_id']}"} for row in make_rows(count=5)]
    path = write(tmp_path, sorted(rows, key=lambda row: row["language"]))
    found = load(path, limit=2)
    for language in LANGUAGES:
        ids = found.select("identify", "harmful", language)["prompt_id"].to_list()
        assert ids == [f"{language}:identify-harmful-0", f"{language}:identify-harmful-1"]


def test_languages_restrict_and_drop_an_absent_anchor(tmp_path: Path) -> None:
    """Rows in languages that the card does not declare are not counted, either."""
    rows = make_rows(["en", "de", "sw"])
    found = load(write(tmp_path, rows, anchor="en"), languages=("sw", "de"))
    assert (found.languages, found.anchor) == (("sw", "de"), None)
    assert set(found.frame["language"]) == {"sw", "de"}
    assert load(tmp_path, languages=("sw", "en")).anchor == "en"
    found = load(write(tmp_path, rows, languages=["en", "de"]))
    assert set(found.frame["language"]) == set(found.languages) == {"en", "de"}


def test_an_unknown_language_names_the_nearest(tmp_path: Path) -> None:
    folder = write(tmp_path, make_rows(["english", "german"]))
    with pytest.raises(DataError, match="no language 'germn'") as caught:
        load(folder, languages=("english", "germn"))
    assert "'german'" in (caught.value.hint or "")


@pytest.mark.parametrize("languages", [(), ("en", "en")], ids=["none", "twice"])
def test_a_choice_of_languages_that_would_spoil_the_means_is_refused(languages: Any, tmp_path: Path) -> None:
    """A language given twice would count twice in every average over languages."""
    with pytest.raises(DataError):
        load(write(tmp_path, make_rows()), languages=languages)


def test_harmless_prompts_may_come_from_another_set(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", make_rows(), anchor="en", name="prompts")
    theirs = write(tmp_path / "theirs", make_rows(["sw", "de", "en"], count=2, topic="theirs"), ".csv")
    found = load(mine, harmless=str(theirs))
    harmless, before = found.frame.filter(context="harmless"), load(mine).frame
    assert set(harmless["source"]) == {"theirs"}
    assert set(found.frame.filter(pl.col("context") != "harmless")["source"]) == {"mine"}
    assert set(harmless["language"]) == set(LANGUAGES) == set(found.languages)
    assert harmless.height == 2 * 2 * 2
    for column in ("prompt_id", "cluster"):
        assert not set(harmless[column]) & set(before[column]), "ids of two sets must stay apart"
    assert found.anchor == "en"
    own = before.filter(context="harmless")["prompt_id"].n_unique()
    assert found.notes == (f"mine: those of theirs take the place of its own {own} harmless prompts",)
    assert load(mine, harmless=str(mine)).notes == (), "the same prompts take no other's place"
    bare = write(tmp_path / "bare", [row for row in make_rows() if row["context"] != "harmless"], anchor="en")
    assert load(bare, harmless=str(theirs)).notes == ()


def test_two_sets_of_one_name_are_two_sources(tmp_path: Path) -> None:
    """What the null rejects may be a difference of sources, even where both files are called prompts.csv."""
    mine, theirs = (write(tmp_path / name, make_rows(topic=name), ".csv") / "prompts.csv" for name in ("a", "b"))
    found = load(mine, harmless=str(theirs)).frame
    assert found.group_by("source").agg(pl.col("context").unique().sort()).height == 2
    assert set(found.filter(context="harmless")["source"]).isdisjoint(found.filter(context="harmful")["source"])
    assert set(load(mine, harmless=str(mine)).frame["source"]) == {"prompts"}, "one file is one source"


@pytest.mark.parametrize("column", ["prompt_id", "cluster"])
def test_an_id_that_another_set_would_get_is_an_error(column: str, tmp_path: Path) -> None:
    theirs = write(tmp_path / "theirs", make_rows())
    taken = load(theirs).select("identify", "harmless")[column][0]
    rows = make_rows()
    for row in rows[:2]:
        row[column] = f"theirs:{taken}"
    with pytest.raises(DataError, match=f"the {column} 'theirs:{taken}' of mine"):
        load(write(tmp_path / "mine", rows), harmless=str(theirs))


def test_another_set_without_harmless_prompts(tmp_path: Path) -> None:
    theirs = write(tmp_path / "theirs", [row for row in make_rows() if row["context"] != "harmless"])
    with pytest.raises(DataError, match="theirs has no harmless prompts"):
        load(write(tmp_path / "mine", make_rows()), harmless=str(theirs))


# ── digest and anchor ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_digest_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    rows = make_rows()
    here, there = (load(write(tmp_path / name, rows, anchor="en")) for name in ("here", "there"))
    assert here.digest == there.digest
    changed = [rows[0] | {"text": "other"}, *rows[1:]]
    others = {
        "text": load(write(tmp_path / "text", changed, anchor="en")),
        "card": load(write(tmp_path / "card", rows, anchor="de")),
        "limit": load(tmp_path / "here", limit=1),
        "limit 2": load(tmp_path / "here", limit=2),
        "languages": load(tmp_path / "here", languages=("en",)),
        "harmless": load(tmp_path / "here", harmless=str(tmp_path / "text")),
    }
    assert len({here.digest, *(other.digest for other in others.values())}) == 1 + len(others)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    """In a notebook the data are fixed and the cell is run again, in the same process."""
    rows = make_rows()
    before = load(write(tmp_path, rows))
    after = load(write(tmp_path, [rows[0] | {"text": "fixed"}, *rows[1:]]))
    assert after.frame["text"][0] == "fixed"
    assert after.digest != before.digest


@pytest.mark.parametrize(
    ("languages", "card", "anchor"),
    [
        (("de", "en"), {}, "en"),
        (("de", "sw"), {}, None),
        (("de", "en"), {"anchor": "de"}, "de"),
        (("de", "sw"), {"license": "CC0"}, None),
    ],
)
def test_the_anchor_is_declared_or_english(languages: Any, card: Row, anchor: str | None, tmp_path: Path) -> None:
    assert load(write(tmp_path, make_rows(languages), **card)).anchor == anchor
