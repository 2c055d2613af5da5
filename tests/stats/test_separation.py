"""AUROC against all pairs, one by one, and the gate at its edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from ssn_probe.stats import auroc, gate
from ssn_probe.stats.separation import mid_ranks

SCORED = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


def all_pairs(scores: np.ndarray, labels: np.ndarray) -> float:
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[labels] for b in scores[~labels]]
    return sum(wins) / len(wins)


@given(SCORED)
def test_auroc_counts_all_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    area = auroc(scores, labels)
    assert area == pytest.approx(all_pairs(scores, labels), abs=1e-12)
    assert auroc(-scores, labels) == pytest.approx(1 - area, abs=1e-12)
    assert auroc(np.exp(scores), labels) == pytest.approx(area, abs=1e-12)


def test_auroc_by_hand() -> None:
    assert auroc([1, 2, 3, 4], [False, False, True, True]) == 1.0
    assert auroc([1, 2, 3, 4], [True, True, False, False]) == 0.0
    assert auroc([7, 7, 7], [True, False, True]) == 0.5
    assert auroc([1, 3, 2, 4], [False, False, True, True]) == 0.75


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        auroc([1, 2], [True, True])
    for scores, labels, message in (
        ([1, float("nan")], [True, False], "finite"),
        ([1, 2], [1, 0], "bool"),
        ([1, 2, 3], [True, False], "one label per score"),
    ):
        for answer in (auroc, gate):
            with pytest.raises(ValueError, match=message):
                answer(scores, labels)


def sides(n_refused: int, n_other: int, swapped: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Perfectly separated scores, but for so many refused responses that score below all others."""
    refused = np.arange(n_refused + n_other) < n_refused
    scores = np.where(refused, 1.0, 0.0)
    scores[:swapped] = -1.0
    return scores, refused


@pytest.mark.parametrize(
    ("n_refused", "n_other", "swapped", "settings", "why"),
    [
        (20, 25, 0, {}, None),
        (20, 20, 3, {}, None),
        (20, 20, 4, {}, "below 0.85"),
        (30, 30, 30, {}, "below 0.85"),
        (19, 40, 0, {}, "too few responses: 19 refused and 40 other"),
        (40, 19, 0, {}, "too few responses: 40 refused and 19 other"),
        (5, 5, 2, {}, "too few"),
        (5, 5, 2, {"minimum": 0.6, "each_side": 5}, None),
    ],
)
def test_the_gate_needs_the_minimum_itself_and_enough_responses(
    n_refused: int, n_other: int, swapped: int, settings: dict, why: str | None
) -> None:
    found = gate(*sides(n_refused, n_other, swapped), **settings)
    assert found.auroc == pytest.approx(1 - swapped / n_refused)
    assert (found.n_refused, found.n_other, found.passed) == (n_refused, n_other, why is None)
    assert (why or f"AUROC {found.auroc:.4f} of the refusal log-odds against the verdict, at least") in found.why


@pytest.mark.parametrize("each_side", [0, 20])
def test_an_empty_side_has_no_auroc_and_fails(each_side: int) -> None:
    found = gate(*sides(0, 40), each_side=each_side)
    assert (found.auroc, found.n_refused, found.n_other, found.passed) == (None, 0, 40, False)
    assert "too few responses" in found.why
    assert not gate([], np.array([], dtype=bool), each_side=each_side).passed


def testmid_ranks_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).integers(0, 9, 60) / 8
    assert mid_ranks(values).tolist() == rankdata(values).tolist()
    assert mid_ranks(np.zeros(3)).tolist() == [2.0, 2.0, 2.0]
