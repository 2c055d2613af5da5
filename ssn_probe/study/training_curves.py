"""Learning curves as tables: what every training gives and costs after so many steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from ssn_probe.spec import Expand, RandomLike, Recipe, Trains, last_of
from ssn_probe.spec.labels import set_label
from ssn_probe.spec.node import Node, walk
from ssn_probe.stats import Estimate
from ssn_probe.study.arms import BASELINE, TESTED, ArmName
from ssn_probe.study.deltas import TrainedArm
from ssn_probe.study.summary import AVERAGE, against_others, averaged

CURVE_MEASURES = ("asr", "over_refusal", "utility")
UNTOUCHED = "untouched"
RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm as a point: its curve, the steps that were taken, the group of like curves, and how much was trained."""

    curve: str
    step: int
    group: str
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much higher a measure is on a curve, after so many steps, than on the mean of its random sets."""

    curve: str
    step: int
    measure: str
    random_sets: int
    estimate: Estimate


SCHEMA = {"curve": pl.String, "group": pl.String, "step": pl.Int64, "parameters": pl.Int64, "n": pl.Int64} | {
    f"{measure}{end}": pl.Float64 for measure in CURVE_MEASURES for end in ("", "_low", "_high")
}


def curve_table(summary: pl.DataFrame, points: Mapping[ArmName, Point]) -> pl.DataFrame:
    """One row per point, by curve and step, after a row of the model as it was: `SCHEMA`.

    Measures are those of the average over languages, with their 95 % intervals, null where they were not measured;
    `n`: responses to harmful prompts.
    """
    origin = Point(curve=UNTOUCHED, step=0, group=UNTOUCHED, parameters=0)
    order = list(dict.fromkeys(point.curve for point in points.values()))
    ranked = sorted(points.items(), key=lambda item: (order.index(item[1].curve), item[1].step))
    rows = [_row(summary, arm, TESTED, point) for arm, point in ranked]
    return pl.DataFrame([_row(summary, ArmName(BASELINE), BASELINE, origin), *rows], schema=SCHEMA)


def _row(summary: pl.DataFrame, arm: ArmName, role: str, point: Point) -> dict[str, Any]:
    row: dict[str, Any] = dict(vars(point))
    for measure in CURVE_MEASURES:
        cells = summary.filter(arm.rows, role=role, measure=measure, language=AVERAGE)
        if cells.height:
            found = cells.row(0, named=True)
            row |= {measure: found["value"], f"{measure}_low": found["low"], f"{measure}_high": found["high"]}
            row |= {"n": found["n"]} if measure == "asr" else {}
    return {name: row.get(name) for name in SCHEMA}


def comparable_points(
    recipe: Recipe, trained: Sequence[TrainedArm], summary: pl.DataFrame, anchor: str | None
) -> tuple[dict[ArmName, Point], list[str]]:
    """The arms that are points of a curve, and the curves that are left out.

    A curve whose average is over other languages than the untouched model's is left out: it begins elsewhere.
    """
    points = _points(recipe, trained)
    if not points or summary.is_empty():
        return {}, []
    measure = summary["measure"][0]
    usual = averaged(summary, ArmName(BASELINE), measure, anchor, role=BASELINE)
    found = {arm: point for arm, point in points.items() if averaged(summary, arm, measure, anchor) == usual}
    return found, sorted({point.curve for arm, point in points.items() if arm not in found})


def _points(recipe: Recipe, trained: Sequence[TrainedArm]) -> dict[ArmName, Point]:
    """One training at several steps, or one set trained for several lengths."""
    curves = {name: name for name in learning_curves(recipe)} | _lengths(recipe)
    found = {}
    for training in trained:
        node = last_of(recipe.arms[training.arm])
        if not isinstance(node, Trains) or training.arm not in curves:
            continue
        step = training.steps["chosen"] if training.step is None else training.step
        parameters = next(row["parameters"] for row in training.parameters if row["site"] == "all")
        curve = curves[training.arm]
        group = RANDOM if any(isinstance(inner, RandomLike) for inner in walk(node)) else curve
        found[training.name] = Point(curve=curve, step=step, group=group, parameters=parameters)
    return found


def learning_curves(recipe: Recipe) -> dict[str, Trains]:
    """The arms that stand for one row per step of a training."""
    return {name: node for name, node in recipe.arms.items() if isinstance(node, Trains) and node.at is not None}


def _lengths(recipe: Recipe) -> dict[str, str]:
    """Arms that differ in the number of steps alone, each with a name for all of them."""
    groups: dict[Node, list[str]] = {}
    for name, node in recipe.arms.items():
        if isinstance(node, Trains) and node.at is None:
            groups.setdefault(replace(node, training=replace(node.training, steps=None)), []).append(name)
    several = {node: names for node, names in groups.items() if len(names) > 1}
    labels = [set_label(node.neurons) if isinstance(node, Expand) else "" for node in several]
    return {
        name: label if label and labels.count(label) == 1 else " / ".join(names)
        for label, names in zip(labels, several.values(), strict=True)
        for name in names
    }


def curve_differences(
    recipe: Recipe, trained: Sequence[TrainedArm], samples: pl.DataFrame, anchor: str | None
) -> list[Difference]:
    """Every learning curve beside the random sets of as many neurons that were trained as long, step by step."""
    found = []
    for curve, others in _matched(recipe).items():
        for step in [training.step for training in trained if training.arm == curve]:
            names = [ArmName(other, step=step) for other in others]
            for measure in CURVE_MEASURES:
                estimate = against_others(samples, ArmName(curve, step=step), names, measure, anchor)
                if estimate is not None:
                    options = {"measure": measure, "random_sets": len(others), "estimate": estimate}
                    found.append(Difference(curve=curve, step=step or 0, **options))
    return found


def _matched(recipe: Recipe) -> dict[str, list[str]]:
    """Curve → the curves of random sets that are drawn like its set."""
    curves = learning_curves(recipe)
    matched = {name: [other for other, drawn in curves.items() if _drawn_like(drawn, curves[name])] for name in curves}
    return {name: others for name, others in matched.items() if others}


def _drawn_like(drawn: Trains, node: Trains) -> bool:
    """The same training of a random set that is drawn like the set of `node`?"""
    like = isinstance(drawn.neurons, RandomLike) and drawn.neurons.neurons == node.neurons
    return like and replace(drawn, neurons=node.neurons) == node
