"""Figures over models: exact shares, and means with Student's interval."""

import pytest
from scipy import stats

from ssn_probe.stats.over_models import mean_over_models, share_of_models


def test_share_is_the_interval_of_the_textbook() -> None:
    """Clopper and Pearson by beta quantiles, and the closed form at the ends: 1 - (α/2)^(1/n)."""
    found = share_of_models([True] * 3 + [False] * 7)
    assert (found.value, found.n) == (0.3, 10)
    assert found.low == pytest.approx(stats.beta.ppf(0.025, 3, 8))
    assert found.high == pytest.approx(stats.beta.ppf(0.975, 4, 7))
    none = share_of_models([False] * 12)
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 12)))
    assert share_of_models([True]).low == pytest.approx(0.025)


def test_mean_has_the_interval_of_the_one_sample_t_test() -> None:
    values = [0.10, -0.05, 0.20, 0.02, 0.07]
    found = mean_over_models(values)
    assert found is not None
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.value, found.low, found.high) == pytest.approx((sum(values) / 5, low, high))
    assert mean_over_models([0.1]) is None
