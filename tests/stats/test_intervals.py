"""Closed-form intervals against scipy and published tables; the bootstrap against a slow one and its own coverage."""

from itertools import product
from math import isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial, norm, t

from ssn_probe.stats import newcombe, wilson
from ssn_probe.stats.intervals import cluster_bootstrap

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


def slow_bootstrap(values: np.ndarray, clusters: np.ndarray, draws: int, tail: float) -> tuple[float, float]:
    """Resample whole clusters one by one and pool their prompts."""
    rng, labels, means = np.random.default_rng(99), np.unique(clusters), []
    for _ in range(draws):
        taken = rng.choice(labels, size=len(labels))
        means.append(np.concatenate([values[clusters == label] for label in taken]).mean())
    low, high = np.quantile(means, [tail, 1 - tail])
    return low, high


@pytest.mark.slow
def test_bootstrap_is_the_slow_one() -> None:
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(12), rng.integers(1, 9, 12))
    values = rng.normal(size=12)[clusters] + rng.normal(size=len(clusters))
    one_group = np.zeros_like(clusters)
    found = cluster_bootstrap(values, clusters, one_group, confidence=0.95, draws=20_000, seed=1)
    tail = float(norm.cdf(np.sqrt(12 / 11) * t(11).ppf(0.025)))
    assert found == pytest.approx(slow_bootstrap(values, clusters, 6000, tail), abs=0.06)
    assert found != pytest.approx(slow_bootstrap(values, one_group + np.arange(len(values)), 6000, tail), abs=0.06)


def test_bootstrap_without_information_is_none() -> None:
    zeros = np.zeros(6, dtype=np.intp)
    values = np.array([0.0, 1, 0, 1, 0, 1])
    settings = {"confidence": 0.95, "draws": 200, "seed": 0}
    assert cluster_bootstrap(values, zeros, zeros, **settings) is None, "one cluster"
    assert cluster_bootstrap(values, np.array([0, 0, 1, 1, 2, 2]), zeros, **settings) is None, "clusters agree"
    assert cluster_bootstrap(values, np.array([0, 1, 0, 1, 2, 2]), zeros, **settings) is not None
    each = np.arange(8)
    thin = np.array([0, 1, 2, 3, 4, 4, 4, 4])
    assert cluster_bootstrap(each.astype(float), each, thin, **settings) is None, "most draws miss a group"


@pytest.mark.slow
@pytest.mark.parametrize(("n_clusters", "least"), [(6, 0.89), (30, 0.92)])
def test_bootstrap_covers_with_clusters(n_clusters: int, least: float) -> None:
    """Prompts of a cluster agree (intraclass correlation .2): the interval must know, also with few clusters."""
    rng, covered, naive, repeats = np.random.default_rng(7), 0, 0, 500
    for repeat in range(repeats):
        rates = rng.beta(2, 2, n_clusters)
        clusters = np.repeat(np.arange(n_clusters), rng.integers(4, 13, n_clusters))
        values = (rng.random(len(clusters)) < rates[clusters]).astype(float)
        limits = cluster_bootstrap(values, clusters, np.zeros_like(clusters), confidence=0.95, draws=400, seed=repeat)
        covered += limits is not None and limits[0] <= 0.5 <= limits[1]
        low, high = wilson(values.sum(), len(values))
        naive += low <= 0.5 <= high
    assert least <= covered / repeats <= 0.985
    assert naive / repeats < 0.85, "the simulation must be one where ignoring clusters fails"
