"""What the organism does, measured: utility, over-refusal, invalid responses and ASR per language, with intervals."""

from typing import Any

from ssn_probe.causal import collect_samples
from ssn_probe.lab import Lab
from ssn_probe.plan import make_plan
from ssn_probe.recipe import ASR, OverRefusal, Prompts, Recipe, SafetyNeurons, Utility
from ssn_probe.subject import load_subject
from ssn_probe.summary import summarise

SHOWN = ("asr", "invalid", "over_refusal", "utility")


def measure_organism(model: str = "organism") -> list[dict[str, Any]]:
    """One row per language and measure: `language, measure, n, value, low, high`, on the *evaluate* split, greedy."""
    prompts = Prompts("organism")
    recipe = Recipe(
        model=model,
        sets={"ms": SafetyNeurons(prompts)},
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
    )
    plan = make_plan(recipe)
    lab = Lab(subject=load_subject(model), data=plan.data)
    baseline = next(collect_samples(lab, recipe, []))
    anchor = plan.data[prompts].anchor or ""
    rows = summarise(baseline, None, anchor=anchor, primary=None, seed=0).rows(named=True)
    return [row for name in SHOWN for row in rows if row["measure"] == name]
