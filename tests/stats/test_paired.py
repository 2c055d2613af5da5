"""McNemar, Holm and the change that would have shown, against scipy, manuals and figures worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ssn_probe.stats import Estimate, detectable, fewest_discordant, holm, mcnemar, paired_difference


def pairs(both: int, gained: int, lost: int, neither: int) -> tuple[list[int], list[int]]:
    """Outcomes of the arm and of the baseline with so many pairs of each kind."""
    arm = [1] * both + [1] * gained + [0] * lost + [0] * neither
    return arm, [1] * both + [0] * gained + [1] * lost + [0] * neither


def test_mcnemar_in_statas_manual() -> None:
    """`mcci 8 8 3 8` in the Stata manual (Epitab): exact McNemar significance probability .2266."""
    assert mcnemar(*pairs(8, 8, 3, 8)) == pytest.approx(0.2266, abs=5e-5)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_mcnemar_is_the_binomial_of_the_discordant_pairs(gained: int, lost: int, agreeing: int) -> None:
    if not gained + lost + agreeing:
        return
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(*pairs(agreeing, gained, lost, agreeing)) == pytest.approx(expected)
    assert mcnemar(*pairs(0, gained, lost, agreeing)) == pytest.approx(mcnemar(*pairs(agreeing, lost, gained, 0)))


def test_mcnemar_without_change_and_without_prompts() -> None:
    assert mcnemar([1, 0, 0], [1, 0, 0]) == 1.0
    assert mcnemar([], []) is None
    assert mcnemar([True] * 6, [False] * 6) == pytest.approx(2 / 64)


def test_mcnemar_refuses_what_is_no_pair_of_outcomes() -> None:
    with pytest.raises(ValueError, match="the same prompts"):
        mcnemar([1, 0], [1])
    for values in ([0.5, 1.0], [float("nan"), 1.0], [[1.0, 0.0]]):
        with pytest.raises(ValueError, match="0 and 1"):
            mcnemar(values, [1, 0])


def test_the_fewest_discordant_pairs_are_the_fewest() -> None:
    assert [fewest_discordant(alpha) for alpha in (0.05, 0.05 / 6, 0.5, 2**-5)] == [6, 8, 2, 6]
    for alpha in (0.05, 0.01, 0.001):
        enough = fewest_discordant(alpha)
        below = mcnemar([1] * (enough - 1), [0] * (enough - 1))
        assert below is not None
        assert mcnemar([1] * enough, [0] * enough) == pytest.approx(2 * 0.5**enough)
        assert 2 * 0.5**enough <= alpha < below
    with pytest.raises(ValueError, match="alpha"):
        fewest_discordant(0)


def test_holm_by_hand() -> None:
    """R: p.adjust(c(.01, .04, .03, .005), "holm") is .03 .06 .06 .02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.6, 0.9]) == pytest.approx([1.0, 1.0, 1.0])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])


def test_what_was_not_tested_is_in_no_family() -> None:
    assert holm([None, 0.02, None, 0.03]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)]
    assert holm([]) == []
    assert holm([None]) == [None]
    for bad in (1.2, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([0.1, bad])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_is_between_alone_and_bonferroni_and_follows_its_figures(ps: list[float], random) -> None:
    adjusted = holm(list(ps))
    for p, found in zip(ps, adjusted, strict=True):
        assert found is not None
        assert p <= found <= min(1, len(ps) * p) + 1e-12
    order = list(range(len(ps)))
    random.shuffle(order)
    assert holm([ps[place] for place in order]) == [adjusted[place] for place in order]


def test_the_detectable_change_is_2_8_standard_errors() -> None:
    half = 1.959964 * 0.03
    found = Estimate(value=0.4, low=0.4 - half, high=0.4 + half, n=80, clusters=80, method="newcombe")
    assert detectable(found) == pytest.approx(2.80158 * 0.03, rel=1e-5)
    surer, stricter = detectable(found, power=0.9), detectable(found, alpha=0.01)
    assert surer == pytest.approx((1.959964 + 1.281552) * 0.03, rel=1e-5)
    assert stricter == pytest.approx((2.575829 + 0.841621) * 0.03, rel=1e-5)


def test_it_does_not_depend_on_what_was_found() -> None:
    here, there = (Estimate(value=v, low=v - 0.1, high=v + 0.1, n=9, clusters=9, method="newcombe") for v in (0.0, 0.7))
    assert detectable(here) == pytest.approx(detectable(there))


def test_a_spread_that_is_unknown_shows_nothing() -> None:
    assert detectable(Estimate(value=1.0, low=1.0, high=1.0, n=4, clusters=4, method="degenerate bootstrap")) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        detectable(Estimate(value=0.0, low=-0.1, high=0.1, n=9, clusters=9, method="newcombe"), power=1.0)


@pytest.mark.slow
def test_a_change_of_that_size_shows_in_four_of_five_studies() -> None:
    """One study fixes the figure; in studies with that true rise and that much discordance .8 of intervals clear 0."""
    rng, n, repeats, gained, lost = np.random.default_rng(8), 150, 600, 0.25, 0.15
    kinds = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    kind = np.repeat([0, 1, 2, 3], [int(n * gained), int(n * lost), 40, n - 40 - int(n * gained) - int(n * lost)])
    study = paired_difference(kinds[kind, 0], kinds[kind, 1], np.arange(n))
    assert study is not None
    rise = detectable(study)
    assert rise is not None
    up = (gained + lost + rise) / 2
    seen = 0
    for _ in range(repeats):
        kind = rng.choice(4, size=n, p=[up, gained + lost - up, 0.3, 0.3])
        again = paired_difference(kinds[kind, 0], kinds[kind, 1], np.arange(n))
        assert again is not None
        seen += again.low > 0
    assert seen / repeats == pytest.approx(0.8, abs=0.06)
