"""What may and what may not be concluded from a run, in plain words, each with the figures that it rests on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssn_probe.spec import Recipe, SafetyNeurons
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.spec.node import walk
from ssn_probe.stats import Estimate
from ssn_probe.stats.nulls.permutation_null import AVERAGE as OVER_LANGUAGES
from ssn_probe.study.robustness import NOTHING, Robustness
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import markdown, percent, plain, points, probability

ALPHA = 0.05
MOSTLY = 0.5
"""Half: of two samples' neurons, of what was planted, of what was selected."""

Finding = tuple[bool, str]
"""Whether it may be concluded, and what."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Beside:
    """What stands beside the arms: nulls and stability, the arm less its placebo, the comparison with the truth."""

    robustness: Robustness = NOTHING
    placebo: Estimate | None = None
    truth: pl.DataFrame | None = None


NONE = Beside()


def conclusions(recipe: Recipe, manifest: Mapping[str, Any], summary: pl.DataFrame | None, beside: Beside) -> str:
    """The section of the report. What is not listed under *may* was not shown here."""
    arms = [*_arm(recipe, summary), *_beside(recipe, beside)]
    found = [*arms, *_stable(beside.robustness), *_always(recipe, manifest)]
    sections = {True: "## What may be concluded", False: "## What may not be concluded"}
    parts = []
    for allowed, title in sections.items():
        lines = [f"- {markdown(line)}" for is_allowed, line in found if is_allowed == allowed]
        parts += ["\n".join([title, "", *lines, ""])] if lines else []
    return "\n".join(parts)


def headlines(recipe: Recipe, beside: Beside) -> list[str]:
    """What no arm can show, for the end of the answer: placebo, sharing, ground truth."""
    found = _beside(recipe, beside)
    return [f"{'Displayed' if allowed else 'Not shown'}: {line[0].lower()}{line[1:]}" for allowed, line in found]


def _beside(recipe: Recipe, beside: Beside) -> list[Finding]:
    found = [*_placebo(beside.placebo, recipe), *_sharing(recipe, beside.robustness), *_planted(beside.truth)]
    return list(dict.fromkeys(found))  # arms that differ in the dose alone have one set, and one finding


def _arm(recipe: Recipe, summary: pl.DataFrame | None) -> Iterator[Finding]:
    """The primary test, and whether the effect is one neuron's."""
    row = None if summary is None or recipe.primary is None else _row(summary, recipe.primary, "tested")
    if summary is None or recipe.primary is None or row is None:
        return
    lowers = recipe.arms[recipe.primary].lowers
    yield _primary(plain(recipe.primary), "strengthens" if lowers else "weakens", row, _moved(row, lowers))
    weaker = _row(summary, recipe.primary, "without top neuron")
    if weaker is None:
        return
    figures = (
        f"without its strongest neuron {points(weaker['delta'])} points, 95 % interval {points(weaker['delta_low'])} "
        f"to {points(weaker['delta_high'])}"
    )
    if _moved(weaker, lowers):
        yield True, f"The effect is not one neuron's alone ({figures})."
    else:
        yield False, f"That the effect is the set's and not one neuron's: not shown ({figures})."


def _primary(name: str, what: str, row: Mapping[str, Any], moved: bool) -> Finding:
    if row["p"] is None:
        return False, f"That {name} {what} refusal more than other neurons would: too few random sets to tell."
    figures = f"rank p = {probability(row['p'])}, {row['controls']} random sets"
    if row["p"] <= ALPHA and moved:
        return True, (
            f"What was done to {name} {what} refusal more than the same done to as many random neurons of the same "
            f"layers and sites ({figures})."
        )
    return False, (
        f"That {name} {what} refusal more than random neurons: not shown ({figures}). That it does not is not shown "
        "either: the interval, and the smallest change that would have shown, say how much there could be."
    )


def _moved(row: Mapping[str, Any], lowers: bool) -> bool:
    return row["delta_high"] < 0 if lowers else row["delta_low"] > 0


