"""One chart of the table: average precision of every method, with its interval over organisms."""

from typing import Any

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.cost_chart import PALETTE

PANELS = {"AP D": "harmful rather than harmless (D)", "AP H": "harmful (H)"}


def picture(found: pl.DataFrame) -> Chart:
    """Two panels, D and H: a point and a bar per method, in the order of D."""
    shown = found.filter(pl.col("column").is_in(list(PANELS)))
    order = shown.filter(column="AP D").sort("mean", descending=True)["method"].to_list()
    fewest, most = shown["organisms"].min(), shown["organisms"].max()
    count, best = most if fewest == most else f"{fewest} to {most}", order[0]
    subtitle = [f"Average precision among the neurons of the planted places; n = {count} organisms.",
                "Bars: 95 % intervals by Student's t over organisms."]  # fmt: skip
    spoken = f"Average precision of {len(order)} methods against two questions; the highest for D is {best}."
    body = {"hconcat": [_panel(shown.filter(column=one), title, order) for one, title in PANELS.items()], "spacing": 24}
    return chart("identification", f"Highest average precision for D: {best}", spoken, body, subtitle=subtitle)


def _panel(rows: pl.DataFrame, title: str, order: list[str]) -> dict[str, Any]:
    values = [
        {name: None if value != value else value for name, value in row.items()}
        for row in rows.select("method", "mean", "low", "high").iter_rows(named=True)
    ]
    y = {"field": "method", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 300}}
    x = {"type": "quantitative", "title": title, "scale": {"domain": [0, 1], "clamp": True}}
    return {
        "width": 230,
        "height": {"step": 14},
        "data": {"values": values},
        "layer": [
            {
                "mark": {"type": "rule", "color": PALETTE[0]},
                "encoding": {"y": y, "x": x | {"field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "color": PALETTE[0]},
                "encoding": {"y": y, "x": x | {"field": "mean"}},
            },
        ],
    }
