"""Claims about sets alone: what languages share, and whether training leaves the neurons what they were."""

from collections.abc import Iterator
from typing import Any

from ssn_probe.report.claim import NOT_SHOWN, NOT_TESTABLE, SHOWN, Claim
from ssn_probe.report.comparisons_in_words import ALPHA, is_known
from ssn_probe.report.overlaps_in_words import tested_pairs
from ssn_probe.report.recipe_sets import distinct_sets, expression_of
from ssn_probe.report.sections.set_reliability import or_else, size_tests
from ssn_probe.spec import Recipe
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.study.findings import Findings
from ssn_probe.text import capitalised, counted, p_equals, plain, signed

NO_DIFFERENCE = "than if harmful and harmless did not differ"


def sharing_claims(recipe: Recipe, findings: Findings) -> Iterator[Claim]:
    """Would as much be shared with the anchor under exchanged labels? On the average over languages."""
    robustness = findings.robustness
    shared = [name for name in distinct_sets(recipe) if shared_with_anchor(expression_of(recipe, name))]
    for found in robustness.exchangeability:
        why = found.not_parallel or (found.reason and f"no valid null exists: {found.reason}")
        for name in shared if why else ():
            if name in found.sets:
                yield Claim(claim=_sharing(name, shared), verdict=NOT_TESTABLE, why=str(why))
    for row in size_tests(robustness):
        if shared_with_anchor(expression_of(recipe, row["set"])) is not None:
            standing = next(one for one, others in distinct_sets(recipe).items() if row["set"] in (one, *others))
            yield _size_claim(_sharing(standing, shared), row, or_else(robustness.apart))


def _sharing(name: str, shared: list[str]) -> str:
    """Of several sets that are shared with an anchor, each goes by its name."""
    more = f"more is shared with the anchor {NO_DIFFERENCE}"
    return capitalised(more) if len(shared) == 1 else f"{plain(name)}: {more}"


def _size_claim(claim: str, row: dict[str, Any], caveat: str) -> Claim:
    ends = f"({signed(row['difference_low'], 1)} to {signed(row['difference_high'], 1)})"
    figures = f"{signed(row['difference'], 1)} neurons {ends}, {p_equals(row['p_holm'])} after Holm"
    if row["p_holm"] <= ALPHA and row["difference"] > 0:
        return Claim(claim=claim, verdict=SHOWN, figures=figures, why=caveat.removeprefix("; "))
    least = f"{row['shown_from']:.1f} neurons or more would have shown it" if is_known(row["shown_from"]) else ""
    return Claim(claim=claim, verdict=NOT_SHOWN, figures=figures, why=least)


def overlap_claims(recipe: Recipe, findings: Findings) -> Iterator[Claim]:
    """Do languages that choose on their own share more than under exchanged labels? Beside arms that is not asked."""
    if recipe.arms or findings.overlap is None:
        return
    for (name,), rows in findings.overlap.group_by("set", maintain_order=True):
        known, more = tested_pairs(rows)
        if known.is_empty():
            continue
        average, expected = known["shared"].mean(), known["expected_permuted"].mean()
        figures = f"{average:.1f} neurons on average, {expected:.1f} under exchanged labels"
        figures += f"; p ≤ .05 after Holm in {more:,} of {counted(known.height, 'pair')}"
        claim = f"{plain(str(name))}: some languages share more neurons {NO_DIFFERENCE}"
        yield Claim(claim=claim, verdict=SHOWN if more else NOT_SHOWN, figures=figures)


def found_again_claims(_recipe: Recipe, findings: Findings) -> Iterator[Claim]:
    """Are they still the same neurons after training?"""
    if findings.found_again is None:
        return
    for (name,), rows in findings.found_again.group_by("set", maintain_order=True):
        figures = f"{rows['kept'].sum():,} of {counted(int(rows['before'].sum()), 'neuron')}"
        why = f"chance gives about {rows['expected'].sum():.1f}, and neurons that are merely important would be, too"
        claim = f"{plain(str(name))}: training leaves the neurons the same"
        yield Claim(claim=claim, verdict=NOT_TESTABLE, figures=figures, why=why)
