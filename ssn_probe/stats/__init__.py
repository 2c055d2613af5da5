"""How sure a figure is: intervals, paired differences, the rank among random controls, and the gate of a
read-out.

Pure functions over numpy arrays; every draw comes from a seed that the caller passes. None means "not
measured: no data". scipy does the arithmetic and is imported inside the functions, so that this package costs
a command line nothing.
"""

from ssn_probe.stats.controls import (
    MINIMUM_CONTROLS,
    ControlTest,
    rank_test,
    smallest_detectable,
    smallest_p,
)
from ssn_probe.stats.estimates import language_average, paired_difference, rate
from ssn_probe.stats.intervals import Estimate, newcombe, wilson
from ssn_probe.stats.separation import Gate, auroc, gate

__all__ = [
    "MINIMUM_CONTROLS",
    "ControlTest",
    "Estimate",
    "Gate",
    "auroc",
    "gate",
    "language_average",
    "newcombe",
    "paired_difference",
    "rank_test",
    "rate",
    "smallest_detectable",
    "smallest_p",
    "wilson",
]
