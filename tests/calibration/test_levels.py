"""Every p and every interval that the tool prints, where nothing is to be found: does it err as seldom as it says?

`make test` makes few studies of each kind, which find a gross error; `make calibrate` makes hundreds, and prints how
often each figure erred (docs/calibration.md).
"""

from collections import Counter
from collections.abc import Callable

import pytest
from null_simulations import SIMULATIONS, Simulation
from scipy.stats import binom

SURE = 0.999
"""A figure that errs as often as promised passes with this probability; seeds are fixed, so it always does or never."""


def count_errors(simulation: Simulation, studies: int) -> tuple[Counter[str], Counter[str]]:
    """Per figure: in how many studies it was given, and in how many it erred."""
    given: Counter[str] = Counter()
    erred: Counter[str] = Counter()
    for seed in range(studies):
        for figure, error in simulation.study(seed).items():
            given[figure] += 1
            erred[figure] += bool(error)
    return given, erred


def too_many(given: Counter[str], erred: Counter[str], allowed: float) -> dict[str, tuple[int, int]]:
    return {name: (erred[name], n) for name, n in given.items() if erred[name] > binom.ppf(SURE, n, allowed)}


@pytest.mark.parametrize("name", SIMULATIONS)
def test_few_studies_err_no_more_than_promised(name: str) -> None:
    simulation = SIMULATIONS[name]
    given, erred = count_errors(simulation, simulation.short)
    assert not too_many(given, erred, simulation.allowed)


@pytest.mark.slow
@pytest.mark.calibration
@pytest.mark.parametrize("name", SIMULATIONS)
def test_many_studies_err_no_more_than_promised(name: str, record_property: Callable[[str, object], None]) -> None:
    simulation = SIMULATIONS[name]
    given, erred = count_errors(simulation, simulation.long)
    for figure, n in given.items():
        record_property(f"{name}: {figure}", f"{erred[figure]} of {n}")
    assert not too_many(given, erred, simulation.allowed)
    assert any(erred.values()), "what never errs, however often it is tried, is not at its level"


@pytest.mark.parametrize("name", SIMULATIONS)
def test_three_times_the_level_would_be_found_out(name: str) -> None:
    """An error in .15 of the studies does not pass as many as `make calibrate` makes."""
    n = SIMULATIONS[name].long
    assert binom.cdf(binom.ppf(SURE, n, SIMULATIONS[name].allowed), n, 0.15) < 0.01
