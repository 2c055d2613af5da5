"""What may and what may not be concluded from a run, in plain words, each with the figures that support it."""

from collections.abc import Iterator

import polars as pl

from ssn_probe.report.comparisons_in_words import (
    ALPHA,
    QUESTIONS,
    figures_of,
    has_room,
    is_shown,
    p_of,
    primary_sets,
    question_line,
    sets_of,
    test_of,
    why_no_null,
)
from ssn_probe.report.conditions import comparison_row, summary_row
from ssn_probe.report.document import Bullets, Section, section
from ssn_probe.report.recipe_sets import expression_of
from ssn_probe.report.refusal_in_words import refusal_finding
from ssn_probe.report.sections.against_planted_truth import compared
from ssn_probe.report.sections.double_dissociation import dissociation_finding
from ssn_probe.report.sections.set_reliability import or_else, size_tests
from ssn_probe.spec import Recipe, SafetyNeurons
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.spec.node import walk
from ssn_probe.study.arms import WEAKENED
from ssn_probe.study.comparisons import LABELS
from ssn_probe.study.findings import Findings
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.summary import LOG_ODDS
from ssn_probe.text import capitalised, change_in_points, p_equals, percent, plain, uncapitalised

MOSTLY = 0.5
"""Half: of two samples' neurons, of what was planted, of what was selected."""
MAY, MAY_NOT, DESCRIBED = "What may be concluded", "What may not be concluded", "What is described, not tested"

Finding = tuple[str, str]
"""Where a conclusion belongs, and the conclusion. Only a test that rejects says that something may be concluded."""


def conclusions(recipe: Recipe, findings: Findings) -> list[Section]:
    """The sections of the report. What is not listed under *may* was not shown here."""
    found = [
        *((MAY_NOT, line) for line in refusal_finding(findings.refusals)),
        *_primary_arm(recipe, findings),
        *_other_tests(recipe, findings),
        *_dissociation(recipe, findings),
        *_sharing(recipe, findings.robustness),
        *_without_top_neuron(recipe, findings),
        *_stability(findings.robustness),
        *_planted(findings.truth),
        *_limits(recipe),
    ]
    parts = []
    for title in (MAY, MAY_NOT, DESCRIBED):
        lines = tuple(line for place, line in dict.fromkeys(found) if place == title)
        parts += [section(title, Bullets(lines))] if lines else []
    return parts


def headlines(recipe: Recipe, findings: Findings) -> list[str]:
    """The end of the answer: what is shared, ground truth, and what no run of the kind can show."""
    tests = [*_dissociation(recipe, findings), *_sharing(recipe, findings.robustness)]
    shown = [f"{SHOWN[place]}: {uncapitalised(line)}" for place, line in tests]
    planted = [f"{plain(name)} {figures}" for name, _, _, figures in _planted_figures(findings.truth)]
    never = [line.removesuffix(".") for line in ("that these neurons alone carry refusal", *NEVER) if recipe.arms]
    return [
        *([" ".join(dict.fromkeys(shown))] if shown else []),
        *([f"Against what was planted: {'; '.join(planted)} (described, not tested)."] if planted else []),
        *([f"Not shown by any of this: {'; '.join(never)}."] if never else []),
    ]


SHOWN = {MAY: "Shown", MAY_NOT: "Not shown"}
NEVER = ("that what distinguishes harmful from harmless prompts is safety: different is not safety",)


def _primary_arm(recipe: Recipe, findings: Findings) -> Iterator[Finding]:
    """The one primary test."""
    summary, arm = findings.summary, recipe.primary
    row = None if summary is None or arm is None else summary_row(summary, arm, "asr")
    if row is None or arm is None or row["delta"] is None:
        return
    lowers = recipe.arms[arm].lowers
    compared = comparison_row(findings.comparisons, arm, LABELS)
    verb = "strengthens" if lowers else "weakens"
    moved = row["delta_high"] < 0 if lowers else row["delta_low"] > 0
    claim = f"{plain(arm)} {verb} refusal more than sets that the same procedure finds under exchanged labels"
    no_null = why_no_null(findings.robustness, arm)
    found = primary_sets(compared, row["value"], falls=lowers, no_null=no_null)
    if moved and no_null is None and is_shown(compared):
        yield MAY, f"{capitalised(claim)}. {capitalised(found)}"
    else:
        tested = no_null is None and compared is not None and p_of(compared) is not None
        yield MAY_NOT, f"That {claim}: {'not shown' if tested else 'not tested'}. {capitalised(found)}"
        if tested:
            yield (
                MAY_NOT,
                f"That {plain(arm)} does no more than such sets: the difference and its interval say how much.",
            )