def _placebo(found: Estimate | None, recipe: Recipe) -> Iterator[Finding]:
    if found is None or recipe.primary is None:
        return
    more = found.high < 0 if recipe.arms[recipe.primary].lowers else found.low > 0
    figures = f"{points(found.value)} points beyond it, 95 % interval {points(found.low)} to {points(found.high)}"
    if more:
        yield True, f"It does more than its placebo, a set found alike between topics of harmless prompts ({figures})."
    else:
        yield False, f"That it does more than its placebo, a set found alike between harmless topics ({figures})."


def _sharing(recipe: Recipe, robustness: Robustness) -> Iterator[Finding]:
    """Would as much be shared with the anchor under exchanged labels? On the average over languages."""
    if robustness.nulls is None:
        return
    rows = robustness.nulls.filter(statistic="size", language_a=OVER_LANGUAGES)
    for row in rows.rows(named=True):
        expression = recipe.sets.get(row["set"]) or recipe.arms[row["set"]].neurons
        if shared_with_anchor(expression) is None:
            continue
        figures = (
            f"{row['observed']:.1f} neurons on average, {row['null_mean']:.1f} under exchanged labels "
            f"({row['null_low']:.1f} to {row['null_high']:.1f}), p = {probability(row['p'])}"
        )
        if row["p"] <= ALPHA:
            yield True, f"More is shared with the anchor than if harmful and harmless did not differ ({figures})."
        else:
            line = "That languages share neurons because of what tells harmful from harmless: about as many are shared "
            line += f"when the labels are exchanged ({figures}). Their number is no evidence of shared safety."
            yield False, line


def _stable(robustness: Robustness) -> Iterator[Finding]:
    if robustness.jaccard is None:
        return
    for name in robustness.jaccard["set"].unique(maintain_order=True):
        found = robustness.jaccard.filter(set=name)["jaccard"].drop_nulls().to_list()
        if not found:
            yield False, f"Which neurons {plain(name)} are: no half of the prompts found any."
            continue
        figures = f"split-half Jaccard {min(found):.2f} to {max(found):.2f} over languages"
        if min(found) >= MOSTLY:
            yield True, f"Other prompts of the kind would give mostly the same {plain(name)} ({figures})."
        else:
            yield False, f"Which neurons {plain(name)} are, one by one: other prompts give others ({figures})."


def _planted(truth: pl.DataFrame | None) -> Iterator[Finding]:
    if truth is None:
        return
    rows = truth.filter(question="harmful")
    means = rows.group_by("set", maintain_order=True).agg(pl.col("mass", "precision").mean())
    for name, mass, precision in means.drop_nulls().iter_rows():
        figures = f"{percent(mass, 0)} of the planted mass, precision {percent(precision, 0)}"
        if mass >= MOSTLY and precision >= MOSTLY:
            yield True, f"{plain(name)} is most of what was planted, and little else ({figures})."
        elif precision >= MOSTLY:
            yield False, f"That {plain(name)} is all that carries refusal: it is part of what was planted ({figures})."
        else:
            line = f"That {plain(name)} is the set that carries refusal: it is not the planted one ({figures}), "
            yield False, f"{line}whatever it does when it is silenced."


def _always(recipe: Recipe, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    if recipe.arms:
        yield False, "That these neurons alone carry refusal: others may, which this rule did not choose."
    effects = (node.scored_by for node in walk(recipe) if isinstance(node, SafetyNeurons))
    for caution in dict.fromkeys(effect.caution for effect in effects if effect.caution):
        yield False, caution
    if str(manifest["model"]["name"]).startswith("organism"):
        yield False, "Anything about language models: the organism's figures are about the tool."


def _row(summary: pl.DataFrame, arm: str, role: str) -> dict[str, Any] | None:
    rows = summary.filter(measure="asr", arm=arm, role=role, language=AVERAGE)
    return rows.row(0, named=True) if rows.height and rows["delta"][0] is not None else None
