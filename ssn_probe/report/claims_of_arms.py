"""Claims about what arms do: the primary test, the other questions about its set, trainings, transfer."""

from collections.abc import Iterator, Mapping
from typing import Any

from ssn_probe.neurons import EVERY
from ssn_probe.report.arms_in_words import short_phrase
from ssn_probe.report.claim import NOT_SHOWN, NOT_TESTABLE, SHOWN, Claim
from ssn_probe.report.comparisons_in_words import (
    ALPHA,
    OTHERS,
    difference_of,
    is_known,
    is_shown,
    needed,
    why_no_null,
    why_not_tested,
)
from ssn_probe.report.conditions import Row, comparison_row, summary_row, why_no_change
from ssn_probe.report.recipe_sets import expression_of
from ssn_probe.report.refusal_in_words import nothing_to_weaken
from ssn_probe.report.sections.transfer_matrix import transfers
from ssn_probe.spec import Recipe
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.spec.labels import set_label
from ssn_probe.stats import MINIMUM_CONTROLS
from ssn_probe.study.arms import ArmName
from ssn_probe.study.comparisons import LABELS
from ssn_probe.study.dissociation import REFUSED
from ssn_probe.study.findings import Findings
from ssn_probe.study.summary import AVERAGE, IN_LANGUAGE, LOG_ODDS, averaged
from ssn_probe.text import capitalised, counted, p_equals, plain, points, points_interval

QUESTIONS = {
    "importance": "These neurons do more than as many equally important ones",
    "own": "These neurons do more than as many of each language's own",
}
"""What a test of ASR asks, beside the primary one: is it these neurons, and is it that languages share them?"""
TWO_SETS = "Refusal and the language of responses have two sets of neurons"


def primary_claims(recipe: Recipe, findings: Findings) -> Iterator[Claim]:
    """The one primary test of a recipe, then whatever else is tested of the primary arm, with Holm's p."""
    arm = recipe.primary
    if arm is None:
        return
    lowers = recipe.arms[arm].lowers
    untestable = "" if lowers else nothing_to_weaken(findings.refusals)
    yield _primary(recipe, findings, arm, untestable)
    for name, claim in QUESTIONS.items():
        row = comparison_row(findings.comparisons, arm, name)
        if row is not None:
            yield _ranked(claim, row, untestable, falls=lowers)
    row = comparison_row(findings.comparisons, arm, LABELS, LOG_ODDS)
    if row is not None:
        claim = f"The refusal log-odds {'rises' if lowers else 'falls'} more than under exchanged labels"
        yield _ranked(claim, row, untestable or _no_null(findings, arm), falls=not lowers)


def _primary(recipe: Recipe, findings: Findings, arm: str, untestable: str) -> Claim:
    lowers = recipe.arms[arm].lowers
    phrase = short_phrase(recipe, arm, findings.anchor, findings.refusals)
    claim = f"{capitalised(phrase)} {'strengthens' if lowers else 'weakens'} refusal more than {OTHERS} do"
    tested = None if findings.summary is None else summary_row(findings.summary, arm, "asr")
    row = comparison_row(findings.comparisons, arm, LABELS)
    if tested is None or tested["delta"] is None:
        untestable = why_no_change(findings.summary, arm)
    untestable = untestable or _no_neurons(recipe, findings, arm) or _no_null(findings, arm)
    if tested is None or row is None:
        return Claim(claim=claim, verdict=NOT_TESTABLE, why=untestable or f"no {OTHERS} were run", primary=True)
    still = "" if moved(tested, lowers=lowers) else f"ASR itself was not shown to {'fall' if lowers else 'rise'}"
    return _ranked(claim, row, untestable, falls=lowers, still=still)


def primary_in_words(recipe: Recipe, findings: Findings, arm: str, row: Row) -> str:
    """What the primary test shows of its arm, to go on after the arm's name. `row`: the arm's ASR on the average."""
    lowers, claim = recipe.arms[arm].lowers, next(primary_claims(recipe, findings))
    verb = ("strengthened", "strengthen") if lowers else ("broke", "break")
    if claim.verdict == SHOWN:
        return f"{verb[0]} refusal more than {OTHERS}"
    changed = "lowered" if moved(row, lowers=True) else "raised" if moved(row, lowers=False) else ""
    if changed != ("lowered" if lowers else "raised"):
        return f"was not shown to {verb[1]} refusal{f'; it {changed} ASR' if changed else ''}"
    untested = f", and was not tested against {OTHERS}"
    absent = f", but was not shown to do so more than {OTHERS}"
    return f"{changed} ASR{untested if claim.verdict == NOT_TESTABLE else absent}"


def _no_neurons(recipe: Recipe, findings: Findings, arm: str) -> str:
    """Why an arm changes nothing in any language of its average; empty where it has neurons in one."""
    if findings.summary is None or not (counts := findings.sets.get(arm)):
        return ""
    languages = averaged(findings.summary, ArmName(arm), "asr", findings.anchor)
    if not languages or any(counts.get(EVERY, counts.get(language, 0)) for language in languages):
        return ""
    shared = shared_with_anchor(expression_of(recipe, arm))
    anchor = "" if shared is None else shared.anchor or findings.anchor
    return f"no language shares a neuron with the anchor {anchor}" if anchor else "the set has no neurons there"


def _no_null(findings: Findings, arm: str) -> str:
    reason = why_no_null(findings.robustness, arm)
    return "" if reason is None else f"no valid null exists: {reason}"


def moved(row: Row, *, lowers: bool) -> bool:
    """Does the interval of an arm's own change lie below zero, or above?"""
    end = row["delta_high"] if lowers else row["delta_low"]
    return is_known(end) and (end < 0 if lowers else end > 0)


