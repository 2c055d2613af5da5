"""Charts of figures in rows: a row per language, arm or dose, a panel per measure, a dot and interval per figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssn_probe.report.charts.marks import LITERAL, layer, measured, names, pixels
from ssn_probe.report.charts.theme import GRID, INK, WIDTH, drawable

ROW, LANE, NAMES, GAP = 14, 10, 150, 26


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A figure with its interval: in which row, and in which line of the row."""

    row: str
    value: float
    low: float | None = None
    high: float | None = None
    colour: str = INK
    shape: str = "circle"
    lane: int = 0
    says: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A measure: the title of its axis, between which ends, and its dots; `lined`: is a line drawn through them?"""

    title: str
    ends: tuple[float, float]
    dots: Sequence[Dot]
    lined: bool = False


def row_panels(rows: Sequence[str], panels: Sequence[Panel], *, lanes: int = 1, left: int = NAMES) -> dict[str, Any]:
    """Panels beside each other that share their rows, which are named on the left."""
    height = ROW + LANE * lanes
    middle = {name: height * (place + 0.5) for place, name in enumerate(rows)}
    width = (WIDTH - 24 - left - GAP * (len(panels) - 1)) / max(1, len(panels)) - 12
    drawn = [_panel(panel, middle, width, height, lanes) for panel in panels]
    heads = [{"y": y, "text": drawable(name)} for name, y in middle.items()]
    drawn[0]["layer"].append(names(heads, at=-10, limit=left - 14))
    return {"hconcat": drawn, "spacing": GAP}


def _panel(panel: Panel, middle: dict[str, float], width: float, height: float, lanes: int) -> dict[str, Any]:
    known = [
        {
            "y": middle[dot.row] + LANE * (dot.lane - (lanes - 1) / 2),
            "value": dot.value,
            "low": dot.low,
            "high": dot.high,
            "colour": dot.colour,
            "shape": dot.shape,
            "says": dot.says,
        }
        for dot in panel.dots
        if dot.row in middle
    ]
    x = measured("value", panel.title, panel.ends, tickCount=3, format="~f")
    y, shape = pixels("y"), {"field": "shape", "type": "nominal", "scale": None}
    edges = [{"y": here - height / 2} for here in list(middle.values())[1:]]
    bars = [dot for dot in known if dot["low"] is not None and dot["high"] is not None]
    layers = [layer("rule", edges, look={"color": GRID}, x={"value": 0}, x2={"value": width}, y=y)]
    if panel.lined:
        silent = [{key: dot[key] for key in ("y", "value")} for dot in known]
        order = {"field": "y", "type": "quantitative"}
        layers.append(layer("line", silent, look={"color": GRID, "strokeWidth": 2}, x=x, y=y, order=order))
    between = {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": LITERAL}
    layers.append(layer("rule", bars, look={"strokeWidth": 1.6}, **between))
    dots = {"filled": True, "opacity": 1, "size": 46}
    layers.append(layer("point", known, look=dots, x=x, y=y, color=LITERAL, shape=shape))
    return {"width": width, "height": height * len(middle), "layer": layers}
