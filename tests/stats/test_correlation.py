"""Spearman's ρ, its exact p, its interval and the size it needed, against scipy and printed tables."""

import subprocess
import sys
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test, rankdata, spearmanr

from ssn_probe.stats import RankCorrelation, rank_correlation
from ssn_probe.stats.correlation import _standard_ranks

figures = st.lists(st.integers(0, 5), min_size=5, max_size=5).filter(lambda row: len(set(row)) > 1)


@given(figures, figures)
@settings(max_examples=40, deadline=None)
def test_rho_is_scipys_and_p_counts_the_pairings(x: list[int], y: list[int]) -> None:
    """With ties, too: every one of the 120 pairings by brute force."""
    found = rank_correlation(x, y)
    expected = float(spearmanr(x, y).statistic)
    assert found.rho == pytest.approx(expected)
    ranks, other = np.array(list(permutations(rankdata(x)))), rankdata(y)
    every = [abs(np.corrcoef(paired, other)[0, 1]) for paired in ranks]
    assert found.p == pytest.approx(np.mean([rho >= abs(expected) - 1e-9 for rho in every]))
    reached = [rho for rho in every if np.mean([other >= rho - 1e-9 for other in every]) <= 0.05]
    assert found.needed == (pytest.approx(min(reached)) if reached else None)


def test_all_pairings_are_counted_as_scipy_counts_them() -> None:
    """To the bit: ties are pairings whose |ρ| is the observed one but for rounding."""
    random = np.random.default_rng(3)
    for n in (2, 4, 6, 7):
        x, y = random.integers(0, 4, size=(2, n))
        x[:2], y[:2] = [0, 1], [1, 0]
        ranks = [_standard_ranks(one.astype(float)) for one in (x, y)]
        found: Any = permutation_test(
            (ranks[0],),
            lambda paired, axis: np.abs(np.sum(paired * ranks[1], axis=axis)),  # noqa: B023
            permutation_type="pairings",
            alternative="greater",
            vectorized=True,
            n_resamples=5040,
        )
        assert rank_correlation(x, y).p == float(found.pvalue)


def test_few_languages_need_no_import_of_scipys_statistics() -> None:
    """It takes half a second at the end of every run."""
    call = "from ssn_probe.stats import rank_correlation; rank_correlation([1, 2, 3, 4], [3, 1, 2, 4])"
    code = f"import sys; {call}; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("n", "critical"), [(4, None), (5, 1.0), (6, 0.886), (7, 0.786), (8, 0.738)])
def test_what_rho_would_have_been_needed_is_in_zars_table(n: int, critical: float | None) -> None:
    """Zar 1972, two-sided α = .05 (n = 4 has no critical value)."""
    rng = np.random.default_rng(n)
    found = rank_correlation(rng.permutation(n), rng.permutation(n))
    assert found.needed == (None if critical is None else pytest.approx(critical, abs=5e-4))


def test_the_interval_by_hand() -> None:
    found = rank_correlation(range(7), [1, 0, 3, 2, 4, 6, 5])
    assert found.rho is not None
    reach = 1.959964 * np.sqrt((1 + found.rho**2 / 2) / 4)
    assert (found.low, found.high) == pytest.approx(tuple(np.tanh(np.arctanh(found.rho) + np.array([-reach, reach]))))


def test_what_cannot_be_had_is_none_and_says_why() -> None:
    assert rank_correlation([2] * 6, range(6)) == RankCorrelation(
        rho=None, p=None, low=None, high=None, n=6, needed=None,
        note="no correlation: one of the figures is the same in every language",
    )  # fmt: skip
    assert [rank_correlation(one, one).note for one in ([], [1])] == [f"no correlation: n = {n}" for n in (0, 1)]
    two = rank_correlation([1, 2], [5, 4])
    assert (two.rho, two.p, two.low, two.needed) == (pytest.approx(-1), 1.0, None, None)
    three = rank_correlation([1, 2, 3], [5, 4, 6])
    reason = "no interval: n = 3, and at least four languages are needed"
    assert (three.low, three.high, three.note) == (None, None, reason)
    perfect = rank_correlation(range(6), range(6))
    assert (perfect.rho, perfect.p, perfect.low) == (pytest.approx(1), pytest.approx(2 / 720), None)
    assert "agree completely" in str(perfect.note)


def test_above_eight_the_pairings_are_drawn_by_the_seed() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=20), rng.normal(size=20)
    y = y + 0.6 * x
    found = rank_correlation(x, y, seed=1)
    assert found == rank_correlation(x, y, seed=1)
    assert found.p == pytest.approx(float(spearmanr(x, y).pvalue), abs=0.01)
    assert found.needed == pytest.approx(0.447, abs=0.02), "Zar 1972, n = 20"
    assert rank_correlation(range(20), range(20), draws=199).p == 1 / 200, "never 0"


def test_what_are_no_figures_is_refused() -> None:
    with pytest.raises(ValueError, match="one of each"):
        rank_correlation([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        rank_correlation([1, 2, float("nan")], [1, 2, 3])
