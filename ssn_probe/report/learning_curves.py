"""Learning curves as tables: what every training gives and costs after so many steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssn_probe.report.markdown_tables import ABSENT, table
from ssn_probe.study.arms import AT, BASELINE, TESTED
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import markdown, percent

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
            *(_cell(row, measure) for measure in MEASURES),
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
    """How much was trained, per site, and how each training went: one group of rows per training."""
    told: Mapping[str, Any] = manifest.get("expanded") or {}
    if not told:
        return ""
    body: list[list[str]] = []
    for name, points in _by_training(told):
        body += _trained_rows(name, points)
    header = ["trained", "site", "neurons", "parameters", "% of the model", "% of the site", "steps", "held-out loss"]
    note = (
        "Steps: done of those planned, and the one whose change was kept. A LoRA adapter is no neuron's own. The "
        "held-out loss is per response token, in nats, on rows of the train split that were not learned; a dash: not "
        "measured at that step.\n"
    )
    return f"## What was trained\n\n{table(header, body)}\n{note}"


def _by_training(told: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Points of one learning curve come from one training; one without another language is another training."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name, said in told.items():
        training = name if said["step"] is None else name.replace(f"{AT}{said['step']})", "", 1)
        found.setdefault(training, []).append(said)
    return list(found.items())


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
