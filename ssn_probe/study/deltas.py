"""What a run keeps of its trainings: delta files, learning curves, and what each cost in over-refusal and utility."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from ssn_probe.files import write_table
from ssn_probe.report.charts import cost_chart, save_chart
from ssn_probe.report.learning_curves import Point, curve_table
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec import Expand, RandomLike, Recipe, Trains, last_of
from ssn_probe.spec.labels import set_label
from ssn_probe.spec.node import Node, walk
from ssn_probe.study.arms import AT, BASELINE, Arm, row_of
from ssn_probe.study.delta_effects import measured_of
from ssn_probe.study.resolve import evaluated
from ssn_probe.study.run_arms import trained_for
from ssn_probe.study.steps import training_label
from ssn_probe.study.summary import against_others, averaged
from ssn_probe.study.trained_weights import stated, trained
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import listing, percent, plain, points

CHART, CHART_TITLE = "plots/cost", "ASR against over-refusal and utility, step by step"
RANDOM = "random"
MEASURES = {"asr": "ASR", "over_refusal": "over-refusal", "utility": "utility"}


def write_deltas(
    bench: Workbench, recipe: Recipe, arms: Sequence[Arm], run: RunFolder, summary: pl.DataFrame
) -> dict[str, Any]:
    """Writes the change that every arm trained, with what it did, and the histories of the trainings.

    Returns what is stated of each, by the arm's name and, where it was trained without a language, that language's.
    """
    told: dict[str, Any] = {}
    histories: dict[str, pl.DataFrame] = {}
    languages = evaluated(recipe, bench.data)
    for arm in arms:
        for language, (node, neurons) in trained_for(bench, arm, languages).items():
            outcome = trained(bench, node, neurons, training_label(arm.row))
            without = "" if language is None else f".without({language})"
            file = stated(bench, node, outcome.file(arm.step))
            if isinstance(arm.does, Trains):  # what was measured is the training, and nothing done after it
                effects = summary if language is None else summary.filter(pl.col("language") == language)
                file = replace(
                    file,
                    about={**file.about, "measured": measured_of(effects, arm.name, run=run.name, anchor=bench.anchor)},
                )
            _write(run, f"{arm.name}{without}", file)
            histories[f"{arm.row}{without}"] = outcome.history
            told[f"{arm.name}{without}"] = _stated(arm, file)
    if histories:
        frames = [history.select(pl.lit(name).alias("arm"), pl.all()) for name, history in histories.items()]
        write_table(run.path / "training.parquet", pl.concat(frames))
    return told


def _write(run: RunFolder, name: str, file: Any) -> None:
    """A delta file; of LoRA also the folder that peft loads."""
    from ssn_probe.training.delta_file.file import write_delta
    from ssn_probe.training.weights.adapter import Adapter, save_adapter

    write_delta(run.path / "deltas" / f"{file_name(name)}.safetensors", file)
    if isinstance(file.delta, Adapter):
        save_adapter(run.path / "adapters" / file_name(name), file)


def file_name(arm: str) -> str:
    """`ss.at(8)` as `ss.at-8`, for shells. A recipe's names have no point before a letter: no two arms share a file."""
    return arm.replace("(", "-").replace(")", "")


def _stated(arm: Arm, file: Any) -> dict[str, Any]:
    said = {name: file.about[name] for name in ("method", "steps", "held_out_loss", "parameters", "data")}
    return said | {"arm": arm.name, "row": arm.row, "step": arm.step}


# ── curves ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def curves(
    bench: Workbench, recipe: Recipe, told: Mapping[str, Any], summary: pl.DataFrame, run: RunFolder
) -> pl.DataFrame | None:
    """Writes table and chart of what each training gives and costs, step by step; None where there are no points.

    A curve whose average is over other languages than the untouched model's is left out: it begins elsewhere.
    """
    points = _points(recipe, told)
    if not points or summary.is_empty():
        return None
    measure = summary["measure"][0]
    usual = averaged(summary, BASELINE, measure, bench.anchor, role=BASELINE)
    found = {arm: point for arm, point in points.items() if averaged(summary, arm, measure, bench.anchor) == usual}
    others = {point.curve for arm, point in points.items() if arm not in found}
    if others:
        bench.warn(f"{listing(sorted(others))}: averaged over other languages than the rest, so not among the curves")
    if not found:
        return None
    table = curve_table(summary, found)
    write_table(run.path / "curves.parquet", table)
    save_chart(cost_chart(table), run.path / CHART)
    return table


