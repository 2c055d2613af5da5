"""What a run shows and what it does not: the claims with their verdicts, what is described, what no run shows."""

from collections.abc import Iterator

import polars as pl

from ssn_probe.report.claim import NOT_SHOWN, Claim
from ssn_probe.report.conditions import comparison_row, summary_row
from ssn_probe.report.document import Bullets, Section, Table, section
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.refusal_in_words import refusal_finding
from ssn_probe.report.sections.against_planted_truth import compared
from ssn_probe.spec import Recipe, SafetyNeurons
from ssn_probe.spec.node import walk
from ssn_probe.study.arms import WEAKENED
from ssn_probe.study.comparisons import LABELS
from ssn_probe.study.findings import Findings
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.training_curves import Difference
from ssn_probe.text import capitalised, change_in_points, percent, plain, points, points_interval

MOSTLY = 0.5
"""Half: of two samples' neurons, of what was planted, of what was selected."""
CLAIMS_TITLE, DESCRIBED_TITLE, NEVER_TITLE = "Claims", "What is described, not tested", "What no run shows"
NOT_REFUTED = (
    "A claim that is not shown is not refuted: its difference and interval, which is where 95 % of such sets fall, say "
    "how much there may be."
)
ALONE = "that these neurons alone carry refusal"
NOT_SAFETY = "that what distinguishes harmful from harmless prompts is safety"


def claims_section(found: list[Claim]) -> Section | None:
    """Every claim with its verdict."""
    return section(CLAIMS_TITLE, claims_table(found)) if found else None


def described_section(run: FinishedRun) -> Section | None:
    """What figures describe, and no test."""
    found = tuple(dict.fromkeys(_described(run)))
    return section(DESCRIBED_TITLE, Bullets(found)) if found else None


def never_section(run: FinishedRun) -> Section | None:
    """What nothing here shows."""
    found = tuple(dict.fromkeys(_never(run)))
    return section(NEVER_TITLE, Bullets(found)) if found else None


def claims_table(found: list[Claim]) -> Table:
    """A row per claim, the primary one first."""
    rows = tuple((_named(one), one.verdict, one.figures, capitalised(one.why)) for one in found)
    note = NOT_REFUTED if any(one.verdict == NOT_SHOWN for one in found) else ""
    return Table(("claim", "verdict", "difference", "why, or what would have shown it"), rows, note)


def _named(claim: Claim) -> str:
    return f"Primary: {claim.claim}" if claim.primary else claim.claim


# ── described ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _described(run: FinishedRun) -> Iterator[str]:
    recipe, findings = run.recipe, run.findings
    yield from _without_top_neuron(recipe, findings)
    yield from _exchangeable_part(recipe, findings)
    yield from _differences(findings)
    yield from _stability(findings.robustness)
    yield from _planted(findings.truth)


def _without_top_neuron(recipe: Recipe, findings: Findings) -> Iterator[str]:
    """Is the effect one neuron's?"""
    if findings.summary is None or recipe.primary is None:
        return
    row = summary_row(findings.summary, recipe.primary, "asr", role=WEAKENED)
    if row is not None and row["delta"] is not None:
        change = change_in_points(row["delta"], row["delta_low"], row["delta_high"])
        yield f"Without its top neuron in each language, {plain(recipe.primary)} changed ASR by {change}."


def _exchangeable_part(recipe: Recipe, findings: Findings) -> Iterator[str]:
    """The set that is ranked, where it is another than the tested one."""
    if findings.summary is None or recipe.primary is None:
        return
    tested = summary_row(findings.summary, recipe.primary, "asr")
    row = comparison_row(findings.comparisons, recipe.primary, LABELS)
    if tested is not None and row is not None and abs(row["observed"] - tested["value"]) > 1e-9:
        yield (
            "Among sets of exchanged labels is ranked the set of the prompts whose labels exchange, which gave an ASR "
            f"of {percent(row['observed'])}."
        )


def _differences(findings: Findings) -> Iterator[str]:
    """Every learning curve beside random sets that were trained as long, step by step."""
    for curve in dict.fromkeys(found.curve for found in findings.differences):
        own = [found for found in findings.differences if found.curve == curve]
        steps = "; ".join(_at_step(step, own) for step in dict.fromkeys(found.step for found in own))
        several = own[0].random_sets
        others = "its random set" if several == 1 else f"the mean of its {several} random sets"
        yield f"{plain(curve)} less {others}, in points: {steps} (95 % intervals over prompts, for these very sets)."


def _at_step(step: int, differences: list[Difference]) -> str:
    names = {"asr": "ASR", "over_refusal": "over-refusal", "utility": "utility"}
    parts = [
        f"{names[found.measure]} {points(found.estimate.value)} "
        f"({points_interval(found.estimate.low, found.estimate.high)})"
        for found in differences
        if found.step == step and (found.measure != "utility" or found.estimate.value)
    ]
    return f"after {step} steps {', '.join(parts)}"


def _stability(robustness: Robustness) -> Iterator[str]:
    if robustness.jaccard is None:
        return
    for name in robustness.jaccard["set"].unique(maintain_order=True):
        found = robustness.jaccard.filter(set=name)["jaccard"].drop_nulls().to_list()
        if not found:
            yield f"Which neurons {plain(name)} consists of: no half of the prompts gave any."
            continue
        span = f"{min(found):.2f} to {max(found):.2f} over languages" if len(found) > 1 else f"{found[0]:.2f}"
        figures = f"split-half Jaccard {span}"
        kept = "mostly the same" if min(found) >= MOSTLY else "other"
        yield f"Other prompts of the kind would give {kept} neurons for {plain(name)} ({figures})."


def _planted(truth: pl.DataFrame | None) -> Iterator[str]:
    """What a set has of what was planted, in the organism alone."""
    for name, mass, precision in _planted_figures(truth):
        figures = f"{percent(mass, 0)} of the planted mass, precision {percent(precision, 0)}"
        if mass >= MOSTLY and precision >= MOSTLY:
            yield f"{plain(name)} is most of what was planted, and little else ({figures})."
        elif precision >= MOSTLY:
            yield f"{plain(name)} is part of what was planted ({figures})."
        else:
            yield f"{plain(name)} is not the set that was planted ({figures}), whatever silencing it does."


def _planted_figures(truth: pl.DataFrame | None) -> Iterator[tuple[str, float, float]]:
    """Every set with the share of the planted mass that it has, and its precision."""
    if truth is None:
        return
    means = compared(truth).filter(question="harmful").unique("set", keep="first", maintain_order=True)
    means = means.select("set", "mass", "precision")  # of the set itself, before what the average would choose
    yield from means.drop_nulls().iter_rows()


# ── never shown ──────────────────────────────────────────────────────────────────────────────────────────────────────


def never_line(recipe: Recipe) -> list[str]:
    """What no run of the kind can show, in a line."""
    line = "Not shown by any of this: that only these neurons carry refusal, or that the difference is safety."
    return [line] if recipe.arms else []


def _never(run: FinishedRun) -> Iterator[str]:
    """What no run of the kind can show."""
    recipe = run.recipe
    yield from refusal_finding(run.findings.refusals)
    if recipe.arms:
        yield f"{capitalised(ALONE)}: others may, which this rule did not choose."
        yield f"{capitalised(NOT_SAFETY)}: different is not safety."
    effects = (node.scored_by for node in walk(recipe) if isinstance(node, SafetyNeurons))
    yield from dict.fromkeys(effect.caution for effect in effects if effect.caution)
    if recipe.model.startswith("organism"):
        yield "Anything about language models: the organism's figures are about the tool."
