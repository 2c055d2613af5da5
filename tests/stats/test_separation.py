"""AUROC against all pairs, one by one, and the gate at its edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssn_probe.stats import auroc, gate

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


def test_auroc_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        auroc([1, 2], [True, True])
    with pytest.raises(ValueError, match="finite"):
        auroc([1, float("nan")], [True, False])
    with pytest.raises(ValueError, match="bool"):
        auroc([1, 2], [1, 0])
    with pytest.raises(ValueError, match="one label per score"):
        auroc([1, 2, 3], [True, False])


def sides(n_refused: int, n_other: int, swapped: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Perfectly separated scores, but for so many refused responses that score below all others."""
    refused = np.arange(n_refused + n_other) < n_refused
    scores = np.where(refused, 1.0, 0.0)
    scores[:swapped] = -1.0
    return scores, refused


def test_a_read_out_that_separates_passes() -> None:
    found = gate(*sides(20, 25))
    assert (found.auroc, found.n_refused, found.n_other, found.passed) == (1.0, 20, 25, True)
    assert "1.0000" in found.why


@pytest.mark.parametrize(("n_refused", "n_other"), [(19, 40), (40, 19), (19, 19)])
def test_too_few_responses_do_not_pass_however_separate(n_refused: int, n_other: int) -> None:
    found = gate(*sides(n_refused, n_other))
    assert (found.auroc, found.passed) == (1.0, False)
    assert "too few responses" in found.why
    assert f"{n_refused} refused and {n_other} other" in found.why


@pytest.mark.parametrize(("swapped", "passed"), [(3, True), (4, False)])
def test_the_minimum_itself_passes(swapped: int, passed: bool) -> None:
    found = gate(*sides(20, 20, swapped))
    assert found.auroc == pytest.approx(1 - swapped / 20)
    assert found.passed is passed
    assert ("below 0.85" in found.why) is not passed


def test_a_backward_read_out_fails() -> None:
    scores, refused = sides(30, 30)
    assert not gate(-scores, refused).passed


@pytest.mark.parametrize("each_side", [0, 20])
def test_an_empty_side_has_no_auroc_and_fails(each_side: int) -> None:
    found = gate(*sides(0, 40), each_side=each_side)
    assert (found.auroc, found.n_refused, found.n_other, found.passed) == (None, 0, 40, False)
    assert "too few responses" in found.why
    assert not gate([], np.array([], dtype=bool), each_side=each_side).passed


def test_thresholds_are_parameters() -> None:
    scores, refused = sides(5, 5, swapped=2)
    assert not gate(scores, refused).passed
    assert gate(scores, refused, minimum=0.6, each_side=5).passed


def test_a_broken_read_out_is_an_error() -> None:
    scores, refused = sides(20, 20)
    scores[3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        gate(scores, refused)
