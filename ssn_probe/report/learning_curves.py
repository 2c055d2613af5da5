"""Learning curves as tables: what every training gives and costs after so many steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssn_probe.report.markdown_tables import ABSENT, number, section, share_cell, table
from ssn_probe.study.arms import AT, BASELINE, TESTED
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import markdown

MEASURES = ("asr", "over_refusal", "utility")
UNTOUCHED = "untouched"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One arm as a point: its curve, the steps that were taken, the group of like curves, and how much was trained."""

    curve: str
    step: int
    group: str
    parameters: int


SCHEMA = {"curve": pl.String, "group": pl.String, "step": pl.Int64, "parameters": pl.Int64, "n": pl.Int64} | {
    f"{measure}{end}": pl.Float64 for measure in MEASURES for end in ("", "_low", "_high")
}


def curve_table(summary: pl.DataFrame, points: Mapping[str, Point]) -> pl.DataFrame:
    """One row per point, by curve and step, after one of the model as it was: `SCHEMA`.

    `points`: an arm's name → its point. Measures are those of the average over languages, with their 95 % intervals,
    null where they were not measured; `n`: responses to harmful prompts.
    """
    origin = Point(curve=UNTOUCHED, step=0, group=UNTOUCHED, parameters=0)
    order = list(dict.fromkeys(point.curve for point in points.values()))
    ranked = sorted(points.items(), key=lambda item: (order.index(item[1].curve), item[1].step))
    rows = [_row(summary, BASELINE, BASELINE, origin), *(_row(summary, arm, TESTED, point) for arm, point in ranked)]
    return pl.DataFrame(rows, schema=SCHEMA)


def _row(summary: pl.DataFrame, arm: str, role: str, point: Point) -> dict[str, Any]:
    row: dict[str, Any] = dict(vars(point))
    for measure in MEASURES:
        cells = summary.filter(arm=arm, role=role, measure=measure, language=AVERAGE)
        if cells.height:
            found = cells.row(0, named=True)
            row |= {measure: found["value"], f"{measure}_low": found["low"], f"{measure}_high": found["high"]}
            row |= {"n": found["n"]} if measure == "asr" else {}
    return {name: row.get(name) for name in SCHEMA}


def curve_section(curves: pl.DataFrame, anchor: str | None) -> str:
    """The table of the report: every curve, step by step."""
    body = [
        [
            markdown(row["curve"]),
            f"{row['parameters']:,}",
            str(row["step"]),
            *(share_cell(row, measure) for measure in MEASURES),
        ]
        for row in curves.rows(named=True)
    ]
    header = ["trained", "parameters", "steps", "ASR, %", "over-refusal, %", "utility, %"]
    over = "all languages" if anchor is None else f"the languages other than the anchor {markdown(anchor)}"
    note = (
        f"Averages over {over}, with 95 % intervals over prompts, none adjusted. At the same step, trainings of one "
        "batch size have seen as many rows: that is the budget, whatever the number of parameters. A point is better "
        "only where ASR *and* over-refusal are lower and utility is not: refusing everything also gives a low ASR.\n"
    )
    return section("What each training gives and costs", table(header, body), note)


# ── what was trained ─────────────────────────────────────────────────────────────────────────────────────────────────


def trained_section(manifest: Mapping[str, Any]) -> str:
    """How much was trained, per site, and how each training went: one group of rows per training."""
    trainings: Mapping[str, Any] = manifest.get("expanded") or {}
    if not trainings:
        return ""
    body = [row for name, steps in _by_training(trainings) for row in _training_rows(name, steps)]
    header = ["trained", "site", "neurons", "parameters", "% of the model", "% of the site", "steps", "held-out loss"]
    note = (
        "Steps: done of those planned, and the step or steps whose weights were kept. A LoRA adapter belongs to no "
        "single neuron. The held-out loss is per response token, in nats, on rows of the train split that were not "
        "learned: first before training, then at each step kept; a dash: not measured at that step.\n"
    )
    return section("What was trained", table(header, body), note)


def _by_training(trainings: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Points of one learning curve come from one training; one without another language is another training."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name, facts in trainings.items():
        training = name if facts["step"] is None else name.replace(f"{AT}{facts['step']})", "", 1)
        found.setdefault(training, []).append(facts)
    return list(found.items())


def _training_rows(name: str, points: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = []
    for row in points[0]["parameters"]:
        course = [_steps(points), _loss(points)] if row["site"] == "all" else ["", ""]
        neurons = f"{row['neurons']:,}" if row["neurons"] else ABSENT
        shares = [f"{row['percent']:.4f}", f"{row['percent_of_site']:.3f}"]
        rows.append([markdown(name), row["site"], neurons, f"{row['parameters']:,}", *shares, *course])
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
    return " → ".join(number(loss and loss["chosen"], 3) for loss in [{"chosen": base}, *losses])