def _ranked(claim: str, row: Row, untestable: str, *, falls: bool, still: str = "") -> Claim:
    """The verdict of a rank among compared sets. `untestable`: why there is none; `still`: why it shows nothing."""
    known: dict[str, Any] = {"claim": claim, "primary": bool(row["primary"])}
    if untestable:
        return Claim(**known, verdict=NOT_TESTABLE, why=untestable)
    known["figures"] = difference_of(row)
    if why := why_not_tested(row):
        return Claim(**known, verdict=NOT_TESTABLE, why=why)
    if is_shown(row) and not still:
        return Claim(**known, verdict=SHOWN)
    return Claim(**known, verdict=NOT_SHOWN, why=still or needed(row, falls=falls))


# ── two behaviours, two sets ─────────────────────────────────────────────────────────────────────────────────────────


def dissociation_claims(recipe: Recipe, findings: Findings) -> Iterator[Claim]:
    """Is it a double dissociation, and what else does each set move?"""
    found, summary = findings.dissociation, findings.summary
    if found is None or summary is None:
        return
    rows = {row["behaviour"]: row for row in found.contrasts.filter(language=AVERAGE).rows(named=True)}
    refused, spoken = (
        summary_row(summary, found.safety, "asr_paper"),
        summary_row(summary, found.language, IN_LANGUAGE),
    )
    if REFUSED not in rows or IN_LANGUAGE not in rows or refused is None or spoken is None:
        return
    lowered = moved(refused, lowers=False) and moved(spoken, lowers=True)
    yield _both(rows, lowered, nothing_to_weaken(findings.refusals))
    names = {arm: set_label(expression_of(recipe, arm)) or plain(arm) for arm in (found.safety, found.language)}
    for arm, measure, behaviour in (
        (found.safety, IN_LANGUAGE, "the language of responses"),
        (found.language, "asr_paper", "refusal"),
    ):
        row = summary_row(summary, arm, measure)
        if row is not None and (moved(row, lowers=True) or moved(row, lowers=False)):
            claim = f"Silencing {names[arm]} moves {behaviour}, too"
            why = "its 95 % interval leaves out zero; described, not tested"
            yield Claim(claim=claim, verdict=NOT_TESTABLE, figures=_share(row), why=why)


def _both(rows: Mapping[str, Row], lowered: bool, untestable: str) -> Claim:
    """Shown where each set lowers its own behaviour, and lowers it more than the other set does."""
    claim = TWO_SETS
    refused, spoken = rows[REFUSED], rows[IN_LANGUAGE]
    if untestable or not (is_known(refused["p"]) and is_known(spoken["p"])):
        why = untestable or "a contrast has no spread, so it has no p"
        return Claim(claim=claim, verdict=NOT_TESTABLE, why=why)
    p, least = max(refused["p"], spoken["p"]), min(refused["low"], spoken["low"])
    figures = f"refusal {_contrast(refused)}, language {_contrast(spoken)}, {p_equals(p)}"
    if lowered and p <= ALPHA and least > 0:
        return Claim(claim=claim, verdict=SHOWN, figures=figures, why="p is the larger of two")
    why = "each set must lower its own behaviour, and lower it more than the other set does"
    return Claim(claim=claim, verdict=NOT_SHOWN, figures=figures, why=why)


def _contrast(row: Row) -> str:
    """How much lower a behaviour is where its own set is silenced, rather than the other."""
    return f"{points(-row['difference'])} points ({points_interval(-row['high'], -row['low'])})"


def _share(row: Row) -> str:
    """A change of the share of responses; what is counted of refusals are the responses without one."""
    ends = [row["delta"], row["delta_low"], row["delta_high"]]
    value, low, high = (-ends[0], -ends[2], -ends[1]) if row["measure"] == "asr_paper" else ends
    return f"{points(value)} points ({points_interval(low, high)})"


# ── described, and never tested ──────────────────────────────────────────────────────────────────────────────────────


def training_claims(_recipe: Recipe, findings: Findings) -> Iterator[Claim]:
    """Does a training at its last step lower ASR more than trainings of random sets?"""
    last = {found.curve: found for found in findings.differences if found.measure == "asr"}
    for found in last.values():
        estimate = found.estimate
        ends = f" ({points_interval(estimate.low, estimate.high)})"
        figures = f"{points(estimate.value)} points{ends} after {counted(found.step, 'step')}"
        few = found.random_sets < MINIMUM_CONTROLS
        sets = counted(found.random_sets, "random set")
        why = f"{sets} {'is' if found.random_sets == 1 else 'are'} too few for a test ({MINIMUM_CONTROLS} is the least)"
        why = why if few else "the interval is over prompts, for these very sets"
        claim = f"Training {plain(found.curve)} lowers ASR more than training random sets"
        yield Claim(claim=claim, verdict=NOT_TESTABLE, figures=figures, why=why)


def transfer_claims(recipe: Recipe, findings: Findings) -> Iterator[Claim]:
    """Do one language's neurons matter for the others?"""
    for arm, cells in {} if findings.summary is None else transfers(findings.summary).items():
        others = [row["delta"] for (of, language), row in cells.items() if of != language and is_known(row["delta"])]
        if arm not in recipe.arms or not others:
            continue
        verb = "strengthens" if recipe.arms[arm].lowers else "weakens"
        phrase = capitalised(recipe.arms[arm].phrase(f"one language's {plain(arm)}"))
        figures = f"{points(min(others))} to {points(max(others))} points"
        why = f"described by {counted(len(others), 'interval')}, none of them adjusted"
        claim = f"{phrase} {verb} refusal in other languages"
        yield Claim(claim=claim, verdict=NOT_TESTABLE, figures=figures, why=why)
