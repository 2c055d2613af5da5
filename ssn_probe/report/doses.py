"""Arms that differ in their dose alone: the factor on an activation, or the number of steps of a training."""

import math
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from ssn_probe.report.conditions import Row, summary_row
from ssn_probe.spec import Amplify, Each, Expand, MeanOf, Recipe, Suppress
from ssn_probe.spec.node import Node
from ssn_probe.study.arms import BASELINE, ArmName
from ssn_probe.study.summary import averaged, untouched

TO_MEAN = math.inf
"""The dose of an activation that is set to its harmless mean: no factor, so it stands last."""


def dose_groups(recipe: Recipe) -> list[list[str]]:
    """The names of such arms, least dose first, group by group."""
    groups: dict[Node, list[str]] = {}
    for name, node in recipe.arms.items():
        general = _without_dose(node)
        if general is not None and not isinstance(node.neurons, Each):
            groups.setdefault(general, []).append(name)
    return [sorted(arms, key=lambda arm: dose_of(recipe.arms[arm])) for arms in groups.values() if len(arms) > 1]


def untouched_row(summary: pl.DataFrame, arms: Sequence[str], measure: str, anchor: str | None) -> Row | None:
    """The untouched model on the average over the languages of the doses; no interval where these are not its own."""
    row = summary_row(summary, BASELINE, measure, role=BASELINE)
    measured = [arm for arm in arms if summary_row(summary, arm, measure) is not None]
    if row is None or not measured:
        return row
    name = ArmName(measured[0])
    languages = averaged(summary, name, measure, anchor)
    if languages == averaged(summary, ArmName(BASELINE), measure, anchor, role=BASELINE):
        return row
    own = summary.filter(pl.col("language").is_in(languages), measure=measure, role=BASELINE)
    return {**row, "value": untouched(summary, name, measure, anchor), "low": None, "high": None, "n": own["n"].sum()}


def dose_label(node: Node, dose: float | None = None) -> str:
    """`×2`, `60 steps`: the node's own dose, or another of the kind."""
    dose = dose_of(node) if dose is None else dose
    if isinstance(node, Expand):
        return f"{dose:g} steps"
    return "harmless mean" if dose == TO_MEAN else f"×{dose:g}"


def dose_of(node: Node) -> float:
    """The factor on the activation, 0 where it is silenced, or the number of steps."""
    if isinstance(node, Expand):
        return float(node.training.steps or 0)
    if isinstance(node, Suppress):
        return TO_MEAN if isinstance(node.to, MeanOf) else 0.0
    assert isinstance(node, Amplify)
    return node.by


def _without_dose(node: Node) -> Node | None:
    """The same node for every dose; None for one that has none."""
    if isinstance(node, Suppress):
        return Amplify(node.neurons, by=2.0)
    if isinstance(node, Amplify):
        return replace(node, by=2.0)
    if isinstance(node, Expand) and node.at is None and node.training.steps is not None:
        return replace(node, training=replace(node.training, steps=None))
    return None
