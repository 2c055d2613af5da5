"""Whatever a neuron file holds is a set that a study can work with, or one clear error."""

import csv
import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fuzzing import PANIC, cells, clear
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssn_probe import NeuronFile, Recipe
from ssn_probe.errors import DataError
from ssn_probe.neurons import EVERY, KEYS, read_neurons
from ssn_probe.neurons.model_neurons import check_places
from ssn_probe.neurons.overlap import overlap_table
from ssn_probe.neurons.random_controls import random_like
from ssn_probe.neurons.selection import shared_with_anchor
from ssn_probe.study.plan import make_plan

WIDTHS = {(layer, site): 16 for layer in range(4) for site in ("q", "k", "v", "o", "ffn")}

HEADER = "language,layer,site,index,score\n"
NEURONS = pl.DataFrame(
    {"language": ["en", "en", "de", "de"], "layer": [0, 1, 0, 2], "site": ["q", "ffn", "q", "v"], "index": [1, 2, 1, 3]}
).with_columns(score=pl.Series([0.5, 0.25, None, -1.0]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def worked_with(path: Path) -> None:
    """All that happens to the neurons of a file before a model is changed by them."""
    neurons = read_neurons(path)
    assert neurons.frame["score"].drop_nulls().is_finite().all()
    make_plan(Recipe(sets={"a": NeuronFile(str(path))}))
    for language in neurons.languages:
        assert len(neurons.of(language)) >= 1
    assert neurons.without_strongest() - neurons.union() == neurons - neurons
    clear(lambda: check_places(neurons, WIDTHS))
    clear(lambda: random_like(neurons, WIDTHS, 0))
    clear(lambda: shared_with_anchor(neurons, "en", neurons.union().frame.drop("language")))
    overlap_table(neurons, WIDTHS, "a").write_parquet(io.BytesIO())


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(st.lists(cells, min_size=5, max_size=5), max_size=3), bytes_=st.binary(max_size=30))
@example(rows=[], bytes_=PANIC)
def test_a_neuron_file_of_anything(rows: list[list[Any]], bytes_: bytes, folder: Path) -> None:
    for path in (folder / "set.csv", folder / "set.parquet"):
        path.write_bytes(bytes_)
        clear(lambda one=path: worked_with(one))
    lines = (",".join(f'"{cell}"' for cell in row) for row in rows)
    (folder / "set.csv").write_text(HEADER + "\n".join(lines), errors="surrogatepass", encoding="utf-8")
    clear(lambda: worked_with(folder / "set.csv"))


@settings(deadline=None, max_examples=120)
@given(column=st.sampled_from([*KEYS, "score"]), value=cells, row=st.integers(0, 3))
def test_a_neuron_file_with_other_cells(column: str, value: Any, row: int, folder: Path) -> None:
    everywhere = NEURONS.with_columns(pl.Series(column, [value] * len(NEURONS), strict=False))
    everywhere.write_parquet(folder / "set.parquet")
    clear(lambda: worked_with(folder / "set.parquet"))
    rows = NEURONS.rows(named=True)
    rows[row][column] = value
    with (folder / "set.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([NEURONS.columns, *(one.values() for one in rows)])
    clear(lambda: worked_with(folder / "set.csv"))


SPOILT = {
    "no number": ("en,0,q,1,nan\n", "a score that is not finite"),
    "endless": ("en,0,q,1,inf\nen,0,q,2,1\n", "a score that is not finite"),
    "two scores": ("en,0,q,1,1\nen,0,q,1,2\n", r"the neuron \(en, 0, q, 1\) with several scores"),
    "blank language": (" ,0,q,1,1\n", "' ' is not a language code"),
    "control character": ("e\x1bn,0,q,1,1\n", "is not a language code"),
    "average": ("average,0,q,1,1\n", "'average' is not a language code"),
    "every and one": ("*,0,q,1,1\nen,0,q,1,1\n", r"'\*' is not a language code"),
}


@pytest.mark.parametrize(("lines", "message"), SPOILT.values(), ids=SPOILT)
def test_a_neuron_file_that_would_spoil_a_study(lines: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text(HEADER + lines, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_neurons(path)
    assert caught.value.hint


def test_every_language_alone_is_a_language_free_set(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(HEADER + f"{EVERY},0,q,1,1\n", encoding="utf-8")
    assert read_neurons(tmp_path / "set.csv").language_free


@pytest.mark.parametrize("column", [*KEYS, "score"])
@pytest.mark.parametrize("value", [{"a": 1}, [1]])
def test_a_column_of_records_is_no_neuron(column: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    NEURONS.with_columns(pl.Series(column, [value] * len(NEURONS))).write_parquet(path)
    with pytest.raises(DataError, match=f"cannot be neurons: {column} is"):
        read_neurons(path)


@pytest.mark.parametrize("name", ["g*", "g[a]", "s3:"])
def test_a_folder_is_not_a_pattern(name: str, tmp_path: Path) -> None:
    for folder, index in (("gaa", 1), (name, 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "set.csv").write_text(HEADER + f"en,0,q,{index},1\n", encoding="utf-8")
    assert read_neurons(tmp_path / name / "set.csv").frame["index"].to_list() == [2]


def test_these_neurons_are_sound(tmp_path: Path) -> None:
    """Otherwise these tests would show nothing."""
    NEURONS.write_parquet(tmp_path / "set.parquet")
    worked_with(tmp_path / "set.parquet")
