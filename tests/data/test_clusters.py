"""Crossed clusters: columns of a table, named by its card or by themselves, and what may not be in two splits."""

from pathlib import Path

import pytest
from prompt_rows import LANGUAGES, Row, load, make_rows, write

from ssn_probe.data.clusters import cluster_columns, combined
from ssn_probe.errors import DataError


def crossed(**fixed: str) -> list[Row]:
    """24 prompts per context: every action on every object, in one split by their combination."""
    rows = [row for row in make_rows(count=24, cluster=None, split=None) if row["prompt_id"].startswith("identify")]
    number = [int(row["prompt_id"].rsplit("-", 1)[1]) for row in rows]
    return [row | {"action": f"a{i % 6}", "object": f"o{i // 6}"} | fixed for row, i in zip(rows, number, strict=True)]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_card_names_the_columns_of_clusters(suffix: str, tmp_path: Path) -> None:
    found = load(write(tmp_path / "set", crossed(), suffix, cluster=["action", "object"]))
    assert cluster_columns(found.frame) == ["cluster", "cluster_2"]
    assert found.frame["cluster"].to_list() == [row["action"] for row in crossed()]
    assert found.frame["cluster_2"].to_list() == [row["object"] for row in crossed()]
    assert found.unused == ("cluster",)


def test_or_the_table_has_them(tmp_path: Path) -> None:
    rows = [row | {"cluster": row.pop("action"), "cluster_2": row.pop("object")} for row in crossed()]
    found = load(write(tmp_path / "own", rows))
    named = load(write(tmp_path / "named", crossed(), cluster=["action", "object"]))
    assert found.frame.drop("source").equals(named.frame.drop("source"))
    assert not found.unused


def test_numbers_topics_and_empty_cells_are_labels(tmp_path: Path) -> None:
    rows = [row | {"action": 7, "topic": row["object"]} for row in crossed()]
    rows[:3] = [row | {"topic": None} for row in rows[:3]]
    found = load(write(tmp_path / "set", rows, cluster=["action", "topic"])).frame
    assert set(found["cluster"]) == {"7"}
    assert found["cluster_2"].to_list() == [row["topic"] or row["prompt_id"] for row in rows]
    assert found["topic"].to_list() == [row["topic"] for row in rows], "a column may also be the topic"


def test_the_split_follows_the_combination(tmp_path: Path) -> None:
    found = load(write(tmp_path / "set", crossed(), cluster=["action", "object"])).frame
    splits = dict(zip(combined(found), found["split"], strict=True))
    assert len(splits) == 24
    assert set(splits.values()) == {"identify", "evaluate", "train"}
    assert found["split"].to_list() == [splits[name] for name in combined(found)]
    assert len(found.unique(["cluster", "split"])) > 6, "an action is in several splits"


def test_a_combination_in_two_splits_is_refused(tmp_path: Path) -> None:
    rows = crossed(split="identify")
    twin = [row | {"prompt_id": "twin", "split": "evaluate", "text": "another"} for row in rows[: len(LANGUAGES)]]
    with pytest.raises(DataError, match="the cluster 'a0 × o0' is in several splits"):
        load(write(tmp_path / "set", rows + twin, cluster=["action", "object"]))
    apart = [row | {"object": "new"} for row in twin]
    assert load(write(tmp_path / "apart", rows + apart, cluster=["action", "object"])).frame.height == len(rows + apart)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (["action", "thing"], "lacks the columns"),
        ("action", "Give cluster as a list of one to 3 columns"),
        (["action", "action"], "Give cluster as a list of one to 3 columns"),
        ([], "Give cluster as a list of one to 3 columns"),
    ],
)
def test_a_card_that_names_no_columns_is_refused(cluster: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as found:
        load(write(tmp_path / "set", crossed(), cluster=cluster))
    assert message in f"{found.value} {found.value.hint}"


def test_harmless_prompts_of_another_set_are_clusters_of_their_own(tmp_path: Path) -> None:
    harmful = [row for row in crossed() if row["context"] == "harmful"]
    one = write(tmp_path / "one", harmful, cluster=["action", "object"])
    other = write(tmp_path / "other", make_rows())
    both = load(one, harmless=str(other)).frame
    taken = both.filter(context="harmless")
    assert taken["cluster_2"].to_list() == taken["prompt_id"].to_list()
    assert set(taken["cluster"]).isdisjoint(both.filter(context="harmful")["cluster"])
    assert both["cluster_2"].null_count() == 0
