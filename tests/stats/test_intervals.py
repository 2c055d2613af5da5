"""Closed-form intervals against scipy and published tables; the variance over clusters against a slow one."""

from itertools import product
from math import isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial

from ssn_probe.stats import newcombe, wilson
from ssn_probe.stats.intervals import cluster_jackknife

COUNTS = st.integers(0, 60)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 7, 30, 400])
def test_wilson_is_scipys(n: int, confidence: float) -> None:
    for successes in range(0, n + 1, max(1, n // 25)):
        expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
        assert wilson(successes, n, confidence) == pytest.approx(expected, abs=1e-12)


def test_wilson_ends_are_exact() -> None:
    for n in range(1, 300):
        assert wilson(0, n)[0] == 0.0
        assert wilson(n, n)[1] == 1.0


def test_what_is_no_rate_and_no_confidence_is_refused() -> None:
    for successes, n in ((1, 0), (-1, 5), (6, 5), (1, -3), (float("nan"), 5), (1, float("nan"))):
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, n)
    for confidence in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="confidence"):
            wilson(1, 2, confidence)


@pytest.mark.parametrize(
    ("table", "low", "high", "places"),
    [
        ((20, 12, 2, 16), 0.0562, 0.3292, 4),  # Newcombe 1998, method 10; his method 8 gives .0618, .3242
        ((1, 1, 7, 12), -0.507, -0.026, 3),  # Fagerland, Lydersen and Laake 2014
        ((8, 3, 1, 2), -0.1574, 0.4136, 4),  # Tang and others 2010
        ((7, 25, 2, 68), 0.133, 0.318, 3),  # Chang and others 2024
    ],
)
def test_newcombe_in_published_examples(table: tuple[int, int, int, int], low: float, high: float, places: int) -> None:
    assert newcombe(*table) == pytest.approx((low, high), abs=0.51 * 10**-places)


def test_newcombe_joins_the_wilson_intervals_by_the_correlation() -> None:
    """An empty margin sets φ to 0; arms that never agree have φ = −1, and the two distances add up."""
    low, high = wilson(9, 30)
    below, above = np.hypot(0.3 - low, wilson(0, 30)[1]), high - 0.3
    assert newcombe(0, 9, 0, 21) == pytest.approx((0.3 - below, 0.3 + above))
    (low_1, high_1), (low_2, high_2) = wilson(12, 20), wilson(8, 20)
    assert newcombe(0, 12, 8, 0) == pytest.approx((low_1 - high_2, high_1 - low_2))


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_newcombe_contains_the_difference_and_mirrors(both: int, first: int, second: int, neither: int) -> None:
    n = both + first + second + neither
    if n == 0:
        with pytest.raises(ValueError, match="at least one pair"):
            newcombe(both, first, second, neither)
        return
    low, high = newcombe(both, first, second, neither)
    assert -1 - 1e-12 <= low <= (first - second) / n <= high <= 1 + 1e-12
    assert low < high
    assert newcombe(both, second, first, neither) == pytest.approx((-high, -low), abs=1e-12)
    assert newcombe(neither, first, second, both) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(
    "shares", [(0.6, 0.2, 0.05, 0.15), (0.05, 0.5, 0.05, 0.4), (0.02, 0.18, 0.02, 0.78), (0.85, 0.05, 0.05, 0.05)]
)
def test_newcombe_covers_exactly_enumerated(shares: tuple[float, float, float, float]) -> None:
    """Every table of 20 pairs, weighted by its probability: coverage of .95 without being much too wide."""
    n, difference = 20, shares[1] - shares[2]
    tables = [(a, b, c, n - a - b - c) for a, b, c in product(range(n + 1), repeat=3) if a + b + c <= n]
    weights = multinomial(n, shares).pmf(tables)
    covered = np.array([low <= difference <= high for low, high in (newcombe(*table) for table in tables)])
    assert isclose(weights.sum(), 1, abs_tol=1e-9)
    assert 0.93 <= weights @ covered <= 0.999


