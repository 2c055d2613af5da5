"""A data frame is a prompt set like the file it would be."""

from pathlib import Path

import foreign_files as made
import pandas as pd
import polars as pl
import pytest
from prompt_rows import make_rows

from ssn_probe import DataError, Prompts, RecipeError, prompts_from_frame
from ssn_probe.data.prompt_set import load_prompts


def test_a_frame_is_the_set_that_its_file_would_be(tmp_path: Path) -> None:
    frame = pl.read_csv(made.multijail(tmp_path))
    here, pandas = (
        prompts_from_frame(one, name="mine", out=tmp_path / "out", languages=("jw", "en"))
        for one in (frame, frame.to_pandas())
    )
    assert here == pandas, "equal frames have one copy"
    found = load_prompts(here)
    assert (found.name, found.languages) == ("mine", ("jv", "en"))
    assert found.digest == load_prompts(prompts_from_frame(frame, out=tmp_path / "else", languages=("jv", "en"))).digest


def test_a_frame_in_the_projects_own_columns(tmp_path: Path) -> None:
    rows = make_rows()
    found = load_prompts(prompts_from_frame(pl.DataFrame(rows), out=tmp_path))
    assert found.frame["text"].to_list() == [row["text"] for row in rows]
    assert found.frame["split"].to_list() == [row["split"] for row in rows]


def test_another_content_is_another_copy(tmp_path: Path) -> None:
    one, other = (prompts_from_frame(pl.DataFrame({"en": [text]}), out=tmp_path) for text in ("a", "b"))
    assert one.source != other.source


@pytest.mark.parametrize(
    ("frame", "name"), [([1, 2], "mine"), (pd.Series(["a"]), "mine"), (pl.DataFrame({"en": ["a"]}), "a/b")]
)
def test_what_is_no_frame_or_no_name(frame: object, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prompts_from_frame(frame, name=name, out=tmp_path)
    assert caught.value.hint


def test_a_frame_in_place_of_a_set_names_the_way() -> None:
    with pytest.raises(RecipeError) as caught:
        Prompts(pl.DataFrame({"en": ["a"]}))  # type: ignore[arg-type]
    assert "prompts_from_frame(frame).source" in str(caught.value.hint)
    with pytest.raises(RecipeError) as lazy:
        Prompts(pl.DataFrame({"en": ["a"]}).lazy())  # type: ignore[arg-type]
    assert "prompts_from_frame(frame.collect()).source" in str(lazy.value.hint)


def test_prompts_in_place_of_their_source_name_the_way() -> None:
    with pytest.raises(RecipeError) as caught:
        Prompts(Prompts("organism"))  # type: ignore[arg-type]
    assert caught.value.hint == "Give source as str. This Prompts has it as .source."
