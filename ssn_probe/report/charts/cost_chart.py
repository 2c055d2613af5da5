"""What every training gives and costs, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.marks import LITERAL, Rows, key, layer, measured
from ssn_probe.report.charts.theme import COLOURS, INK, MORE, MUTED, arm_colours, drawable
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.measure_tables import SHORT
from ssn_probe.study.training_curves import CURVE_MEASURES, RANDOM
from ssn_probe.text import counted, percent

SIDE, KEY = 210, 150
TITLES = SHORT | {"step": "steps"}
BETTER = {"over_refusal": "better: towards the lower left", "utility": "better: towards the lower right"}
MOST_NAMES = 12
PALETTE = (COLOURS[0], *MORE)


def draw(run: FinishedRun) -> Chart | None:
    """The learning curves of a run; None where there are none."""
    curves = run.findings.curves
    return None if curves is None else cost_chart(curves, arm_colours(run.recipe))


def cost_chart(curves: pl.DataFrame, colours: Mapping[str, str] | None = None) -> Chart:
    """ASR against over-refusal, and against utility: one line per curve, its steps in order, from the untouched model.

    `curves`: see `training_curves.curve_table`; those of the group `random` share a colour. `colours`: of the curves
    that are arms. Bars: 95 % intervals. Where ASR or both costs were not measured, what was measured is drawn against
    the steps.
    """
    rows = _in_percent(curves, _colours(curves, colours or {}))
    measures = [measure for measure in CURVE_MEASURES if curves[measure].null_count() < curves.height]
    costs = [measure for measure in measures if measure != "asr"]
    pairs = [(cost, "asr") for cost in costs] if "asr" in measures else []
    panels = [_panel(curves, rows, x, y) for x, y in pairs or [("step", measure) for measure in measures]]
    named = _key(rows)
    if panels:
        panels[-1]["layer"] += key(named, at=SIDE + 14, limit=KEY)
    subtitle = _subtitle(curves)
    words = f"{_in_words(curves)} {' '.join(subtitle)}"
    return chart("curves", _title(curves), words, _beside(panels), subtitle=subtitle, legend=named)


def _beside(panels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"hconcat": list(panels), "spacing": 28}


def _colours(curves: pl.DataFrame, known: Mapping[str, str]) -> dict[str, str]:
    """Of every curve; what is no arm follows the arms."""
    own = curves.filter(pl.col("step") > 0, pl.col("group") != RANDOM)["curve"].unique(maintain_order=True)
    free = [colour for colour in PALETTE if colour not in known.values()] or list(PALETTE)
    others = [name for name in own if name not in known]
    return {name: known[name] for name in own if name in known} | {
        name: free[place % len(free)] for place, name in enumerate(others)
    }


def _in_percent(curves: pl.DataFrame, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows in the order in which they are drawn: random sets below, the untouched model on top."""
    figures = [name for name in curves.columns if name.startswith(CURVE_MEASURES)]
    rows = curves.with_columns(pl.col(figures) * 100).to_dicts()
    for row in rows:
        row["colour"] = INK if not row["step"] else colours.get(row["curve"], MUTED)
        row["name"] = drawable("random sets" if row["group"] == RANDOM else row["curve"], 30)
        row["text"] = str(row["step"]) if row["step"] and row["group"] != RANDOM else ""
        figures = [f"{TITLES[measure]} {row[measure]:.1f}" for measure in CURVE_MEASURES if row[measure] is not None]
        row["says"] = f"{drawable(row['curve'])}, {row['step']} steps: {', '.join(figures)}"
    return sorted(rows, key=lambda row: (not row["step"], row["group"] != RANDOM))


