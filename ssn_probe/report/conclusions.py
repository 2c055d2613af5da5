"""What may and what may not be concluded from a run, in plain words, each with the figures that support it."""

from collections.abc import Iterator

import polars as pl

from ssn_probe.report.conditions import Row, comparison_row, summary_row
from ssn_probe.report.markdown_tables import section
from ssn_probe.report.recipe_sets import expression_of
from ssn_probe.report.refusal_in_words import refusal_finding
from ssn_probe.report.sections.against_planted_truth import compared
from ssn_probe.report.sections.double_dissociation import dissociation_finding
from ssn_probe.report.sections.set_reliability import or_else
from ssn_probe.spec import Recipe, SafetyNeurons
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.spec.node import walk
from ssn_probe.stats.nulls.permutation_null import AVERAGE as OVER_LANGUAGES
from ssn_probe.study.arms import WEAKENED
from ssn_probe.study.comparisons import LABELS
from ssn_probe.study.findings import Findings
from ssn_probe.study.robustness import Robustness
from ssn_probe.text import change_in_points, counted, markdown, p_equals, percent, plain

ALPHA = 0.05
MOSTLY = 0.5
"""Half: of two samples' neurons, of what was planted, of what was selected."""

Finding = tuple[bool, str]
"""Whether it may be concluded, and the conclusion."""


def conclusions(recipe: Recipe, findings: Findings) -> str:
    """The section of the report. What is not listed under *may* was not shown here."""
    found = [
        *_primary_arm(recipe, findings),
        *_beyond_arms(recipe, findings),
        *_stability(findings.robustness),
        *_limits(recipe),
    ]
    found = [*((False, line) for line in refusal_finding(findings.refusals)), *found]
    sections = {True: "What may be concluded", False: "What may not be concluded"}
    parts = []
    for allowed, title in sections.items():
        lines = [f"- {markdown(line)}" for is_allowed, line in found if is_allowed == allowed]
        parts += [section(title, "\n".join(lines))] if lines else []
    return "\n".join(parts)


def headlines(recipe: Recipe, findings: Findings) -> list[str]:
    """What no arm can show, for the end of the answer: sharing, ground truth."""
    found = _beyond_arms(recipe, findings)
    return [f"{'Shown' if allowed else 'Not shown'}: {line[0].lower()}{line[1:]}" for allowed, line in found]


def _beyond_arms(recipe: Recipe, findings: Findings) -> list[Finding]:
    found = [*dissociation_finding(recipe, findings.dissociation, findings.summary)]
    found += [*_sharing(recipe, findings.robustness), *_planted(findings.truth)]
    return list(dict.fromkeys(found))  # arms that differ in the dose alone have one set, and one finding


def _primary_arm(recipe: Recipe, findings: Findings) -> Iterator[Finding]:
    """The primary test, and whether the effect is one neuron's."""
    summary = findings.summary
    if summary is None or recipe.primary is None:
        return
    row = summary_row(summary, recipe.primary, "asr")
    if row is None or row["delta"] is None:
        return
    lowers = recipe.arms[recipe.primary].lowers
    compared = comparison_row(findings.comparisons, recipe.primary, LABELS)
    verb = "strengthens" if lowers else "weakens"
    yield _primary_test(plain(recipe.primary), verb, compared, _moved(row, lowers))
    weaker = summary_row(summary, recipe.primary, "asr", role=WEAKENED)
    if weaker is None or weaker["delta"] is None:
        return
    change = change_in_points(weaker["delta"], weaker["delta_low"], weaker["delta_high"])
    figures = f"without its top neuron {change}"
    if _moved(weaker, lowers):
        yield True, f"The effect is not that of a single neuron ({figures})."
    else:
        yield False, f"That the effect is the set's and not that of a single neuron: not shown ({figures})."


def _primary_test(name: str, verb: str, row: Row | None, moved: bool) -> Finding:
    others = "sets that the same procedure finds under exchanged labels"
    if row is None or row["p"] is None:
        return False, f"That {name} {verb} refusal more than {others}: too few such sets to tell."
    figures = f"rank {p_equals(row['p'])} among {counted(row['sets'], 'set')}"
    if row["p"] <= ALPHA and moved:
        same = "more than the same intervention on"
        return True, f"The intervention on {name} {verb} refusal {same} {others} ({figures})."
    return False, (
        f"That {name} {verb} refusal more than {others}: not shown ({figures}). Nor is it shown that there is no "
        "such effect: the interval, and the smallest change that would have shown, say how large it could be."
    )


