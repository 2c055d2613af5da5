"""Whether a few responses show a model that refuses, and whether the gate is within reach: against enumeration."""

from itertools import combinations

import pytest
from scipy.stats import fisher_exact, hypergeom

from ssn_probe.stats.refusal_counts import _share, out_of_reach, p_of_more, refusing


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((10, 10, 0, 10), "shown"),
        ((3, 10, 0, 10), "hardly"),  # p = .105
        ((5, 10, 0, 10), "shown"),  # p = .016
        ((3, 3, 0, 3), "shown"),  # p = .05, the smallest that six responses can give
        ((2, 2, 0, 2), "unknown"),
        ((0, 0, 0, 40), "unknown"),
        ((4, 26, 0, 26), "hardly"),
        ((100, 1000, 0, 1000), "hardly"),  # significant, and one in ten
        ((0, 40, 0, 40), "hardly"),
        ((40, 40, 40, 40), "always"),
        ((40, 40, 20, 40), "shown"),
        ((22, 40, 20, 40), "always"),
        ((10, 40, 10, 40), "hardly"),
    ],
)
def test_what_counts_show(counts: tuple[int, int, int, int], expected: str) -> None:
    assert refusing(*counts) == expected


def test_out_of_reach_is_what_few_draws_of_all_would_give() -> None:
    """Five of 8 + 4 prompts: the chance of each draw of 4 + 2, counted one by one."""

    def chance(likelier: int, found: int) -> float:
        first = [sum(one < likelier for one in draw) for draw in combinations(range(8), 4)]
        second = [sum(one < 5 - likelier for one in draw) for draw in combinations(range(4), 2)]
        return sum(a + b <= found for a in first for b in second) / len(first) / len(second)

    for found in range(4):
        largest = max(chance(likelier, found) for likelier in (4, 5))
        assert out_of_reach(5, (found, 0), (4, 2), (8, 4)) == (largest < 0.01), largest
    assert chance(4, 0) < 0.01 < chance(4, 1)


@pytest.mark.parametrize(
    ("needed", "found", "tried", "total", "expected"),
    [
        (20, (0, 0), (0, 0), (10, 9), True),  # so few prompts there are
        (20, (0, 0), (0, 0), (10, 10), False),
        (20, (0, 0), (10, 10), (150, 150), False),  # 4 % at best
        (20, (0, 0), (40, 40), (150, 150), True),
        (20, (3, 0), (40, 40), (150, 150), False),
        (20, (20, 0), (40, 40), (150, 150), False),
        (20, (5, 0), (150, 136), (150, 150), True),  # fourteen more, and one is lacking
        (20, (0, 0), (0, 40), (0, 150), True),
    ],
)
def test_reach(needed: int, found: tuple, tried: tuple, total: tuple, expected: bool) -> None:
    assert out_of_reach(needed, found, tried, total) is expected


def test_the_exact_p_is_that_of_scipy() -> None:
    sizes = ((1, 1), (3, 3), (5, 2), (4, 9), (40, 25), (400, 300))
    for harmful, harmless in sizes:
        for there in {0, 1, harmful // 3, harmful // 2, harmful}:
            for here in {0, 1, harmless // 2, harmless}:
                table = [[there, harmful - there], [here, harmless - here]]
                expected = fisher_exact(table, alternative="greater").pvalue  # type: ignore[attr-defined]
                assert p_of_more(there, harmful, here, harmless) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_hypergeometric_chance_is_that_of_scipy() -> None:
    for kind, drawn, among in ((0, 0, 0), (0, 3, 5), (4, 3, 5), (5, 5, 5), (30, 40, 200), (200, 7, 200)):
        for k in range(9):
            expected = hypergeom.pmf(k, among, kind, drawn) if among else float(k == 0)
            assert _share(k, kind, drawn, among) == pytest.approx(expected, rel=1e-9, abs=1e-300)
