"""How certain a figure is: intervals, paired differences and tests, the rank among random controls, a rank correlation,
and the gate of a read-out.

Pure functions over numpy arrays; every draw comes from a seed that the caller passes. None means "not measured: no
data". scipy does the arithmetic and is imported inside the functions, so that the command line starts quickly.
"""

from ssn_probe.stats.controls import (
    MINIMUM_CONTROLS,
    ControlTest,
    rank_test,
    smallest_detectable,
    smallest_p,
)
from ssn_probe.stats.correlation import RankCorrelation, rank_correlation
from ssn_probe.stats.estimates import language_average, paired_difference, rate
from ssn_probe.stats.intervals import Estimate, newcombe, wilson
from ssn_probe.stats.paired import detectable, fewest_discordant, holm, mcnemar
from ssn_probe.stats.separation import Gate, auroc, gate

__all__ = [
    "MINIMUM_CONTROLS",
    "ControlTest",
    "Estimate",
    "Gate",
    "RankCorrelation",
    "auroc",
    "detectable",
    "fewest_discordant",
    "gate",
    "holm",
    "language_average",
    "mcnemar",
    "newcombe",
    "paired_difference",
    "rank_correlation",
    "rank_test",
    "rate",
    "smallest_detectable",
    "smallest_p",
    "wilson",
]
