"""What the organism does, measured per language with intervals, and what is known about its planted neurons."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe import limits
from ssn_probe.errors import ModelError
from ssn_probe.limits import read_limited
from ssn_probe.model.loading import locate
from ssn_probe.model.subject import load_subject
from ssn_probe.organism.ground_truth import BRAKE, CARRIER, QUESTIONS, largest_share, load_truth
from ssn_probe.spec import ASR, OverRefusal, Prompts, Recipe, SafetyNeurons, Utility
from ssn_probe.study.arm_steps import sample_steps
from ssn_probe.study.plan import make_plan
from ssn_probe.study.summary import summarise
from ssn_probe.study.workbench import Workbench

REPORTED = ("asr", "invalid", "over_refusal", "utility")


def measure_organism(model: str = "organism") -> list[dict[str, Any]]:
    """One row per language and measure: `language, measure, n, value, low, high`, on the *evaluate* split, greedy."""
    prompts = Prompts(_prompts_of(model))
    recipe = Recipe(
        model=model,
        sets={"ms": SafetyNeurons(prompts)},
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
    )
    plan = make_plan(recipe)
    bench = Workbench(subject=load_subject(model), data=plan.data)
    baseline = pl.concat(step.run() for step in sample_steps(bench, recipe, []))
    anchor = plan.data[prompts].anchor or ""
    rows = summarise(baseline, None, anchor=anchor, primary=None).rows(named=True)
    return [row for name in REPORTED for row in rows if row["measure"] == name]


def _prompts_of(model: str) -> str:
    """The prompt set that an organism was made for."""
    card = Path(locate(model)) / "card.json"
    if not card.is_file():
        return "organism"
    try:
        return str(json.loads(read_limited(card, limits.CARD, ModelError)).get("prompts", "organism"))
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{card} is not the card of an organism: {error}", "Fix it, or remove it.") from error


def truth_lines(model: str = "organism") -> list[str]:
    """The ground truth of an organism in a few lines; no lines where nothing is planted.

    Raises ModelError for a ground truth that is damaged or belongs to other weights.
    """
    truth = load_truth(locate(model))
    if truth is None:
        return []
    sites = ", ".join(f"{count} {site}" for site, count in truth.neurons["site"].value_counts(sort=True).iter_rows())
    lines = [
        f"{truth.neurons.height} planted neurons ({sites}); Shapley values of {truth.pairs} permutation pairs on "
        f"{truth.prompts:,} prompts:"
    ]
    for question in QUESTIONS:
        none, every = truth.totals[question]
        lines.append(
            f"  {question}: {truth.members(question, CARRIER).height} carriers, "
            f"{truth.members(question, BRAKE).height} brakes; largest share "
            f"{100 * largest_share(truth.neurons, question):.0f} %; log-odds {none:.1f} without them, {every:.1f} with"
        )
    return lines
