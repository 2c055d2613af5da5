"""Pictures of a run: altair specifications, drawn by vl-convert, without a browser and without a network."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ssn_probe.curves import UNTOUCHED
from ssn_probe.results import write_whole

if TYPE_CHECKING:
    import altair as alt

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")
"""Okabe and Ito's palette, which the colour-blind can tell apart."""
MUTED = "#9a9a9a"
SIDE = 340
TITLES = {"asr": "ASR", "over_refusal": "over-refusal", "utility": "utility"}


def cost_chart(curves: pl.DataFrame, random: str = "random") -> "alt.HConcatChart":
    """ASR against over-refusal, and against utility: one line per curve, its steps in order, from the untouched model.

    `curves` as `curves.curve_table` makes it; the curves of the group `random` share one colour. Bars: 95 % intervals.
    """
    import altair as alt

    rows = _in_percent(curves, random)
    costs = [cost for cost in ("over_refusal", "utility") if curves[cost].null_count() < curves.height]
    panels = [_panel(rows, cost, _scale(rows, random)) for cost in costs]
    return (
        alt.hconcat(*panels, spacing=28)
        .properties(title=alt.TitleParams(text="What training gives and costs, step by step", subtitle=_said(curves)))
        .configure_view(stroke="#cccccc")
        .configure_axis(gridColor="#eeeeee", labelFontSize=12, titleFontSize=13)
        .configure_title(anchor="start", fontSize=16, subtitleFontSize=12, subtitleColor="#444444", offset=12)
        .configure_legend(labelFontSize=12, labelLimit=220)
        .configure(background="white", font="sans-serif", padding=12)
    )


def _said(curves: pl.DataFrame) -> list[str]:
    steps = ", ".join(str(step) for step in curves["step"].unique().sort() if step)
    n = curves["n"].drop_nulls().unique().sort()
    counted = f"{n[0]:,}" if len(n) == 1 else f"{n[0]:,} to {n[-1]:,}"
    return [
        f"Points, along each line: after {steps} steps; the diamond is the model as it was. Averages over languages; "
        f"n = {counted} harmful prompts a point.",
        "Bars: 95 % intervals over prompts. Better is towards the lower left, on the right the lower right.",
    ]


def _in_percent(curves: pl.DataFrame, random: str) -> list[dict[str, Any]]:
    """Rows for altair; every curve begins where the model was."""
    figures = [name for name in curves.columns if name.startswith(tuple(TITLES))]
    rows = curves.with_columns(pl.col(figures) * 100).to_dicts()
    origin = next(row for row in rows if row["curve"] == UNTOUCHED)
    for row in rows:
        row["colour"] = random if row["group"] == random else row["curve"]
    lines = {row["curve"]: row["colour"] for row in rows if row["curve"] != UNTOUCHED}
    return [*rows, *({**origin, "curve": curve, "colour": colour} for curve, colour in lines.items())]


def _scale(rows: list[dict[str, Any]], random: str) -> Any:
    import altair as alt

    names = [name for name in dict.fromkeys(row["colour"] for row in rows) if name not in (UNTOUCHED, random)]
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(names))]
    muted = [random] if any(row["colour"] == random for row in rows) else []
    return alt.Scale(domain=[*names, *muted], range=[*colours, *([MUTED] * len(muted))])


def _panel(rows: list[dict[str, Any]], cost: str, scale: Any) -> Any:
    import altair as alt

    learned = [row for row in rows if row["curve"] != UNTOUCHED]
    points = [row for row in learned if row["step"]]
    scale_x = alt.Scale(zero=cost == "over_refusal", nice=True, padding=0 if cost == "over_refusal" else 8)
    x = alt.X(f"{cost}:Q", title=f"{TITLES[cost]}, %", scale=scale_x)
    y = alt.Y("asr:Q", title="ASR, %", scale=alt.Scale(zero=True, nice=True))
    colour = alt.Color("colour:N", scale=scale, title=None, sort=None)
    told = [alt.Tooltip(name) for name in ("curve:N", "step:Q", "parameters:Q", "asr:Q", f"{cost}:Q")]
    base = alt.Chart(alt.InlineData(values=points)).encode(color=colour)
    layers = [
        alt.Chart(alt.InlineData(values=learned))
        .mark_line(strokeWidth=1.8, opacity=0.8)
        .encode(x=x, y=y, color=colour, order="step:Q", detail="curve:N"),
        base.mark_rule(opacity=0.35).encode(x=f"{cost}_low:Q", x2=f"{cost}_high:Q", y=y),
        base.mark_rule(opacity=0.35).encode(x=x, y="asr_low:Q", y2="asr_high:Q"),
        base.mark_point(filled=True, size=52, opacity=1).encode(x=x, y=y, tooltip=told),
        alt.Chart(alt.InlineData(values=[row for row in rows if row["curve"] == UNTOUCHED]))
        .mark_point(shape="diamond", filled=True, size=150, color="black", opacity=1)
        .encode(x=x, y=y),
    ]
    return alt.layer(*layers).properties(width=SIDE, height=SIDE)


def save_chart(chart: Any, path: Path) -> None:
    """Writes `path`.svg and `path`.png, each whole or not at all. Raises ResultError for what a disk can say."""
    import vl_convert

    specification = chart.to_dict()
    svg = vl_convert.vegalite_to_svg(specification)
    png = vl_convert.vegalite_to_png(specification, scale=2)
    write_whole(path.with_name(f"{path.name}.svg"), lambda temporary: temporary.write_text(svg, encoding="utf-8"))
    write_whole(path.with_name(f"{path.name}.png"), lambda temporary: temporary.write_bytes(png))
