"""What may and what may not be concluded from a run, in plain words, each with the figures that it rests on."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from ssn_probe.node import walk
from ssn_probe.plan import by_anchor
from ssn_probe.recipe import Amplify, Patch, Recipe, Refusal, SafetyNeurons, Shared
from ssn_probe.reliability import listed
from ssn_probe.stats import Estimate
from ssn_probe.summary import AVERAGE
from ssn_probe.text import markdown, percent, points, probability
from ssn_probe.trust import Trust

ALPHA = 0.05


def conclusions(
    recipe: Recipe,
    manifest: Mapping[str, Any],
    summary: pl.DataFrame | None,
    trusted: Trust,
    against_placebo: Estimate | None,
    truth: pl.DataFrame | None = None,
) -> str:
    """The section of the report. What is not listed under *may* was not shown here."""
    found = [
        *_causal(recipe, summary),
        *_placebo(against_placebo, recipe),
        *_sharing(recipe, trusted),
        *_stable(trusted),
        *_planted(truth),
        *((False, line) for line in _always(recipe, manifest)),
    ]
    may = [line for allowed, line in found if allowed]
    may_not = [line for allowed, line in found if not allowed]
    return listed("## What may be concluded", may) + "\n" * bool(may) + listed("## What may not be concluded", may_not)


def _causal(recipe: Recipe, summary: pl.DataFrame | None) -> Iterator[tuple[bool, str]]:
    if summary is None or recipe.primary is None:
        return
    row = _row(summary, recipe.primary, "tested")
    if row is None:
        return
    lowers = _lowers(recipe)
    what = "strengthens" if lowers else "weakens"
    name = markdown(recipe.primary)
    moved = row["delta_high"] < 0 if lowers else row["delta_low"] > 0
    if row["p"] is None:
        yield (
            False,
            f"That {name} {what} refusal more than other neurons would: there were too few random sets to tell.",
        )
    elif row["p"] <= ALPHA and moved:
        yield (
            True,
            (
                f"What was done to {name} {what} refusal more than the same done to as many random neurons of the same "
                f"layers and sites (rank p = {probability(row['p'])}, {row['controls']} random sets)."
            ),
        )
    else:
        yield (
            False,
            (
                f"That {name} {what} refusal more than random neurons: not shown (rank p = {probability(row['p'])}). "
                "That it does not is not shown either; the interval and the smallest change that would have shown say how "
                "much there could be."
            ),
        )
    yield from _one_member(summary, recipe.primary, lowers)


def _one_member(summary: pl.DataFrame, arm: str, lowers: bool) -> Iterator[tuple[bool, str]]:
    row = _row(summary, arm, "less strongest")
    if row is None:
        return
    left = row["delta_high"] < 0 if lowers else row["delta_low"] > 0
    figures = f"without its strongest neuron {points(row['delta'])} points, {_limits(row)}"
    if left:
        yield True, f"The effect is not one neuron's alone ({figures})."
    else:
        yield False, f"That the effect is the set's and not one neuron's: not shown ({figures})."


def _placebo(found: Estimate | None, recipe: Recipe) -> Iterator[tuple[bool, str]]:
    if found is None:
        return
    lowers = _lowers(recipe)
    more = found.high < 0 if lowers else found.low > 0
    figures = f"{points(found.value)} points beyond the placebo, {points(found.low)} to {points(found.high)}"
    if more:
        yield True, f"It is more than a set found the same way between topics of harmless prompts does ({figures})."
    else:
        yield False, f"That it is more than a set found between topics of harmless prompts does: not shown ({figures})."


def _sharing(recipe: Recipe, trusted: Trust) -> Iterator[tuple[bool, str]]:
    """Question (a) of the sets shared with the anchor, on their average over languages."""
    if trusted.nulls is None:
        return
    rows = trusted.nulls.filter((pl.col("statistic") == "size") & (pl.col("language_a") == AVERAGE))
    for row in rows.rows(named=True):
        expression = recipe.sets.get(row["set"]) or recipe.arms[row["set"]].neurons
        if not (isinstance(expression, Shared) and by_anchor(expression)):
            continue
        figures = (
            f"{row['observed']:.1f} neurons on average, {row['null_mean']:.1f} under exchanged labels "
            f"({row['null_low']:.1f} to {row['null_high']:.1f}), p = {probability(row['p'])}"
        )
        if row["p"] <= ALPHA:
            yield (
                True,
                f"More neurons are shared with the anchor than if harmful and harmless did not differ ({figures}).",
            )
        else:
            yield (
                False,
                (
                    f"That languages share neurons *because* of what tells harmful from harmless: as many are shared when "
                    f"the labels are exchanged ({figures}). The number of shared neurons is no evidence of shared safety."
                ),
            )


def _stable(trusted: Trust) -> Iterator[tuple[bool, str]]:
    if trusted.jaccard is None:
        return
    for name in trusted.jaccard["set"].unique(maintain_order=True):
        rows = trusted.jaccard.filter(pl.col("set") == name).drop_nulls("jaccard")
        if rows.is_empty():
            yield False, f"Which neurons {markdown(name)} are: no half of the prompts found any."
            continue
        lowest = rows.sort("jaccard").row(0, named=True)
        figures = f"split-half Jaccard {rows['jaccard'].min():.2f} to {rows['jaccard'].max():.2f} over languages"
        if lowest["jaccard"] >= 0.5:
            yield (
                True,
                f"Other prompts of the kind would give mostly the same neurons for {markdown(name)} ({figures}).",
            )
        else:
            yield False, f"Which neurons {markdown(name)} are, one by one: other prompts give others ({figures})."


def _planted(truth: pl.DataFrame | None) -> Iterator[tuple[bool, str]]:
    if truth is None or truth.is_empty():
        return
    for name in truth["set"].unique(maintain_order=True):
        rows = truth.filter((pl.col("set") == name) & (pl.col("question") == "harmful"))
        mass, precision = rows["mass"].mean(), rows["precision"].mean()
        if mass is None or precision is None:
            continue
        figures = f"{percent(float(mass), 0)} of the planted mass, precision {percent(float(precision), 0)}"  # type: ignore[arg-type]
        if mass >= 0.5 and precision >= 0.5:  # type: ignore[operator]
            yield True, f"{markdown(name)} is mostly what was planted ({figures})."
        else:
            yield (
                False,
                (
                    f"That {markdown(name)} is the set that carries refusal: it is not the planted one ({figures}), "
                    "whatever it does when it is silenced."
                ),
            )


def _always(recipe: Recipe, manifest: Mapping[str, Any]) -> Iterator[str]:
    if recipe.arms:
        yield "That these neurons alone carry refusal: others may, which this rule did not choose."
    if any(isinstance(node, SafetyNeurons) and isinstance(node.effect, Refusal) for node in walk(recipe)):
        yield "What q and k do through the softmax: the refusal effect is first order and misses part of it."
    if str(manifest["model"]["name"]).startswith("organism"):
        yield "Anything about language models: the organism's figures are about the tool."


def _lowers(recipe: Recipe) -> bool:
    arm = recipe.arms[str(recipe.primary)]
    return isinstance(arm, Patch) or (isinstance(arm, Amplify) and arm.by > 1)


def _limits(row: Mapping[str, Any]) -> str:
    return f"95 % interval {points(row['delta_low'])} to {points(row['delta_high'])}"


def _row(summary: pl.DataFrame, arm: str, role: str) -> dict[str, Any] | None:
    rows = summary.filter(measure="asr", arm=arm, role=role, language=AVERAGE)
    return rows.row(0, named=True) if rows.height and rows["delta"][0] is not None else None
