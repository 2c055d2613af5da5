"""Responses that people labelled, in the format of PolyGuardPrompts."""

from pathlib import Path

import foreign_files as made
import polars as pl
import pytest

from ssn_probe.data.labelled_responses import labelled_responses
from ssn_probe.errors import DataError


def test_labels_become_verdicts_and_rows_without_one_are_counted(tmp_path: Path) -> None:
    path = made.polyguard(tmp_path / "a.parquet")
    for source in (f"polyguard:{path}", str(path), f"polyguard:{tmp_path}"):
        found = labelled_responses(source)
        assert (found.frame.height, found.unlabelled) == (24, 12)
        assert dict(found.frame.group_by("label").len().iter_rows()) == {"refused": 12, "complied": 12}
        assert found.frame.filter(prompt_id="4")["language"].to_list() == ["en", "zh", "th"]
    row = labelled_responses(f"polyguard:{path}").frame.row(0, named=True)
    assert row["request"] == made.text("English", 0)
    assert row["response"] == "Fold it twice 0."
    assert labelled_responses(f"polyguard:{path}").license == "cc-by-4.0"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("response_refusal_label", "perhaps", "'perhaps' is no label"),
        ("language", "Klingonese", "'Klingonese' is no language"),
        ("response", None, "lacks response"),
    ],
)
def test_what_is_not_in_the_format(column: str, value: str | None, message: str, tmp_path: Path) -> None:
    path = made.polyguard(tmp_path / "a.parquet")
    frame = pl.read_parquet(path)
    frame = frame.drop(column) if value is None else frame.with_columns(pl.lit(value).alias(column))
    frame.write_parquet(path)
    with pytest.raises(DataError, match=message) as caught:
        labelled_responses(str(path))
    assert caught.value.hint