def _moved(row: Row, lowers: bool) -> bool:
    return row["delta_high"] < 0 if lowers else row["delta_low"] > 0


def _sharing(recipe: Recipe, robustness: Robustness) -> Iterator[Finding]:
    """Would as much be shared with the anchor under exchanged labels? On the average over languages."""
    for found in robustness.exchangeability:
        why = found.not_parallel or (found.reason and f"no valid null exists: {found.reason}")
        if why and any(shared_with_anchor(expression_of(recipe, name)) for name in found.sets):
            question = "Whether more is shared with the anchor than if harmful and harmless did not differ"
            yield False, f"{question}: not tested, because {why}."
    if robustness.nulls is None:
        return
    rows = robustness.nulls.filter(statistic="size", language_a=OVER_LANGUAGES)
    for row in rows.rows(named=True):
        if shared_with_anchor(expression_of(recipe, row["set"])) is None:
            continue
        figures = (
            f"{row['observed']:.1f} neurons on average, {row['null_mean']:.1f} under exchanged labels, difference "
            f"{row['difference']:+.1f}, 95 % interval {row['difference_low']:+.1f} to {row['difference_high']:+.1f}, "
            f"{p_equals(row['p'])}"
        )
        if row["p"] <= ALPHA:
            more = "More is shared with the anchor than if harmful and harmless did not differ"
            yield True, f"{more} ({figures}){or_else(robustness.apart)}."
        else:
            sharing = "That languages share neurons because of what distinguishes harmful from harmless"
            least = "" if row["shown_from"] is None else f"; {row['shown_from']:.1f} or more would have shown it"
            yield False, f"{sharing} ({figures}{least}). Their number is no evidence of shared safety."


def _stability(robustness: Robustness) -> Iterator[Finding]:
    if robustness.jaccard is None:
        return
    for name in robustness.jaccard["set"].unique(maintain_order=True):
        found = robustness.jaccard.filter(set=name)["jaccard"].drop_nulls().to_list()
        if not found:
            yield False, f"Which neurons {plain(name)} consists of: no half of the prompts gave any."
            continue
        figures = f"split-half Jaccard {min(found):.2f} to {max(found):.2f} over languages"
        if min(found) >= MOSTLY:
            yield True, f"Other prompts of the kind would give mostly the same {plain(name)} ({figures})."
        else:
            yield False, f"Which individual neurons {plain(name)} consists of: other prompts give others ({figures})."


def _planted(truth: pl.DataFrame | None) -> Iterator[Finding]:
    if truth is None:
        return
    means = compared(truth).filter(question="harmful").unique("set", keep="first", maintain_order=True)
    means = means.select("set", "mass", "precision")  # of the set itself, before what the average would choose
    for name, mass, precision in means.drop_nulls().iter_rows():
        figures = f"{percent(mass, 0)} of the planted mass, precision {percent(precision, 0)}"
        if mass >= MOSTLY and precision >= MOSTLY:
            yield True, f"{plain(name)} is most of what was planted, and little else ({figures})."
        elif precision >= MOSTLY:
            yield False, f"That {plain(name)} is all that carries refusal: it is part of what was planted ({figures})."
        else:
            line = f"That {plain(name)} is the set that carries refusal: it is not the planted set ({figures})"
            yield False, f"{line}, whatever silencing it does."


def _limits(recipe: Recipe) -> Iterator[Finding]:
    """What no run of the kind can show."""
    if recipe.arms:
        yield False, "That these neurons alone carry refusal: others may, which this rule did not choose."
    effects = (node.scored_by for node in walk(recipe) if isinstance(node, SafetyNeurons))
    for caution in dict.fromkeys(effect.caution for effect in effects if effect.caution):
        yield False, caution
    if recipe.model.startswith("organism"):
        yield False, "Anything about language models: the organism's figures are about the tool."
