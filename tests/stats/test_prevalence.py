"""Rogan–Gladen: by hand, at its ends, and how often the interval holds the truth."""

import numpy as np
import pytest

from ssn_probe.stats.prevalence import rogan_gladen


def test_by_hand() -> None:
    """(.34 + .9 − 1) / (.9 + .9 − 1) = .3."""
    found = rogan_gladen(0.34, 100, (90, 100), (90, 100))
    assert found.value == pytest.approx(0.3)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.3 < found.high
    wider = rogan_gladen(0.34, 100, (9, 10), (9, 10))
    assert (wider.low or 0) < found.low < found.high < (wider.high or 1)


def test_its_ends() -> None:
    assert rogan_gladen(0.02, 100, (90, 100), (90, 100)).clipped
    assert "chance" in rogan_gladen(0.5, 100, (5, 10), (5, 10)).why
    assert "labelled" in rogan_gladen(0.5, 100, (0, 0), (5, 10)).why


@pytest.mark.slow
@pytest.mark.parametrize(
    ("true", "n", "right", "wrong", "labels"),
    [(0.3, 100, 0.9, 0.9, 100), (0.05, 200, 0.95, 0.9, 50), (0.5, 60, 0.8, 0.85, 60), (0.95, 150, 0.9, 0.95, 100)],
)
def test_the_interval_holds_the_truth(true: float, n: int, right: float, wrong: float, labels: int) -> None:
    rng, held, tried = np.random.default_rng(1), 0, 2000
    for _ in range(tried):
        called = rng.binomial(n, true * right + (1 - true) * (1 - wrong)) / n
        sides = [(int(rng.binomial(labels, rate)), labels) for rate in (right, wrong)]
        found = rogan_gladen(called, n, sides[0], sides[1])
        held += found.low is not None and found.high is not None and found.low <= true <= found.high
    assert 0.93 <= held / tried <= 0.985
