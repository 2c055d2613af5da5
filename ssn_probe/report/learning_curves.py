"""What every training gives and costs after so many steps, for the answer and the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from ssn_probe.report.markdown_tables import ABSENT, table
from ssn_probe.spec import Recipe
from ssn_probe.study.training_curves import CURVE_MEASURES, Difference, learning_curves
from ssn_probe.text import listing, markdown, percent, plain, points

CHART, CHART_TITLE = "plots/cost", "ASR against over-refusal and utility, step by step"
NAMES = {"asr": "ASR", "over_refusal": "over-refusal", "utility": "utility"}


def curve_section(curves: pl.DataFrame, anchor: str | None) -> str:
    """The table of the report: every curve, step by step."""
    body = [
        [
            markdown(row["curve"]),
            f"{row['parameters']:,}",
            str(row["step"]),
            *(_cell(row, measure) for measure in CURVE_MEASURES),
        ]
        for row in curves.rows(named=True)
    ]
    header = ["trained", "parameters", "steps", "ASR", "over-refusal", "utility"]
    over = "all languages" if anchor is None else f"the languages other than the anchor {markdown(anchor)}"
    note = (
        f"Averages over {over}, with 95 % intervals over prompts, none adjusted. At the same step, trainings of one "
        "batch size have seen as many rows: that is the budget, whatever the number of parameters. A point is better "
        "only where ASR *and* over-refusal are lower and utility is not: a low ASR alone is had by refusing "
        "everything.\n"
    )
    return f"## What each training gives and costs\n\n{table(header, body)}\n{note}"


def _cell(row: Mapping[str, Any], measure: str) -> str:
    if row[measure] is None:
        return ABSENT
    return f"{percent(row[measure])} [{100 * row[f'{measure}_low']:.1f}, {100 * row[f'{measure}_high']:.1f}]"


# ── what was trained ─────────────────────────────────────────────────────────────────────────────────────────────────


def trained_section(manifest: Mapping[str, Any]) -> str:
    """How much was trained, per site, and how each training went: a group of rows per training."""
    trained: Sequence[Mapping[str, Any]] = manifest.get("trained") or ()
    if not trained:
        return ""
    points: dict[str, list[Mapping[str, Any]]] = {}
    for one in trained:
        name = one["arm"] if one["without"] is None else f"{one['arm']} without {one['without']}"
        points.setdefault(name, []).append(one)
    body = [row for name, several in points.items() for row in _trained_rows(name, several)]
    header = ["trained", "site", "neurons", "parameters", "% of the model", "% of the site", "steps", "held-out loss"]
    note = (
        "Steps: done of those planned, and the one whose change was kept. A LoRA adapter is no neuron's own. The "
        "held-out loss is per response token, in nats, on rows of the train split that were not learned; a dash: not "
        "measured at that step.\n"
    )
    return f"## What was trained\n\n{table(header, body)}\n{note}"


def _trained_rows(name: str, points: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    first = points[0]
    went = [_steps(points), _loss(points)]
    rows = []
    for row in first["parameters"]:
        numbers = [f"{row['neurons']:,}" if row["neurons"] else ABSENT, f"{row['parameters']:,}"]
        shares = [f"{row['percent']:.4f}", f"{row['percent_of_site']:.3f}"]
        whole = row["site"] == "all"
        rows.append([markdown(name), row["site"], *numbers, *shares, *(went if whole else ["", ""])])
    return rows


def _steps(points: Sequence[Mapping[str, Any]]) -> str:
    steps = points[0]["steps"]
    early = ", stopped early" if steps["done"] < steps["planned"] else ""
    kept = ", ".join(str(point["steps"]["chosen"]) for point in points)
    return f"{steps['done']} of {steps['planned']}{early}; kept {kept}"


def _loss(points: Sequence[Mapping[str, Any]]) -> str:
    """Before, and at every step that was kept; a dash where it was not measured at that step."""
    losses = [point["held_out_loss"] for point in points]
    base = next((loss["base"] for loss in losses if loss), None)
    if base is None:
        return ABSENT
    return " → ".join([f"{base:.3f}", *(f"{loss['chosen']:.3f}" if loss else ABSENT for loss in losses)])


def curve_lines(recipe: Recipe, curves: pl.DataFrame | None, differences: Sequence[Difference]) -> Iterator[str]:
    """A line per learning curve; then each beside the random sets of as many neurons that were trained as long."""
    if curves is None:
        return
    rows = curves.filter(pl.col("curve").is_in(list(learning_curves(recipe))))
    for (curve,), own in rows.group_by("curve", maintain_order=True):
        values = "; ".join(
            f"{name} {' → '.join(percent(value) for value in own[measure])}"
            for measure, name in NAMES.items()
            if own[measure].null_count() == 0
        )
        steps = listing([str(step) for step in own["step"]])
        if values:
            yield f"{plain(str(curve))}, {own['parameters'][0]:,} parameters, after {steps} steps: {values}."
    for curve in dict.fromkeys(one.curve for one in differences):
        mine = [one for one in differences if one.curve == curve]
        parts = [_step_differences(step, mine) for step in dict.fromkeys(one.step for one in mine)]
        yield (
            f"{plain(curve)} less the mean of its {mine[0].random_sets} random sets, in points: {'; '.join(parts)} "
            "(95 % intervals over prompts, for these very sets; descriptive, no test)."
        )


def _step_differences(step: int, differences: Sequence[Difference]) -> str:
    parts = [
        f"{NAMES[one.measure]} {points(one.estimate.value)} ({points(one.estimate.low)} to {points(one.estimate.high)})"
        for one in differences
        if one.step == step and (one.measure != "utility" or one.estimate.value)
    ]
    return f"after {step} steps {', '.join(parts)}"


def ends(summary: pl.DataFrame) -> pl.DataFrame:
    """A summary without the points of learning curves but the last of each, which is all a table has room for."""
    return summary.filter(pl.col("step").is_null() | (pl.col("step") == pl.col("step").max().over("arm")))
