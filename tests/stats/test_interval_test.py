"""The p of an interval agrees with the interval, and with the test that is known for a normal one."""

import numpy as np
import pytest
from scipy.stats import norm

from ssn_probe.stats import Estimate, paired_difference
from ssn_probe.stats.interval_test import LEAST, interval_p


def normal(value: float, error: float = 1.0):
    def estimate(confidence: float) -> Estimate:
        reach = error * norm.ppf((1 + confidence) / 2)
        return Estimate(value=value, low=value - reach, high=value + reach, n=9, clusters=9, method="normal")

    return estimate


@pytest.mark.parametrize("value", [-3.0, -1.96, 0.4, 1.0, 2.5])
def test_of_a_normal_interval_it_is_the_p_of_z(value: float) -> None:
    assert interval_p(normal(value)) == pytest.approx(2 * norm.sf(abs(value)), rel=1e-3)


def test_at_the_ends() -> None:
    assert interval_p(normal(0.0)) == 1.0
    assert interval_p(normal(9.0)) == LEAST
    assert interval_p(normal(1.0, error=0.0)) is None


def test_it_is_at_most_05_where_the_interval_leaves_out_zero() -> None:
    rng, seen = np.random.default_rng(3), set()
    for shift in np.linspace(0, 0.4, 25):
        arm, base = rng.random((2, 60)) < np.array([[0.3 + shift], [0.3]])

        def estimate(confidence: float, arm=arm, base=base) -> Estimate:
            found = paired_difference(arm, base, np.arange(60), confidence=confidence)
            assert found is not None
            return found

        found, p = estimate(0.95), interval_p(estimate)
        assert p is not None
        assert (p <= 0.05) == (found.low > 0 or found.high < 0)
        seen.add(p <= 0.05)
    assert seen == {True, False}


def test_it_holds_its_level() -> None:
    """Two arms that do the same to 60 prompts, half of which they agree on: .05, within three standard errors."""
    rng, repeats = np.random.default_rng(4), 200
    found = 0
    for _ in range(repeats):
        shared, own = rng.random(60) < 0.4, rng.random((2, 60)) < 0.4
        arms = np.where(rng.random(60) < 0.5, shared, own)

        def estimate(confidence: float, arms=arms) -> Estimate:
            made = paired_difference(arms[0], arms[1], np.arange(60), confidence=confidence)
            assert made is not None
            return made

        p = interval_p(estimate)
        found += p is not None and p <= 0.05
    assert found / repeats <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
