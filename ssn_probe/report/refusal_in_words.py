"""Was refusal seen at all? Where it was not, no set is called one of safety neurons."""

from collections.abc import Sequence

from ssn_probe.stats.refusal_counts import Refusing
from ssn_probe.study.refusal_trial import INSTEAD, GateNeed, Refusals, is_out_of_reach, verdict_of
from ssn_probe.text import capitalised, counted, listing, plain, uncapitalised

MOST_NAMED = 8
"""So many languages are named; more are added up."""
DIFFERENT = "neurons that respond differently to harmful and harmless prompts"
WHY: dict[Refusing, str] = {
    "hardly": "No refusal was shown",
    "always": "The model refuses harmless prompts as it refuses harmful ones",
    "unknown": "Whether the model refuses cannot be told",
}


def is_shown(refusals: Sequence[Refusals] | None) -> bool:
    """May sets be called safety neurons? Of a run of an earlier release (None) that is not asked."""
    return refusals is None or verdict_of(refusals) == "shown"


def named(label: str, refusals: Sequence[Refusals] | None) -> str:
    """A set's label, without the word safety where no refusal was seen."""
    if is_shown(refusals):
        return label
    for kind in ("monolingual ", "shared "):
        label = label.replace(f"{kind}safety neurons", f"{kind.removeprefix('monolingual ')}{DIFFERENT}")
    return label


def refusal_lines(refusals: Sequence[Refusals] | None) -> list[str]:
    """The first line of the answer where refusal was not seen; none where it was. The counts are added up."""
    if is_shown(refusals):
        return []
    assert refusals is not None
    return [f"{_why(refusals, most=1)}. What was found are {DIFFERENT}; no set is called a set of safety neurons."]


def nothing_to_weaken(refusals: Sequence[Refusals] | None) -> str:
    """Why no claim that refusal is weakened can be tested: there is none. Empty where there is some."""
    if refusals is None or verdict_of(refusals) != "hardly":
        return ""
    return uncapitalised(_why(refusals, most=1))


def refusal_finding(refusals: Sequence[Refusals] | None) -> list[str]:
    """What may not be concluded where refusal was not seen."""
    if is_shown(refusals):
        return []
    assert refusals is not None
    return [f"That any of these neurons are safety neurons: {uncapitalised(_why(refusals))}."]


def _why(refusals: Sequence[Refusals], most: int = MOST_NAMED) -> str:
    judged = [one for one in refusals if one.harmful or one.harmless]
    if not judged:
        return "Whether the model refuses is not known, because none of its responses was judged"
    return f"{WHY[verdict_of(refusals)]}: {counts(judged, most)}"


def counts(refusals: Sequence[Refusals], most: int = MOST_NAMED) -> str:
    """Refused of all, per language where they are few."""
    parts = [
        f"{one.refused:,} of {counted(one.harmful, 'harmful prompt')}{_harmless(one)} in {plain(one.language)}"
        for one in (refusals if len(refusals) <= most else [_summed(refusals)])
    ]
    return f"refused were {listing(parts)}"


def _harmless(one: Refusals) -> str:
    """How many harmless prompts were refused, where any was asked."""
    return f" and {one.refused_harmless:,} of {one.harmless:,} harmless" if one.harmless else ""


def _summed(refusals: Sequence[Refusals]) -> Refusals:
    names = ("harmful", "refused", "harmless", "refused_harmless")
    sums = {name: sum(getattr(one, name) for one in refusals) for name in names}
    return Refusals(data="", language=counted(len(refusals), "language"), **sums)


# ── before a run ─────────────────────────────────────────────────────────────────────────────────────────────────────


def need_line(need: GateNeed, *, needed: bool) -> str:
    """What the gate of the refusal log-odds asks of the responses, and whether the prompts can meet it at all."""
    without = "no neurons can be chosen" if needed else "no refusal log-odds are measured"
    enough = "" if need.can_be_met else ": too few, so it cannot pass"
    part = f", of which one in {need.parts} is held out for it" if need.parts > 1 else ""
    return (
        f"The gate of the refusal log-odds needs {need.each_side} refused and {need.each_side} other responses in "
        f"{plain(need.language)}; {plain(need.data)} has {need.harmful:,} harmful and {need.harmless:,} harmless "
        f"identify prompts there{part}{enough}. Without it {without}."
    )


def tried_line(found: Refusals, need: GateNeed | None, *, needed: bool) -> str:
    """What a first try of a few prompts saw, and what follows."""
    if not found.harmful:
        return f"No judge judges responses in {plain(found.language)}, so it is not known whether the model refuses."
    line = f"Tried: {counts([found])}"
    if need is not None and is_out_of_reach(need, found):
        instead = f" {capitalised(INSTEAD)}." if needed else ""
        return f"{line}: the gate will not pass.{instead}"
    if need is not None and expected(need, found) < need.each_side:
        line += f"; at this rate about {expected(need, found):.0f} of all would be, so the gate will hardly pass"
    if found.shows in ("hardly", "always"):
        line += "; no refusal was shown by so few, and while none is, no set is called one of safety neurons"
    return f"{line}."


def expected(need: GateNeed, found: Refusals) -> float:
    """Refused responses of all prompts at the rate of those tried."""
    harmless = found.refused_harmless / found.harmless * need.harmless if found.harmless else 0.0
    return found.refused / found.harmful * need.harmful + harmless
