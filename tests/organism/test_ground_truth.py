"""The ground truth: reading it, comparing sets with it, and average precision."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.model.digests import weights_digest
from ssn_probe.neurons import NeuronSet, neuron_set
from ssn_probe.organism.ground_truth import (
    COMPARISON,
    TRUTH_SCHEMA,
    Truth,
    against_truth,
    average_precision,
    largest_share,
    load_truth,
    truth_digest,
)

ROWS = [
    (0, "ffn", 0, 6.0, 0.1, 1.0, 0.1, "carrier", "carrier"),
    (0, "ffn", 1, 3.0, 0.1, 2.0, 0.1, "carrier", "idle"),
    (0, "ffn", 2, -2.0, 0.1, 0.0, 0.1, "brake", "idle"),
    (1, "o", 3, 1.0, 0.1, -3.0, 0.1, "carrier", "brake"),
    (1, "o", 4, 0.0, 0.1, 0.5, 0.1, "idle", "idle"),
]
FACTS = {
    "schema": 1,
    "pairs": 20,
    "prompts": 10,
    "seed": 1,
    "widths": {"ffn": 8, "o": 6},
    "totals": {"harmful": {"none": -6.0, "all": 2.0}, "difference": {"none": 0.0, "all": 0.5}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    pl.DataFrame(ROWS, schema=TRUTH_SCHEMA, orient="row").write_parquet(tmp_path / "truth.parquet")
    facts = FACTS | {"weights_sha256": weights_digest(tmp_path)}
    sealed = facts | {"sha256": truth_digest(tmp_path, facts)}
    (tmp_path / "truth.json").write_text(json.dumps(sealed), encoding="utf-8")
    return tmp_path


@pytest.fixture
def truth(folder: Path) -> Truth:
    found = load_truth(folder)
    assert found is not None
    return found


def chosen(*neurons: tuple[int, str, int], language: str = "qaa") -> NeuronSet:
    return neuron_set([(language, *neuron, 1.0) for neuron in neurons])


def test_a_truth_is_read_whole_where_there_is_one(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert load_truth(tmp_path_factory.mktemp("none")) is None
    assert truth.neurons.schema == TRUTH_SCHEMA
    assert truth.neurons.rows() == ROWS
    assert truth.totals == {"harmful": (-6.0, 2.0), "difference": (0.0, 0.5)}
    assert truth.members("harmful", "brake").rows() == [(0, "ffn", 2, -2.0)]


DAMAGES: dict[str, Callable[[Path, Path], Any]] = {
    "no json": lambda facts, table: facts.unlink(),
    "half a json": lambda facts, table: facts.write_bytes(facts.read_bytes()[:50]),
    "a key less": lambda facts, table: facts.write_text(json.dumps(FACTS), encoding="utf-8"),
    "half a parquet": lambda facts, table: table.write_bytes(table.read_bytes()[:100]),
    "a column less": lambda facts, table: pl.read_parquet(table).drop("harmful_se").write_parquet(table),
    "another value": lambda facts, table: (
        pl.read_parquet(table).with_columns(harmful=pl.col("harmful") + 1).write_parquet(table)
    ),
    "another fact": lambda facts, table: facts.write_text(
        facts.read_text("utf-8").replace('"pairs": 20', '"pairs": 21'), encoding="utf-8"
    ),
    "other weights": lambda facts, table: (facts.parent / "model.safetensors").write_bytes(b"other weights"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_truth_is_a_model_error(folder: Path, damage: str) -> None:
    DAMAGES[damage](folder / "truth.json", folder / "truth.parquet")
    said = {"other weights": "other weights", "another value": "is damaged", "another fact": "is damaged"}
    with pytest.raises(ModelError, match=said.get(damage, "cannot be read")):
        load_truth(folder)


def test_a_truth_of_an_earlier_release_has_no_digest_of_itself(folder: Path) -> None:
    facts = json.loads((folder / "truth.json").read_text("utf-8"))
    del facts["sha256"]
    (folder / "truth.json").write_text(json.dumps(facts), encoding="utf-8")
    assert load_truth(folder) is not None


def test_a_set_is_compared_question_by_question(truth: Truth) -> None:
    neurons = chosen((0, "ffn", 0), (0, "ffn", 2), (0, "ffn", 7), (1, "o", 3), (1, "ffn", 0), (0, "v", 1))
    harmful, difference = against_truth(truth, "ms", neurons).rows(named=True)
    assert harmful == {
        "set": "ms",
        "language": "qaa",
        "question": "harmful",
        "selected": 4,  # three ffn of layer 0, one o of layer 1
        "outside": 2,  # ffn of layer 1, and a v row
        "planted": 5,
        "true": 3,
        "hits": 2,
        "precision": 0.5,
        "recall": pytest.approx(2 / 3),
        "mass": pytest.approx(0.7),
        "brakes": 1,
        "average_precision": None,
    }
    keys = ("question", "true", "hits", "mass", "brakes")
    assert [difference[key] for key in keys] == ["difference", 1, 1, 1.0, 1]


def test_nothing_is_divided_by_nothing(truth: Truth) -> None:
    silent = truth.neurons.with_columns(harmful_class=pl.lit("idle"), difference_class=pl.lit("idle"))
    without = Truth(neurons=silent, totals=truth.totals, widths=truth.widths, pairs=20, prompts=10, seed=1)
    ranking = neuron_set([("*", 0, "ffn", 0, 1.0)]).frame
    row = against_truth(without, "ms", chosen((3, "ffn", 0)), ranking).row(0, named=True)
    assert [row[key] for key in ("selected", "outside", "true", "hits", "brakes")] == [0, 1, 0, 0, 0]
    assert [row[key] for key in ("precision", "recall", "mass", "average_precision")] == [None] * 4


def test_every_language_of_a_set_has_its_rows(truth: Truth) -> None:
    both = neuron_set([("qaa", 0, "ffn", 0, 1.0), ("qab", 0, "ffn", 1, 1.0)])
    ranking = neuron_set([("qaa", 0, "ffn", 0, 3.0), ("qaa", 0, "ffn", 1, 2.0), ("qaa", 1, "o", 3, 1.0)]).frame
    frame = against_truth(truth, "ms", both, ranking)
    assert dict(frame.schema) == COMPARISON
    assert frame.select("language", "question", "hits").rows() == [
        ("qaa", "harmful", 1),
        ("qaa", "difference", 1),
        ("qab", "harmful", 1),
        ("qab", "difference", 0),
    ]
    assert frame["average_precision"].to_list() == [1.0, 1.0, None, None]
    free = ranking.with_columns(language=pl.lit("*"))
    assert against_truth(truth, "ms", both, free)["average_precision"].to_list() == [1.0] * 4
    assert against_truth(truth, "ms", both.of("qaa"), free)["language"].to_list() == ["*", "*"]


def test_unranked_neurons_of_the_planted_places_come_last(truth: Truth) -> None:
    # 8 ffn of layer 0 and 6 o of layer 1 are candidates; what is ranked elsewhere does not count.
    ranking = neuron_set([("*", 2, "ffn", 0, 9.0), ("*", 0, "ffn", 5, 3.0), ("*", 0, "ffn", 0, 2.0)]).frame
    row = against_truth(truth, "ms", chosen((0, "ffn", 0)), ranking).row(0, named=True)
    assert row["average_precision"] == pytest.approx((1 / 2 + 2 * 3 / 14) / 3)


def test_a_ranking_with_nan_is_refused(truth: Truth) -> None:
    ranking = neuron_set([("*", 0, "ffn", 0, math.nan)]).frame
    with pytest.raises(ResultError, match="not numbers"):
        against_truth(truth, "ms", chosen((0, "ffn", 0)), ranking)


def test_average_precision_worked_by_hand() -> None:
    # The documentation of scikit-learn's average_precision_score has this example, with 0.83….
    assert average_precision([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == pytest.approx(5 / 6)
    assert average_precision([2.0, None], [False, True]) == pytest.approx(1 / 2)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30), st.randoms())
def test_average_precision_is_the_mean_over_relevant_items(items: list[tuple[int, bool]], hand: random.Random) -> None:
    """Of the precision among all items that score as high as it, in whatever order the items come."""
    mixed = hand.sample(items, len(items))
    value = average_precision([float(score) for score, _ in mixed], [relevant for _, relevant in mixed])
    found = [score for score, relevant in items if relevant]
    if not found:
        assert value is None
        return
    at = [[relevant for score, relevant in items if score >= least] for least in found]
    assert value == pytest.approx(sum(sum(one) / len(one) for one in at) / len(found))


def test_the_largest_share_is_of_the_positive_mass() -> None:
    frame = pl.DataFrame({"harmful": [3.0, 1.0, -8.0], "difference": [-1.0, 0.0, 0.0]})
    assert largest_share(frame) == 0.75
    assert largest_share(frame, "difference") == 0.0
