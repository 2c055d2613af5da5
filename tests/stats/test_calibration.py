"""Where nothing is the matter, how often is something found? Each test and interval under a simulated null."""

import numpy as np
import pytest

from ssn_probe.stats import holm, language_average, rank_correlation

pytestmark = pytest.mark.slow
LEVEL = 0.05


def error(repeats: int, rate: float = LEVEL) -> float:
    """Three standard errors of a simulated rate."""
    return 3 * np.sqrt(rate * (1 - rate) / repeats)


def test_holm_holds_its_level_to_the_full_with_exact_ps() -> None:
    """Independent uniform p: of six true nulls .05 families have a rejection; of three beside three false ones, too."""
    rng, repeats = np.random.default_rng(22), 4000
    null = rng.random((repeats, 6))
    every = np.mean([min(p for p in holm(list(row)) if p is not None) <= LEVEL for row in null])
    assert every == pytest.approx(1 - (1 - LEVEL / 6) ** 6, abs=error(repeats))
    false = np.concatenate([rng.random((repeats, 3)), np.full((repeats, 3), 1e-9)], axis=1)
    some = np.mean([any(p is not None and p <= LEVEL for p in holm(list(row))[:3]) for row in false])
    assert some == pytest.approx(1 - (1 - LEVEL / 3) ** 3, abs=error(repeats))


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
    for _ in range(repeats):
        prompt, own = rng.normal(size=40), rng.normal(size=(6, 40))
        before = level + prompt + own > 0
        after = level + rise + prompt + np.where(rng.random((6, 40)) < 0.5, own, rng.normal(size=(6, 40))) > 0
        values, baseline = (after, before.ravel()) if paired else (before, None)
        found = language_average(values.ravel(), clusters, languages, baseline=baseline)
        assert found is not None
        assert found.method == "clusters"
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / repeats <= 0.985


def _expected(level: np.ndarray, rise: float) -> float:
    """The mean rate over languages, or the mean rise of it: prompt and own noise add up to variance 2."""
    from scipy.special import ndtr

    rate = ndtr(level / np.sqrt(2))
    return float((ndtr((level + rise) / np.sqrt(2)) - rate).mean() if rise else rate.mean())
