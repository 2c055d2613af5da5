"""Cohen's kappa: against worked examples, and how often its interval holds the truth."""

import numpy as np
import pytest

from ssn_probe.stats.agreement import agreement
from ssn_probe.stats.intervals import wilson


def spread(table: dict[tuple[str, str], int]) -> tuple[list[str], list[str], list[str]]:
    pairs = [pair for pair, count in table.items() for _ in range(count)]
    return [one for one, _ in pairs], [other for _, other in pairs], [str(number) for number in range(len(pairs))]


def test_a_worked_example_with_two_verdicts() -> None:
    """20, 5, 10, 15 of 50: p_o = .7, p_e = .5 · .6 + .5 · .4 = .5, κ = .4."""
    found = agreement(*spread({("y", "y"): 20, ("y", "n"): 5, ("n", "y"): 10, ("n", "n"): 15}))
    assert (found.n, found.clusters, found.observed) == (50, 50, pytest.approx(0.7))
    assert found.kappa == pytest.approx(0.4)
    low, high = wilson(35, 50)
    assert (found.low, found.high) == (pytest.approx((low - 0.5) / 0.5), pytest.approx((high - 0.5) / 0.5))


def test_a_worked_example_with_three_verdicts() -> None:
    """140 of 200 the same: p_o = .7, p_e = .6 · .5 + .3 · .3 + .1 · .2 = .41, κ = .29 / .59."""
    counts = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    found = agreement(*spread({(str(i), str(j)): counts[i][j] for i in range(3) for j in range(3)}))
    assert (found.n, found.observed) == (200, pytest.approx(0.7))
    assert found.kappa == pytest.approx(0.29 / 0.59)


def test_agreement_throughout_has_an_interval_with_width() -> None:
    found = agreement(["r", "c"] * 10, ["r", "c"] * 10, list(map(str, range(20))))
    assert (found.kappa, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx((wilson(20, 20)[0] - 0.5) / 0.5)


def test_responses_to_one_prompt_count_once() -> None:
    first, second, _ = spread({("r", "r"): 30, ("r", "c"): 6, ("c", "c"): 24})
    alone = agreement(first, second, list(map(str, range(60))))
    clustered = agreement(first, second, [str(number // 3) for number in range(60)])
    assert clustered.kappa == alone.kappa
    assert clustered.clusters == 20
    assert clustered.low < alone.low < alone.high < clustered.high  # type: ignore[operator]


def test_the_interval_of_few_responses_ends_at_the_least_kappa() -> None:
    found = agreement(["a"] * 9 + ["b"], ["a"] * 9 + ["b"], [str(n) for n in range(10)])
    assert found.kappa == 1
    assert found.low is not None
    assert -1 <= found.low < 1
    found = agreement(["a"] * 9 + ["b"], ["a"] * 8 + ["b", "a"], [str(n) for n in range(10)])
    assert found.low == -1


def test_where_kappa_is_not_defined() -> None:
    assert agreement([], [], []).kappa is None
    one = agreement(["r"] * 5, ["r"] * 5, list("abcde"))
    assert (one.kappa, one.observed, one.n) == (None, 1.0, 5)
    with pytest.raises(ValueError, match="one verdict of each judge"):
        agreement(["r"], [], [])


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "n"), [(0.05, 60), (0.2, 60), (0.2, 200), (0.4, 100)])
def test_the_interval_holds_the_true_kappa(noise: float, n: int) -> None:
    """Two judges that each err independently at random; nominal 95 %."""
    rng = np.random.default_rng(5)
    share, verdicts = 0.4, ("r", "c")
    same = (1 - noise) ** 2 + noise**2
    rate = share * (1 - noise) + (1 - share) * noise
    chance = rate**2 + (1 - rate) ** 2
    true, held, tried = (same - chance) / (1 - chance), 0, 1000
    for _ in range(tried):
        truth = rng.random(n) < share
        sides = [[verdicts[int(value)] for value in truth ^ (rng.random(n) < noise)] for _ in range(2)]
        found = agreement(sides[0], sides[1], list(map(str, range(n))))
        held += found.low is not None and found.high is not None and found.low <= true <= found.high
    assert 0.92 <= held / tried <= 0.99