def _points(recipe: Recipe, told: Mapping[str, Any]) -> dict[str, Point]:
    """The arms that are points of a curve: one training at several steps, or one set trained for several lengths."""
    curves = {name: name for name, node in recipe.arms.items() if isinstance(node, Trains) and node.at is not None}
    curves |= _lengths(recipe)
    found = {}
    for said in told.values():
        node = last_of(recipe.arms[said["row"]])
        if not isinstance(node, Trains) or said["row"] not in curves:
            continue
        step = said["steps"]["chosen"] if said["step"] is None else said["step"]
        parameters = next(row["parameters"] for row in said["parameters"] if row["site"] == "all")
        curve = curves[said["row"]]
        group = RANDOM if any(isinstance(one, RandomLike) for one in walk(node)) else curve
        found[said["arm"]] = Point(curve=curve, step=step, group=group, parameters=parameters)
    return found


def _lengths(recipe: Recipe) -> dict[str, str]:
    """Arms that differ in the number of steps alone, each with a name for all of them."""
    groups: dict[Node, list[str]] = {}
    for name, node in recipe.arms.items():
        if isinstance(node, Trains) and node.at is None:
            groups.setdefault(replace(node, training=replace(node.training, steps=None)), []).append(name)
    several = {node: names for node, names in groups.items() if len(names) > 1}
    words = [set_label(node.neurons) if isinstance(node, Expand) else "" for node in several]
    return {
        name: word if word and words.count(word) == 1 else " / ".join(names)
        for word, names in zip(words, several.values(), strict=True)
        for name in names
    }


def ends(summary: pl.DataFrame) -> pl.DataFrame:
    """A summary without the points of learning curves but the last of each: what a table per language has room for."""
    names = [name for name in summary["arm"].unique(maintain_order=True) if AT in name]
    last = {row_of(name): name for name in names}
    return summary.filter(~pl.col("arm").is_in([name for name in names if name not in last.values()]))


def curve_lines(
    recipe: Recipe,
    table: pl.DataFrame,
    told: Mapping[str, Any],
    samples: pl.DataFrame,
    anchor: str | None,
) -> Iterator[str]:
    """One line per learning curve; then each beside the random sets of as many neurons that were trained as long."""
    at = [name for name, node in recipe.arms.items() if isinstance(node, Trains) and node.at is not None]
    for (curve,), rows in table.filter(pl.col("curve").is_in(at)).group_by("curve", maintain_order=True):
        values = "; ".join(
            f"{words} {' → '.join(percent(value) for value in rows[measure])}"
            for measure, words in MEASURES.items()
            if rows[measure].null_count() == 0
        )
        steps = listing([str(step) for step in rows["step"]])
        if not values:
            continue
        yield f"{plain(str(curve))}, {rows['parameters'][0]:,} parameters, after {steps} steps: {values}."
    for arm, others in _matched(recipe).items():
        steps = [said["step"] for said in told.values() if said["row"] == arm]
        parts = [_against(arm, step, others, samples, anchor, recipe.seed) for step in steps]
        yield (
            f"{plain(arm)} less the mean of its {len(others)} random sets, in points: {'; '.join(parts)} (95 % "
            "intervals over prompts, for these very sets; descriptive, no test)."
        )


def _matched(recipe: Recipe) -> dict[str, list[str]]:
    """Curve → the curves of random sets that are drawn like its set."""
    curves = {name: node for name, node in recipe.arms.items() if isinstance(node, Trains) and node.at is not None}
    found: dict[str, list[str]] = {}
    for name, node in curves.items():
        others = [other for other, drawn in curves.items() if _drawn_like(drawn, node)]
        if others:
            found[name] = others
    return found


def _drawn_like(drawn: Trains, node: Trains) -> bool:
    """The same training in all else?"""
    like = isinstance(drawn.neurons, RandomLike) and drawn.neurons.neurons == node.neurons
    return like and replace(drawn, neurons=node.neurons) == node


def _against(arm: str, step: int, others: Sequence[str], samples: pl.DataFrame, anchor: str | None, seed: int) -> str:
    names, parts = [f"{other}{AT}{step})" for other in others], []
    for measure, words in MEASURES.items():
        found = against_others(samples, f"{arm}{AT}{step})", names, measure, anchor, seed)
        if found is not None and (measure != "utility" or found.value):
            parts.append(f"{words} {points(found.value)} ({points(found.low)} to {points(found.high)})")
    return f"after {step} steps {', '.join(parts)}"
