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


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_mcnemar_is_the_binomial_of_the_discordant_pairs(gained: int, lost: int, agreeing: int) -> None:
    if not gained + lost + agreeing:
        return
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(*pairs(agreeing, gained, lost, agreeing)) == pytest.approx(expected)
    assert mcnemar(*pairs(0, gained, lost, agreeing)) == pytest.approx(mcnemar(*pairs(agreeing, lost, gained, 0)))


def test_mcnemar_without_prompts_is_none_and_refuses_what_is_no_pair_of_outcomes() -> None:
    assert mcnemar([], []) is None
    assert mcnemar([True] * 6, [False] * 6) == pytest.approx(2 / 64)
    with pytest.raises(ValueError, match="the same prompts"):
        mcnemar([1, 0], [1])
    for values in ([0.5, 1.0], [float("nan"), 1.0], [[1.0, 0.0]]):
        with pytest.raises(ValueError, match="0 and 1"):
            mcnemar(values, [1, 0])


def test_the_fewest_discordant_pairs_are_the_fewest() -> None:
    assert [fewest_discordant(alpha) for alpha in (0.05, 0.05 / 6, 0.5, 2**-5)] == [6, 8, 2, 6]
    for alpha in (0.05, 0.01, 0.001):
        enough = fewest_discordant(alpha)
        below, reached = (mcnemar([1] * n, [0] * n) for n in (enough - 1, enough))
        assert reached <= alpha < below  # type: ignore[operator]
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


def change(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=80, clusters=80, method="newcombe")


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_the_detectable_change_is_2_8_standard_errors_whatever_was_found(value: float) -> None:
    found = change(value, 1.959964 * 0.03)
    assert detectable(found) == pytest.approx(2.80158 * 0.03, rel=1e-5)
    assert detectable(found, power=0.9) == pytest.approx((1.959964 + 1.281552) * 0.03, rel=1e-5)
    assert detectable(found, alpha=0.01) == pytest.approx((2.575829 + 0.841621) * 0.03, rel=1e-5)
    assert detectable(change(value, 0.0)) is None, "the spread is unknown"
    with pytest.raises(ValueError, match="between 0 and 1"):
        detectable(found, power=1.0)


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
        seen += paired_difference(kinds[kind, 0], kinds[kind, 1], np.arange(n)).low > 0  # type: ignore[union-attr]
    assert seen / repeats == pytest.approx(0.8, abs=0.06)
