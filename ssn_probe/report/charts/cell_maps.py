"""Maps: cells whose shade says how much, with the figure in each where there is room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssn_probe.report.charts.marks import LITERAL, layer, names, pixels
from ssn_probe.report.charts.theme import INK, ON_DARK, ON_LIGHT, drawable

LIGHT, DARK, WARM = (247, 248, 250), (8, 64, 120), (150, 56, 0)
LEAST_TEXT = 24
"""Cells narrower than so many pixels have no text; nor are names drawn beside rows closer than `LEAST_NAME`."""
LEAST_NAME = 11
Place = tuple[str, str]
"""The names of a row and of a column."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`share`: how dark, 0 to 1, and below 0 in another colour; `text`: what is written in it; `says`: its tooltip."""

    share: float
    text: str = ""
    says: str = ""


def shade(share: float) -> str:
    """The colour of a cell."""
    full, part = (DARK if share >= 0 else WARM), min(1.0, abs(share))
    return "#" + "".join(f"{round(low + (high - low) * part):02x}" for low, high in zip(LIGHT, full, strict=True))


def cell_map(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[Place, Cell],
    *,
    title: str,
    size: tuple[float, float],
    sides: str,
    left: float = 90,
) -> dict[str, Any]:
    """A panel. `size`: of a cell, across and down; `sides`: what rows and columns are; `left`: room for names."""
    wide, high = size
    known = [
        {
            "x": wide * columns.index(column),
            "x2": wide * (columns.index(column) + 1) - 1,
            "y": high * rows.index(row),
            "y2": high * (rows.index(row) + 1) - 1,
            "colour": shade(cell.share),
            "says": cell.says or f"{drawable(row)}, {drawable(column)}: {cell.text}",
        }
        for (row, column), cell in cells.items()
    ]
    place = {"x": pixels("x"), "x2": {"field": "x2"}, "y": pixels("y"), "y2": {"field": "y2"}}
    layers = [layer("rect", known, **place, color=LITERAL)]
    if min(wide, 2 * high) >= LEAST_TEXT:
        layers.append(_figures(rows, columns, cells, size))
    step = max(1, round(LEAST_NAME / high + 0.49))
    heads = [{"y": high * (n + 0.5), "text": drawable(row)} for n, row in enumerate(rows) if n % step == 0]
    layers += [names(heads, at=-8, limit=left - 12), _columns(columns, size, high * len(rows))]
    head = {"text": title, "subtitle": sides, "fontSize": 13, "offset": 8}
    return {"width": wide * len(columns), "height": high * len(rows), "title": head, "layer": layers}


def _figures(
    rows: Sequence[str], columns: Sequence[str], cells: Mapping[Place, Cell], size: tuple[float, float]
) -> dict[str, Any]:
    wide, high = size
    known = [
        {
            "x": wide * (columns.index(column) + 0.5),
            "y": high * (rows.index(row) + 0.5),
            "text": cell.text,
            "colour": ON_DARK if abs(cell.share) > 0.7 else ON_LIGHT,
        }
        for (row, column), cell in cells.items()
        if cell.text
    ]
    look = {"fontSize": 11, "baseline": "middle", "limit": wide - 2}
    place = {"x": pixels("x"), "y": pixels("y")}
    return layer("text", known, look=look, **place, text={"field": "text"}, color=LITERAL)


def _columns(columns: Sequence[str], size: tuple[float, float], bottom: float) -> dict[str, Any]:
    """The names below the map, turned where they are longer than a cell is wide."""
    wide, _ = size
    step = max(1, round(LEAST_NAME / wide + 0.49))
    known = [{"x": wide * (n + 0.5), "text": drawable(one)} for n, one in enumerate(columns) if n % step == 0]
    turned = max(len(one["text"]) for one in known) * 7 > wide * step if known else False
    look = {"color": INK, "limit": 100, "baseline": "top", "align": "center", "dy": 6}
    if turned:
        look |= {"angle": 270, "align": "right", "baseline": "middle", "dy": 0, "dx": -6}
    return layer("text", known, look=look, x=pixels("x"), y={"value": bottom}, text={"field": "text"})
