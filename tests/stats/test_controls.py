"""The rank test and its interval keep their promised error; the detectable difference keeps its power, exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, t

from ssn_probe.stats import MINIMUM_CONTROLS, ControlTest, newcombe, rank_test, smallest_detectable, smallest_p


def test_every_rank_has_its_p() -> None:
    """Each of 20 exchangeable figures in turn is the observed one: p is uniform on 1/20 … 20/20."""
    figures = np.random.default_rng(0).permutation(20) / 20
    others = [np.delete(figures, i) for i in range(20)]
    from_below = np.argsort(np.argsort(figures)) + 1
    high = [rank_test(x, rest).p for x, rest in zip(figures, others, strict=True)]
    low = [rank_test(x, rest, alternative="less").p for x, rest in zip(figures, others, strict=True)]
    assert high == pytest.approx(list((21 - from_below) / 20))
    assert low == pytest.approx(list(from_below / 20))


def test_ties_count_against_the_set_whatever_the_order_of_summation() -> None:
    assert rank_test(0.5, [0.5] * 19).p == 1.0
    assert rank_test(0.5, [0.5] * 2 + [0.1] * 18).p == pytest.approx(3 / 21)
    forwards, backwards = (0.1 + 0.2 + 0.3) / 3, (0.3 + 0.2 + 0.1) / 3  # `sum` rounds once only, from Python 3.12 on
    assert forwards != backwards, "the case must be one where the last bit differs"
    for observed, other in ((forwards, backwards), (backwards, forwards)):
        assert rank_test(observed, [other] + [0.0] * 18).p == pytest.approx(2 / 20)
        assert rank_test(observed, [other] + [1.0] * 18, alternative="less").p == pytest.approx(2 / 20)


@pytest.mark.slow
@pytest.mark.parametrize("m", [3, 20])
def test_the_interval_holds_the_next_random_set(m: int) -> None:
    rng, repeats = np.random.default_rng(2), 4000
    tests = [rank_test(x[0], x[1:]) for x in rng.normal(0.3, 0.05, (repeats, m + 1))]
    low, observed, high = np.array([(test.low, test.observed, test.high) for test in tests], dtype=float).T
    outside = np.mean((observed < low) | (observed > high))
    assert outside == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / repeats))


def test_the_interval_by_hand() -> None:
    test = rank_test(0.9, [0.2, 0.3, 0.4, 0.3])
    reach = t(3).ppf(0.975) * np.std([0.2, 0.3, 0.4, 0.3], ddof=1) * np.sqrt(1.25)
    assert (test.control_mean, test.low, test.high) == pytest.approx((0.3, 0.3 - reach, 0.3 + reach))


def test_under_nineteen_controls_there_is_no_p() -> None:
    test = rank_test(0.9, np.linspace(0, 0.5, 18))
    assert (test.p, test.too_few, test.m) == (None, True, 18)
    assert test.note == "too few controls for a test (18 of at least 19)"
    enough = rank_test(0.9, np.linspace(0, 0.5, 19))
    assert (enough.p, enough.too_few, enough.note) == (pytest.approx(0.05), False, None)


def test_one_control_and_none() -> None:
    for controls, mean in (([0.2], 0.2), ([], None)):
        assert rank_test(0.9, controls) == ControlTest(
            p=None, m=len(controls), observed=0.9, control_mean=mean, low=None, high=None, too_few=True
        )


def test_what_is_no_control_is_refused() -> None:
    for observed, controls in ((0.5, [0.1, float("nan")]), (float("nan"), [0.1]), (0.5, [[0.1, 0.2]])):
        with pytest.raises(ValueError, match="finite"):
            rank_test(observed, controls)
    with pytest.raises(ValueError, match="alternative"):
        rank_test(0.5, [0.1], alternative="two-sided")  # pyright: ignore[reportArgumentType]


def test_smallest_p() -> None:
    assert [round(smallest_p(m), 3) for m in (5, 20, 99)] == [0.167, 0.048, 0.01]
    assert smallest_p(MINIMUM_CONTROLS) <= 0.05 < smallest_p(MINIMUM_CONTROLS - 1)
    with pytest.raises(ValueError, match="negative"):
        smallest_p(-1)


def exact_power(n: int, baseline: float, rise: float) -> float:
    """Power of the exact McNemar test with independent arms, by enumeration of the discordant pairs."""
    arm = baseline + rise
    gained, lost = arm * (1 - baseline), baseline * (1 - arm)
    power = 0.0
    for discordant in range(n + 1):
        k = np.arange(discordant + 1)
        p = 2 * np.minimum(binom.cdf(k, discordant, 0.5), binom.sf(k - 1, discordant, 0.5))
        shares = binom.pmf(k, discordant, gained / (gained + lost))
        power += binom.pmf(discordant, n, gained + lost) * shares[p <= 0.05].sum()
    return power


@pytest.mark.parametrize("baseline", [0.0, 0.02, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("n", [20, 50, 150])
def test_a_detectable_rise_is_detected_and_a_smaller_one_is_not(n: int, baseline: float) -> None:
    rise = smallest_detectable(n, baseline)
    assert rise is not None
    assert exact_power(n, baseline, rise) >= 0.8
    assert exact_power(n, baseline, 0.7 * rise) < 0.8, "conservative, but no more than it must be"


@pytest.mark.slow
@pytest.mark.parametrize("agreement", [0.0, 0.6])
def test_a_detectable_rise_shows_in_newcombes_interval(agreement: float) -> None:
    """Simulated: also where the arms agree more than independence would have it."""
    rng, n, baseline, repeats, seen = np.random.default_rng(6), 80, 0.2, 600, 0
    rise = smallest_detectable(n, baseline)
    assert rise is not None
    for _ in range(repeats):
        chance = rng.random(n)
        other = np.where(rng.random(n) < agreement, chance, rng.random(n))
        arm, before = chance < baseline + rise, other < baseline
        cells = (arm & before, arm & ~before, ~arm & before, ~arm & ~before)
        seen += newcombe(*(int(cell.sum()) for cell in cells))[0] > 0
    assert seen / repeats >= 0.8


@given(st.integers(1, 400), st.floats(0, 1))
def test_more_prompts_show_smaller_rises(n: int, baseline: float) -> None:
    few, many = smallest_detectable(n, baseline), smallest_detectable(2 * n, baseline)
    if few is not None:
        assert many is not None
        assert 0 < many < few <= 1 - baseline


def test_a_hopeless_sample_shows_nothing() -> None:
    assert smallest_detectable(5, 0.0) is None
    assert smallest_detectable(50, 1.0) is None
    usual, surer, stricter = (smallest_detectable(200, 0.5, **more) for more in ({}, {"power": 0.9}, {"alpha": 0.01}))
    assert usual < min(surer, stricter)  # type: ignore[operator]


@pytest.mark.parametrize("design", [(0, 0.5, 0.8, 0.05), (10, 1.1, 0.8, 0.05), (10, 0.5, 1, 0.05), (10, 0.5, 0.8, 0)])
def test_an_impossible_design_is_refused(design: tuple[int, float, float, float]) -> None:
    n, baseline, power, alpha = design
    with pytest.raises(ValueError, match="no such design"):
        smallest_detectable(n, baseline, power=power, alpha=alpha)