def slow_variance(values: np.ndarray, groups: np.ndarray, clusters: np.ndarray) -> float:
    """Leave out one cluster after the other, and average the means of the groups."""

    def average(rows: np.ndarray) -> float:
        return float(np.mean([values[rows & (groups == group)].mean() for group in np.unique(groups)]))

    every = np.ones(len(values), dtype=bool)
    labels = np.unique(clusters)
    changes = [average(clusters != label) - average(every) for label in labels]
    return (len(labels) - 1) / len(labels) * float(np.square(changes).sum())


@pytest.fixture
def crossed() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values, two columns of clusters and groups; the actions differ, the objects more, and single rows a little."""
    rng = np.random.default_rng(5)
    first, second, groups = (rng.integers(0, size, 120) for size in (6, 9, 3))
    values = rng.normal(size=6)[first] + 2 * rng.normal(size=9)[second] + 0.5 * rng.normal(size=120)
    return values, first, second, groups


def test_one_column_is_the_jackknife(crossed: tuple[np.ndarray, ...]) -> None:
    values, first, _, groups = crossed
    found = cluster_jackknife(values, [first], groups)
    assert found is not None
    assert found.variance == pytest.approx(slow_variance(values, groups, first))


def test_crossed_columns_add_up_less_what_is_counted_twice(crossed: tuple[np.ndarray, ...]) -> None:
    values, first, second, groups = crossed
    found = cluster_jackknife(values, [first, second], groups)
    assert found is not None
    parts = [slow_variance(values, groups, codes) for codes in (first, second, first * 9 + second)]
    assert found.variance == pytest.approx(parts[0] + parts[1] - parts[2])
    assert found.variance > 1.2 * max(parts[:2]), "each column has a variance of its own"
    swapped = cluster_jackknife(values, [second, first], groups)
    assert swapped is not None
    assert (swapped.variance, swapped.freedom) == pytest.approx((found.variance, found.freedom))


def test_a_column_that_says_nothing_new_changes_nothing(crossed: tuple[np.ndarray, ...]) -> None:
    values, first, second, groups = crossed
    alone = cluster_jackknife(values, [first], groups)
    assert alone is not None
    rows = np.arange(len(values))
    for more in ([first], [rows], [rows, first]):
        found = cluster_jackknife(values, [first, *more], groups)
        assert found is not None
        assert found.variance == pytest.approx(alone.variance)
    three, two = (cluster_jackknife(values, [first, second, *more], groups) for more in ([rows], []))
    assert three is not None
    assert two is not None
    assert three.variance == pytest.approx(two.variance)


def test_the_variance_is_never_less_than_over_one_column() -> None:
    """Chessboard: rows and columns agree by half, so that what is counted twice is more than both."""
    first, second = np.divmod(np.arange(64), 8)
    values = ((first + second) % 2).astype(float)
    values[0] = 1.0
    one = np.zeros(64, dtype=np.intp)
    found = cluster_jackknife(values, [first, second], one)
    assert found is not None
    assert found.variance == pytest.approx(slow_variance(values, one, first))


def test_few_clusters_that_decide_have_few_degrees_of_freedom() -> None:
    clusters, one = np.repeat(np.arange(20), 5), np.zeros(100, dtype=np.intp)
    spread = np.random.default_rng(3).normal(size=20)[clusters]
    some, all_in_one = (
        cluster_jackknife(values, [clusters], one) for values in (spread, (clusters == 0).astype(float))
    )
    assert some is not None
    assert all_in_one is not None
    assert 8 < some.freedom <= 19
    assert all_in_one.freedom < 3


def test_clusters_that_say_nothing_have_no_spread() -> None:
    zeros, each = np.zeros(6, dtype=np.intp), np.arange(6)
    values = np.array([0.0, 1, 0, 1, 0, 1])
    assert cluster_jackknife(values, [zeros], zeros) is None, "one cluster"
    assert cluster_jackknife(values, [each, zeros], zeros) is None, "one cluster of a column"
    assert cluster_jackknife(values, [np.array([0, 0, 1, 1, 2, 2])], zeros) is None, "clusters agree"
    assert cluster_jackknife(values, [np.array([0, 1, 0, 1, 2, 2])], zeros) is not None
    assert cluster_jackknife(values, [each], np.array([0, 1, 1, 1, 1, 1])) is None, "a group has one cluster"
