"""What every training gives and costs, step by step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ssn_probe.report.charts.chart import Chart
from ssn_probe.report.charts.theme import BLACK, COLOURS, CONFIG, MUTED, drawable
from ssn_probe.report.finished import FinishedRun
from ssn_probe.study.training_curves import CURVE_MEASURES, RANDOM, UNTOUCHED

if TYPE_CHECKING:
    import altair as alt

SHAPES = ("circle", "square", "triangle-up", "cross", "triangle-down", "triangle-right")
"""Of the steps, in order; where there are more they begin again, larger. The diamond is the untouched model."""
SIZES = (55, 110)
SIDE = 340
NONE = ""
TITLES = {"asr": "ASR, %", "over_refusal": "over-refusal, %", "utility": "utility, %", "step": "steps"}
BETTER = {"over_refusal": "better: towards the lower left", "utility": "better: towards the lower right"}


def draw(run: FinishedRun) -> Chart | None:
    """The learning curves of a run; None where there are none."""
    curves = run.findings.curves
    if curves is None:
        return None
    title = "ASR against over-refusal and utility, step by step"
    return Chart(title=title, description=title, specification=cost_chart(curves).to_dict())


def cost_chart(curves: pl.DataFrame) -> "alt.HConcatChart":
    """ASR against over-refusal, and against utility: one line per curve, its steps in order, from the untouched model.

    `curves`: see `training_curves.curve_table`; those of the group `random` share a colour. Bars: 95 % intervals. Where
    ASR or both costs were not measured, what was measured is drawn against the steps.
    """
    import altair as alt

    drawn = curves.with_columns(pl.col("curve", "group").map_elements(drawable, return_dtype=pl.String))
    rows = _in_percent(drawn)
    measured = [measure for measure in CURVE_MEASURES if curves[measure].null_count() < curves.height]
    costs = [measure for measure in measured if measure != "asr"]
    pairs = [(cost, "asr") for cost in costs] if "asr" in measured else []
    panels = [_panel(drawn, rows, x, y) for x, y in pairs or [("step", measure) for measure in measured]]
    title = alt.TitleParams(text="What training gives and costs, step by step", subtitle=_subtitle(curves))
    return alt.hconcat(*panels, spacing=28).properties(title=title).configure(**CONFIG)


def _subtitle(curves: pl.DataFrame) -> list[str]:
    n = sorted(curves["n"].drop_nulls())
    spread = " to ".join(dict.fromkeys(f"{count:,}" for count in (*n[:1], *n[-1:])))
    counted = f"; n = {spread} harmful prompts a point" if n else ""
    return [f"Averages over languages{counted}. Bars: 95 % intervals over prompts."]


def _in_percent(curves: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows for altair, in the order in which they are drawn: random sets below, the untouched model on top."""
    figures = [name for name in curves.columns if name.startswith(CURVE_MEASURES)]
    rows = curves.with_columns(pl.col(figures) * 100).to_dicts()
    for row in rows:
        row["colour"] = NONE if not row["step"] else RANDOM if row["group"] == RANDOM else row["curve"]
        row["mark"] = str(row["step"]) if row["step"] else UNTOUCHED
    return sorted(rows, key=lambda row: (not row["step"], row["group"] != RANDOM))


def _panel(curves: pl.DataFrame, rows: Sequence[dict[str, Any]], across: str, up: str) -> Any:
    import altair as alt

    wide, high = _scale(curves, across), _scale(curves, up)
    x = alt.X(f"{across}:Q", title=TITLES[across], scale=wide, axis=alt.Axis(tickCount=6))
    y = alt.Y(f"{up}:Q", title=TITLES[up], scale=high)
    colour = _colour(curves)
    lines = alt.Chart(alt.InlineData(values=_from_the_origin(rows))).mark_line(strokeWidth=1.8, opacity=0.8)
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(color=colour)
    bars = base.mark_rule(opacity=0.4)
    layers = [lines.encode(x=x, y=y, color=colour, order="step:Q", detail="curve:N")]
    if across != "step":
        layers.append(bars.encode(x=alt.X(f"{across}_low:Q", scale=wide), x2=f"{across}_high:Q", y=y))
    layers.append(bars.encode(x=x, y=alt.Y(f"{up}_low:Q", scale=high), y2=f"{up}_high:Q"))
    layers.append(base.mark_point(filled=True, opacity=1).encode(x=x, y=y, **_marks(curves)))
    better = alt.TitleParams(
        text=BETTER.get(across, ""), fontSize=12, fontWeight="normal", color="#444444", anchor="end", offset=4
    )
    return alt.layer(*layers).properties(width=SIDE, height=SIDE, title=better)


def _from_the_origin(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every curve begins where the model was."""
    origin = next(row for row in rows if not row["step"])
    learned = [row for row in rows if row["step"]]
    colours = {row["curve"]: row["colour"] for row in learned}
    return [*learned, *({**origin, "curve": curve, "colour": colour} for curve, colour in colours.items())]


def _scale(curves: pl.DataFrame, measure: str) -> Any:
    """From 0 to the highest bar, or from the lowest bar to 100 for utility: no axis goes beyond what a share can be."""
    import altair as alt

    if measure == "step":
        return alt.Scale(domain=[0, max(curves["step"])], nice=True)
    lows, highs = (100 * curves[f"{measure}_{end}"].drop_nulls() for end in ("low", "high"))
    return alt.Scale(domain=[min(lows), 100] if measure == "utility" else [0, max(highs)], nice=True)


def _colour(curves: pl.DataFrame) -> Any:
    import altair as alt

    grouped = curves.filter(pl.col("step") > 0).with_columns(random=pl.col("group") == RANDOM)
    names = list(grouped.filter(~pl.col("random"))["curve"].unique(maintain_order=True))
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(names))]
    if grouped["random"].any():
        names, colours = [*names, RANDOM], [*colours, MUTED]
    scale = alt.Scale(domain=[*names, NONE], range=[*colours, BLACK])
    return alt.Color("colour:N", scale=scale, sort=None, legend=alt.Legend(title="trained", values=names))


def _marks(curves: pl.DataFrame) -> dict[str, Any]:
    """Shape and size, which say after how many steps."""
    import altair as alt

    steps = [str(step) for step in curves["step"].unique().sort() if step]
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(steps))]
    rise = (SIZES[1] - SIZES[0]) / max(1, len(steps) - 1)
    sizes = [SIZES[0] + rise * place for place in range(len(steps))]
    legend = alt.Legend(title="steps", symbolFillColor="#444444", symbolStrokeWidth=0)
    domain = [UNTOUCHED, *steps]
    shape, size = (
        alt.Scale(type="ordinal", domain=domain, range=values) for values in (["diamond", *shapes], [SIZES[1], *sizes])
    )
    return {
        "shape": alt.Shape("mark:N", sort=None, legend=legend, scale=shape),
        "size": alt.Size("mark:N", sort=None, legend=legend, scale=size),
    }
