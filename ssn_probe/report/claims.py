"""Every claim that a run could support, with its verdict. Whatever else says that something is shown says it from here.

One claim per question that the recipe asks, the primary one first. A claim that is not shown is not refuted: its
interval says how much there may be.
"""

from ssn_probe.report.claim import Claim
from ssn_probe.report.claims_of_arms import dissociation_claims, primary_claims, training_claims, transfer_claims
from ssn_probe.report.claims_of_sets import found_again_claims, overlap_claims, sharing_claims
from ssn_probe.report.finished import FinishedRun

MAKERS = (
    primary_claims,
    dissociation_claims,
    training_claims,
    transfer_claims,
    sharing_claims,
    overlap_claims,
    found_again_claims,
)
"""In the order of the claims."""


def claims(run: FinishedRun) -> list[Claim]:
    """The claims of a run, from its recipe and tables."""
    found = (claim for make in MAKERS for claim in make(run.recipe, run.findings))
    return list(dict.fromkeys(found))  # doses of one set give one claim about the set
