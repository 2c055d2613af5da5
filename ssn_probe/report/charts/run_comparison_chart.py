"""Two runs beside each other: the paired difference of a measure per language, with its interval."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.theme import COLOURS, INK, drawable
from ssn_probe.report.compared_runs import compared_title
from ssn_probe.report.measure_tables import DIGITS
from ssn_probe.study.run_comparison import UNTOUCHED
from ssn_probe.study.summary import AVERAGE

WIDTH, ROW = 560, 24
UNITS = {True: "second run − first run", False: "second run − first run, percentage points"}


def differences_chart(parts: Sequence[pl.DataFrame], title: str, average: str) -> Chart:
    """A panel per thing that is compared on one measure, with a row per language: a dot and its 95 % interval.

    `parts`: the rows of every panel; `average`: what the average is called.
    """
    import altair as alt

    ends = [end for rows in parts for name in ("difference", "low", "high") for end in rows[name].drop_nulls()]
    scale = 1 if parts[0]["measure"][0] in DIGITS else 100
    across = alt.Scale(domain=[scale * min(0.0, *ends), scale * max(0.0, *ends)], nice=True)
    panels = [_panel(rows, scale, across, average) for rows in parts]
    n = sorted(count for rows in parts for count in rows.filter(pl.col("language") != AVERAGE)["n"])
    spread = " to ".join(dict.fromkeys(f"{count:,}" for count in (n[0], n[-1])))
    subtitle = f"Paired differences on the same prompts, n = {spread} a language. Bars: 95 % intervals."
    body = alt.vconcat(*panels, spacing=14).to_dict()
    body = {name: it for name, it in body.items() if name not in ("$schema", "config")}
    named = drawable(title, most=200)
    return chart(f"differences-{parts[0]['measure'][0]}", named, f"{named}. {subtitle}", body, subtitle=[subtitle])


def _panel(rows: pl.DataFrame, scale: int, across: Any, average: str) -> Any:
    import altair as alt

    points = [_point(row, scale, average) for row in rows.rows(named=True)]
    colour = INK if rows["compared"][0] == UNTOUCHED else COLOURS[0]
    y = alt.Y("language:N", sort=None, title=None, axis=alt.Axis(labelLimit=220, ticks=False, domain=False))
    x = alt.X("difference:Q", scale=across, title=UNITS[scale == 1])
    base = alt.Chart(alt.InlineData(values=points))
    known = alt.Chart(alt.InlineData(values=[point for point in points if point["low"] is not None]))
    layers = alt.layer(
        alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=INK, strokeDash=[5, 4]).encode(x="zero:Q"),
        known.mark_rule(strokeWidth=2, color=colour).encode(y=y, x=alt.X("low:Q", scale=across), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1, color=colour).encode(y=y, x=x, description="said:N"),
    )
    title = alt.TitleParams(drawable(compared_title(rows.row(0, named=True))), fontSize=13, offset=4)
    return layers.properties(width=WIDTH, height=ROW * len(points), title=title)


def _point(row: dict[str, Any], scale: int, average: str) -> dict[str, Any]:
    ends = {end: None if row[end] is None else scale * row[end] for end in ("low", "high")}
    language, value = drawable(average if row["language"] == AVERAGE else row["language"]), scale * row["difference"]
    interval = "" if ends["low"] is None else f", 95 % interval {ends['low']:+.1f} to {ends['high']:+.1f}"
    said = f"{language}: {value:+.1f}{interval}; n = {row['n']:,}"
    return {"language": language, "difference": value, "said": said} | ends