def _other_tests(recipe: Recipe, findings: Findings) -> Iterator[Finding]:
    """Whatever else is tested of the primary arm, with Holm's p."""
    if recipe.primary is None:
        return
    falls = recipe.arms[recipe.primary].lowers
    for name in QUESTIONS:
        row = comparison_row(findings.comparisons, recipe.primary, name)
        if row is not None and p_of(row) is not None:
            yield MAY if has_room(row) and is_shown(row) else MAY_NOT, question_line(row, falls=falls)
    row = comparison_row(findings.comparisons, recipe.primary, LABELS, LOG_ODDS)
    if row is not None and p_of(row) is not None:
        found = f"{sets_of(row)} gave {figures_of(row)}; {test_of(row, falls=not falls)}"
        moved = "The refusal log-odds changed more than under exchanged labels"
        yield (MAY, f"{moved}: {found}.") if is_shown(row) else (MAY_NOT, f"That {uncapitalised(moved)}: {found}.")


def _dissociation(recipe: Recipe, findings: Findings) -> Iterator[Finding]:
    """Does each of two sets carry one of two behaviours?"""
    for allowed, line in dissociation_finding(recipe, findings.dissociation, findings.summary):
        yield MAY if allowed else MAY_NOT, line


def _without_top_neuron(recipe: Recipe, findings: Findings) -> Iterator[Finding]:
    """Is the effect one neuron's?"""
    if findings.summary is None or recipe.primary is None:
        return
    row = summary_row(findings.summary, recipe.primary, "asr", role=WEAKENED)
    if row is not None and row["delta"] is not None:
        change = change_in_points(row["delta"], row["delta_low"], row["delta_high"])
        yield DESCRIBED, f"Without its top neuron in each language, {plain(recipe.primary)} changed ASR by {change}."


def _sharing(recipe: Recipe, robustness: Robustness) -> Iterator[Finding]:
    """Would as much be shared with the anchor under exchanged labels? On the average over languages."""
    more = "More is shared with the anchor than if harmful and harmless did not differ"
    for found in robustness.exchangeability:
        why = found.not_parallel or (found.reason and f"no valid null exists: {found.reason}")
        if why and any(shared_with_anchor(expression_of(recipe, name)) for name in found.sets):
            yield MAY_NOT, f"That {uncapitalised(more)}: not tested, because {why}."
    for row in size_tests(robustness):
        if shared_with_anchor(expression_of(recipe, row["set"])) is None:
            continue
        figures = (
            f"{row['observed']:.1f} neurons on average, {row['null_mean']:.1f} under exchanged labels, difference "
            f"{row['difference']:+.1f} ({row['difference_low']:+.1f} to {row['difference_high']:+.1f}), "
            f"{p_equals(row['p_holm'])} after Holm"
        )
        if row["p_holm"] <= ALPHA:
            yield MAY, f"{more} ({figures}){or_else(robustness.apart)}."
        else:
            least = "" if row["shown_from"] is None else f"; {row['shown_from']:.1f} or more would have shown it"
            yield MAY_NOT, f"That {uncapitalised(more)} ({figures}{least})."


def _stability(robustness: Robustness) -> Iterator[Finding]:
    if robustness.jaccard is None:
        return
    for name in robustness.jaccard["set"].unique(maintain_order=True):
        found = robustness.jaccard.filter(set=name)["jaccard"].drop_nulls().to_list()
        if not found:
            yield DESCRIBED, f"Which neurons {plain(name)} consists of: no half of the prompts gave any."
            continue
        figures = f"split-half Jaccard {min(found):.2f} to {max(found):.2f} over languages"
        kept = "mostly the same" if min(found) >= MOSTLY else "other neurons than"
        yield DESCRIBED, f"Other prompts of the kind would give {kept} {plain(name)} ({figures})."


def _planted(truth: pl.DataFrame | None) -> Iterator[Finding]:
    """What a set has of what was planted, in the organism alone."""
    for name, mass, precision, figures in _planted_figures(truth):
        if mass >= MOSTLY and precision >= MOSTLY:
            yield DESCRIBED, f"{plain(name)} is most of what was planted, and little else ({figures})."
        elif precision >= MOSTLY:
            yield DESCRIBED, f"{plain(name)} is part of what was planted ({figures})."
        else:
            yield DESCRIBED, f"{plain(name)} is not the set that was planted ({figures}), whatever silencing it does."


def _planted_figures(truth: pl.DataFrame | None) -> Iterator[tuple[str, float, float, str]]:
    """Every set with the share of the planted mass that it has, its precision, and both in words."""
    if truth is None:
        return
    means = compared(truth).filter(question="harmful").unique("set", keep="first", maintain_order=True)
    means = means.select("set", "mass", "precision")  # of the set itself, before what the average would choose
    for name, mass, precision in means.drop_nulls().iter_rows():
        yield name, mass, precision, f"{percent(mass, 0)} of the planted mass, precision {percent(precision, 0)}"


def _limits(recipe: Recipe) -> Iterator[Finding]:
    """What no run of the kind can show."""
    if recipe.arms:
        yield MAY_NOT, "That these neurons alone carry refusal: others may, which this rule did not choose."
        yield from ((MAY_NOT, capitalised(f"{line}.")) for line in NEVER)
    effects = (node.scored_by for node in walk(recipe) if isinstance(node, SafetyNeurons))
    for caution in dict.fromkeys(effect.caution for effect in effects if effect.caution):
        yield MAY_NOT, caution
    if recipe.model.startswith("organism"):
        yield MAY_NOT, "Anything about language models: the organism's figures are about the tool."
