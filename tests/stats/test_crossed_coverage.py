"""Do intervals hold what they promise where prompts share an action or an object? The truth is over all of them."""

from functools import cache

import numpy as np
import pytest
from scipy.special import expit

from ssn_probe.stats import language_average, wilson

Spreads = tuple[float, float, float]
"""Standard deviations, in log-odds, of actions, objects and single prompts; translations share all three."""
NONE, MIDDLE, LARGE = (0.0, 0.0, 0.0), (1.0, 1.0, 0.5), (2.0, 2.0, 1.0)


@cache
def centre(rate: float, spread: float) -> float:
    """The log-odds around which the mean rate is this."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        below = weights @ expit(middle + spread * nodes) / weights.sum() < rate
        low, high = (middle, high) if below else (low, middle)
    return low


def coverage(
    rates: tuple[float, ...],
    spreads: Spreads,
    *,
    size: tuple[int, int, int] = (16, 64, 200),
    languages: int = 1,
    columns: int = 2,
    repeats: int,
) -> tuple[float, float]:
    """How often the interval of a rate, or of a difference of two, holds the truth, and Wilson's for independent rows.

    `size`: actions, objects and prompts; `columns`: so many are given, the first or both. Two arms share most (.8) of
    what actions, objects and prompts add.
    """
    rng, held, naive = np.random.default_rng(28), 0, 0
    truth = rates[0] - sum(rates[1:])
    for _ in range(repeats):
        labels = np.stack(np.divmod(rng.choice(size[0] * size[1], size[2], replace=False), size[1]), axis=1)
        where = (labels[:, 0], labels[:, 1], np.arange(size[2]))
        common, arms = [rng.normal(size=levels) for levels in size], []
        for rate in rates:
            odds = np.full(size[2], centre(rate, float(np.hypot.reduce(spreads))))
            for spread, shared, codes in zip(spreads, common, where, strict=True):
                odds += spread * (0.8 * shared + 0.6 * rng.normal(size=len(shared)))[codes]
            arms.append((rng.random((languages, size[2])) < expit(odds)).ravel())
        arm, *baseline = arms
        found = language_average(
            arm,
            np.tile(labels[:, :columns], (languages, 1)),
            np.repeat(np.arange(languages), size[2]),
            baseline=baseline[0] if baseline else None,
        )
        assert found is not None
        held += found.low <= truth <= found.high
        low, high = wilson(arm.sum(), len(arm))
        naive += low <= rates[0] <= high
    return held / repeats, naive / repeats


@pytest.mark.parametrize(("rates", "least"), [((0.4,), 0.92), ((0.6, 0.4), 0.92)])
def test_actions_and_objects_are_in_the_interval(rates: tuple[float, ...], least: float) -> None:
    held, naive = coverage(rates, MIDDLE, languages=6, repeats=150)
    assert least <= held <= 0.99
    assert naive < 0.6, "the simulation must be one where ignoring clusters fails"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rates", "spreads", "languages", "least"),
    [
        ((0.4,), NONE, 1, 0.95),
        ((0.02,), NONE, 1, 0.95),
        ((0.02,), MIDDLE, 1, 0.95),
        ((0.02,), MIDDLE, 6, 0.91),
        ((0.02,), LARGE, 6, 0.87),
        ((0.4,), MIDDLE, 1, 0.93),
        ((0.4,), MIDDLE, 6, 0.93),
        ((0.4,), LARGE, 6, 0.93),
        ((0.95,), MIDDLE, 6, 0.92),
        ((0.6, 0.4), MIDDLE, 6, 0.93),
        ((0.6, 0.4), LARGE, 6, 0.93),
        ((0.05, 0.02), MIDDLE, 6, 0.93),
        ((0.9, 0.02), MIDDLE, 6, 0.91),
        ((0.99, 0.97), MIDDLE, 6, 0.95),
    ],
)
def test_coverage_of_crossed_clusters(rates: tuple[float, ...], spreads: Spreads, languages: int, least: float) -> None:
    held, _ = coverage(rates, spreads, languages=languages, repeats=1000)
    assert least <= held


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(0.05,), (0.4,), (0.5, 0.3)])
def test_coverage_of_few_actions_and_objects(rates: tuple[float, ...]) -> None:
    held, _ = coverage(rates, MIDDLE, size=(8, 12, 60), repeats=1000)
    assert held >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("actions", [8, 40])
@pytest.mark.parametrize("rates", [(0.05,), (0.4,), (0.95,), (0.5, 0.3), (0.05, 0.02)])
def test_coverage_of_one_column(rates: tuple[float, ...], actions: int) -> None:
    held, naive = coverage(rates, (1.0, 0.0, 0.5), size=(actions, 64, 160), languages=2, columns=1, repeats=1000)
    assert held >= 0.93
    assert rates != (0.4,) or naive < 0.85, "the simulation must be one where ignoring clusters fails"


@pytest.mark.slow
def test_one_column_of_two_is_not_enough() -> None:
    spreads = (0.3, 2.0, 0.5)
    one, both = (coverage((0.4,), spreads, languages=6, columns=columns, repeats=500)[0] for columns in (1, 2))
    assert one < 0.9
    assert both > 0.92
