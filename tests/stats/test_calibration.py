"""Where nothing is the matter, how often is something found? Each test and interval under a simulated null."""

from math import comb

import numpy as np
import pytest

from ssn_probe.stats import holm, language_average, mcnemar, newcombe, rank_correlation, rank_test

pytestmark = pytest.mark.slow
LEVEL = 0.05


def error(repeats: int, rate: float = LEVEL) -> float:
    """Three standard errors of a simulated rate."""
    return 3 * np.sqrt(rate * (1 - rate) / repeats)


@pytest.mark.parametrize(("n", "discordant"), [(30, 0.1), (60, 0.3), (200, 0.5)])
def test_mcnemar_is_exact_and_so_at_most_nominal(n: int, discordant: float) -> None:
    """Every number of changes and every split of them, with their probabilities: nothing is left to chance."""
    rejected = 0.0
    for changed in range(n + 1):
        weight = comb(n, changed) * discordant**changed * (1 - discordant) ** (n - changed)
        if weight < 1e-12:
            continue
        for gained in range(changed + 1):
            p = mcnemar(
                [1] * gained + [0] * (n - gained), [0] * gained + [1] * (changed - gained) + [0] * (n - changed)
            )
            assert p is not None
            rejected += weight * comb(changed, gained) * 0.5**changed * (p <= LEVEL)
    assert rejected <= LEVEL
    assert rejected > (0.025 if n * discordant > 15 else 0), "a test that never rejects is no test"


def test_mcnemar_and_holm_hold_the_family_of_six_languages() -> None:
    """The translations of a prompt agree across languages; any false rejection in the family counts."""
    rng, repeats, alone, family = np.random.default_rng(21), 1500, 0, 0
    for _ in range(repeats):
        prompt = rng.normal(size=60)
        outcomes = (rng.normal(size=(2, 6, 60)) + prompt > 0.3).astype(int)
        ps = [mcnemar(arm, before) for arm, before in zip(*outcomes, strict=True)]
        alone += sum(p is not None and p <= LEVEL for p in ps)
        family += any(p is not None and p <= LEVEL for p in holm(ps))
    assert family / repeats <= LEVEL + error(repeats)
    assert 0.02 <= alone / (6 * repeats) <= LEVEL + error(repeats)


def test_holm_holds_its_level_to_the_full_with_exact_ps() -> None:
    """Independent uniform p: of six true nulls .05 families have a rejection; of three beside three false ones, too."""
    rng, repeats = np.random.default_rng(22), 4000
    null = rng.random((repeats, 6))
    every = np.mean([min(p for p in holm(list(row)) if p is not None) <= LEVEL for row in null])
    assert every == pytest.approx(1 - (1 - LEVEL / 6) ** 6, abs=error(repeats))
    false = np.concatenate([rng.random((repeats, 3)), np.full((repeats, 3), 1e-9)], axis=1)
    some = np.mean([any(p is not None and p <= LEVEL for p in holm(list(row))[:3]) for row in false])
    assert some == pytest.approx(1 - (1 - LEVEL / 3) ** 3, abs=error(repeats))


def test_the_rank_test_is_nominal_with_correlated_languages() -> None:
    """The language average of 99 random sets and of one more: prompts that all sets share do no harm."""
    rng, repeats = np.random.default_rng(23), 2000
    shared = rng.normal(size=(repeats, 1))
    averages = shared + rng.normal(size=(repeats, 100, 6)).mean(axis=2)
    found = np.array([rank_test(row[0], row[1:]).p for row in averages], dtype=float)
    assert np.mean(found <= LEVEL) == pytest.approx(LEVEL, abs=error(repeats))
    lowered = np.array([rank_test(row[0], row[1:], alternative="less").p for row in averages], dtype=float)
    assert np.mean(lowered <= LEVEL) == pytest.approx(LEVEL, abs=error(repeats))


@pytest.mark.parametrize("tied", [False, True])
def test_the_correlation_of_unrelated_figures_is_rarely_called_one(tied: bool) -> None:
    """Six languages: p is a step function, and .033 is its largest step up to .05."""
    rng, repeats = np.random.default_rng(24), 2000
    found = []
    for _ in range(repeats):
        x = rng.integers(0, 4, 6) if tied else rng.normal(size=6)
        found.append(rank_correlation(x, rng.normal(size=6)).p)
    measured = [p for p in found if p is not None]
    rejected = np.mean(np.array(measured) <= LEVEL)
    assert len(measured) > 0.9 * repeats
    assert 0.02 <= rejected <= LEVEL + error(repeats)
    assert tied or rejected == pytest.approx(24 / 720, abs=error(repeats))


@pytest.mark.parametrize(("n", "rho"), [(6, 0.0), (6, 0.8), (20, 0.6)])
def test_bonett_and_wrights_interval_covers(n: int, rho: float) -> None:
    """Normal pairs with a known Spearman coefficient, 6/π·asin(r/2): .95 or a little more."""
    rng, repeats, covered, counted = np.random.default_rng(25), 600, 0, 0
    r = 2 * np.sin(np.pi * rho / 6)
    for _ in range(repeats):
        x, noise = rng.normal(size=(2, n))
        found = rank_correlation(x, r * x + np.sqrt(1 - r * r) * noise, draws=19)
        if found.low is not None and found.high is not None:
            counted += 1
            covered += found.low <= rho <= found.high
    assert counted > 0.9 * repeats, "a perfect agreement has no interval"
    assert 0.95 - error(counted) <= covered / counted <= 0.995


@pytest.mark.parametrize("paired", [False, True])
def test_the_language_average_covers_with_translations(paired: bool) -> None:
    """Six languages with rates of their own, 40 prompts whose translations agree: the interval holds the mean rate."""
    rng, repeats, covered = np.random.default_rng(26), 500, 0
    level, rise = np.linspace(-0.8, 0.8, 6)[:, None], 0.5
    clusters, languages = np.tile(np.arange(40), 6), np.repeat(np.arange(6), 40)
    truth = _expected(level.ravel(), rise) if paired else _expected(level.ravel(), 0.0)
    for repeat in range(repeats):
        prompt, own = rng.normal(size=40), rng.normal(size=(6, 40))
        before = level + prompt + own > 0
        after = level + rise + prompt + np.where(rng.random((6, 40)) < 0.5, own, rng.normal(size=(6, 40))) > 0
        values, baseline = (after, before.ravel()) if paired else (before, None)
        found = language_average(values.ravel(), clusters, languages, baseline=baseline, draws=300, seed=repeat)
        assert found is not None
        assert found.method == "cluster bootstrap"
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / repeats <= 0.985


def _expected(level: np.ndarray, rise: float) -> float:
    """The mean rate over languages, or the mean rise of it: prompt and own noise add up to variance 2."""
    from scipy.special import ndtr

    rate = ndtr(level / np.sqrt(2))
    return float((ndtr((level + rise) / np.sqrt(2)) - rate).mean() if rise else rate.mean())


def test_newcombe_rejects_no_more_than_nominal_under_no_effect() -> None:
    """Paired arms with the same rate and prompts that agree: 0 lies outside .05 of the intervals, or fewer."""
    rng, repeats, rejected = np.random.default_rng(27), 3000, 0
    for _ in range(repeats):
        prompt = rng.normal(size=50)
        arm, before = rng.normal(size=(2, 50)) + prompt > 0.8
        cells = (arm & before, arm & ~before, ~arm & before, ~arm & ~before)
        low, high = newcombe(*(int(cell.sum()) for cell in cells))
        rejected += not low <= 0 <= high
    assert 0.02 <= rejected / repeats <= LEVEL + error(repeats)
