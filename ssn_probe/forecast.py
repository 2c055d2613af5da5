"""What a run would take, from the configuration alone: passes, disk, and the smallest effect that it could show."""

from dataclasses import dataclass

import polars as pl

from ssn_probe.plan import Plan, limited, make_plan, measured
from ssn_probe.recipe import Recipe, SafetyNeurons
from ssn_probe.stats import smallest_detectable, smallest_p
from ssn_probe.subject import describe
from ssn_probe.text import probability


@dataclass(frozen=True)
class Forecast:
    """A plan, and its consequences in words."""

    plan: Plan
    lines: tuple[str, ...]


def forecast(recipe: Recipe, limit: int | None) -> Forecast:
    """The plan of a recipe and what it takes. Reads configuration and prompts, no weights."""
    recipe = limited(recipe, limit)
    layers, widths = describe(recipe.model)
    plan = make_plan(recipe, neurons=layers * sum(widths.values()))
    lines = [_neurons(layers, widths), *_disk(recipe, plan, layers, widths), *_power(recipe, plan)]
    return Forecast(plan, tuple(lines))


def _neurons(layers: int, widths: dict) -> str:
    per_layer = ", ".join(f"{site} {width:,}" for site, width in widths.items())
    return f"{layers * sum(widths.values()):,} neurons: {layers} layers of {per_layer}."


def _disk(recipe: Recipe, plan: Plan, layers: int, widths: dict) -> list[str]:
    """fp16 effects of every prompt and neuron, one fp32 scale per prompt, layer and site (algorithms.md 2)."""
    from ssn_probe.node import walk

    size = 0
    nodes = {(node.prompts, node.effect, node.sites) for node in walk(recipe) if isinstance(node, SafetyNeurons)}
    for prompts, _, sites in nodes:
        rows = plan.data[prompts].frame
        count = rows.filter((rows["split"] == "identify") & rows["context"].is_in(["harmful", "harmless"])).height
        size += count * layers * sum(2 * widths[site] + 4 for site in sites)
    return [
        f"Per-prompt scores on disk: {size / 1e6:,.0f} MB; of which one language and context at a time is in memory."
    ]


def _rise(found: float | None) -> str:
    return "none at all" if found is None else f"{100 * found:.1f} points"


def _power(recipe: Recipe, plan: Plan) -> list[str]:
    contexts = measured(recipe, plan.data)
    if "harmful" not in contexts or not recipe.arms:
        return []
    rows = contexts["harmful"].select("evaluate", "harmful")
    clusters = min(rows.group_by("language").agg(pl.col("cluster").n_unique())["cluster"], default=0)
    if not clusters:
        return ["There are no harmful prompts to evaluate on, so nothing can be shown about ASR."]
    lines = [
        f"{clusters} clusters of harmful prompts per language: the smallest rise of ASR that one language shows with "
        f"80 % power is {_rise(smallest_detectable(clusters, 0.3))} at a baseline of 30 %."
    ]
    if recipe.controls:
        lines.append(
            f"{recipe.controls} random sets that generate: the smallest p is {probability(smallest_p(recipe.controls))}"
            f"{'' if recipe.controls >= 19 else ' (too few controls for a test: 19 is the least)'}; "
            f"{recipe.log_odds_controls} on the log-odds: {probability(smallest_p(recipe.log_odds_controls))}."
        )
    return lines