def _panel(curves: pl.DataFrame, rows: Rows, across: str, up: str) -> dict[str, Any]:
    x = measured(across, TITLES[across], _ends(curves, across))
    y = measured(up, TITLES[up], _ends(curves, up))
    known = {"x": x, "y": y, "color": LITERAL}
    thin = {"opacity": 0.4}
    lines = {"order": {"field": "step", "type": "quantitative"}, "detail": {"field": "curve", "type": "nominal"}}
    layers = [layer("line", _from_the_origin(rows), look={"strokeWidth": 1.8, "opacity": 0.8}, **known, **lines)]
    if across != "step":
        wide = {**known, "x": {**x, "field": f"{across}_low"}}
        layers.append(layer("rule", rows, look=thin, **wide, x2={"field": f"{across}_high"}))
    high = {**known, "y": {**y, "field": f"{up}_low"}}
    layers.append(layer("rule", rows, look=thin, **high, y2={"field": f"{up}_high"}))
    shape = {"condition": {"test": "datum.step == 0", "value": "diamond"}, "value": "circle"}
    layers.append(layer("point", rows, look={"filled": True, "opacity": 1, "size": 60}, **known, shape=shape))
    steps = [row for row in rows if row["text"]]
    above = {"dy": -9, "dx": 3, "align": "left", "fontSize": 11}
    layers.append(layer("text", _silent(steps), look=above, x=x, y=y, text={"field": "text"}))
    better = {"text": BETTER.get(across, ""), "fontSize": 12, "fontWeight": "normal", "color": MUTED, "anchor": "end"}
    return {"width": SIDE, "height": SIDE, "title": {**better, "frame": "group", "offset": 6}, "layer": layers}


def _silent(rows: Rows) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "says"} for row in rows]


def _key(rows: Rows) -> list[dict[str, Any]]:
    """The curves by colour, the untouched model first; numbers on the lines are steps."""
    named = dict.fromkeys((row["name"], row["colour"]) for row in reversed(rows))
    return [{"y": 10 + 18 * place, "text": name, "colour": colour} for place, (name, colour) in enumerate(named)][
        :MOST_NAMES
    ]


def _from_the_origin(rows: Rows) -> list[dict[str, Any]]:
    """Every curve begins where the model was."""
    origin = next(row for row in rows if not row["step"])
    learned = [row for row in rows if row["step"]]
    colours = {row["curve"]: row["colour"] for row in learned}
    return _silent([*learned, *({**origin, "curve": curve, "colour": colour} for curve, colour in colours.items())])


def _ends(curves: pl.DataFrame, measure: str) -> tuple[float, float]:
    """From 0 to the highest bar, or from the lowest bar to 100 for utility: no axis goes beyond what a share can be."""
    if measure == "step":
        return 0, max(curves["step"])
    lows, highs = (100 * curves[f"{measure}_{end}"].drop_nulls() for end in ("low", "high"))
    return (min([*lows, 99.0]), 100.0) if measure == "utility" else (0.0, max([*highs, 1.0]))


def _title(curves: pl.DataFrame) -> str:
    """What the last step of every curve gives, and costs."""
    own = curves.filter(pl.col("step") > 0, pl.col("group") != RANDOM)
    if own.is_empty() or own["asr"].null_count():
        return "What training gives and costs, step by step"
    last = own.filter(pl.col("step") == pl.col("step").max().over("curve"))
    best = last.sort("asr", maintain_order=True).row(0, named=True)
    before = curves.filter(step=0).row(0, named=True)
    steps = f"after {counted(best['step'], 'step')}"
    parts = [f"ASR {percent(before['asr'])} → {percent(best['asr'])}"] if before["asr"] is not None else []
    for measure, name in (("over_refusal", "over-refusal"), ("utility", "utility")):
        if before[measure] is not None and best[measure] is not None:
            parts.append(f"{name} {percent(before[measure])} → {percent(best[measure])}")
    return f"{drawable(best['curve'], 60)} {steps}: {', '.join(parts)}"


def _subtitle(curves: pl.DataFrame) -> list[str]:
    n = sorted(curves["n"].drop_nulls())
    spread = " to ".join(dict.fromkeys(f"{count:,}" for count in (*n[:1], *n[-1:])))
    known = f"; n = {spread} harmful prompts a point" if n else ""
    return [f"Averages over languages{known}. Numbers: steps. Bars: 95 % intervals over prompts."]


def _in_words(curves: pl.DataFrame) -> str:
    """Every curve's first and last point."""
    parts = []
    for (curve,), own in curves.group_by("curve", maintain_order=True):
        row = own.row(-1, named=True)
        figures = [f"{TITLES[one]} {100 * row[one]:.1f}" for one in CURVE_MEASURES if row[one] is not None]
        parts += [f"{drawable(str(curve))}, {row['step']} steps: {', '.join(figures)}"] if figures else []
    return f"{'; '.join(parts[:MOST_NAMES])}."
