"""Parts of specifications that several charts use: layers with their own rows, and rows that are placed by pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssn_probe.report.charts.theme import INK

Rows = Sequence[Mapping[str, Any]]
LITERAL = {"field": "colour", "type": "nominal", "scale": None}
"""The colour that a row names."""
SPOKEN = {"field": "says", "type": "nominal"}
"""What a mark shows, in words: its tooltip."""


def layer(mark: str, rows: Rows, *, look: Mapping[str, Any] | None = None, **encoding: Any) -> dict[str, Any]:
    """Marks of the same kind, one per row; each says what the row's `says` has, none without."""
    says = bool(rows) and "says" in rows[0]
    spoken = {"description": SPOKEN} if says else {}
    kind = {"type": mark, **({} if says else {"aria": False}), **(look or {})}
    return {"mark": kind, "data": {"values": list(rows)}, "encoding": {**encoding, **spoken}}


def measured(field: str, title: str | None, ends: tuple[float, float], **axis: Any) -> dict[str, Any]:
    """An axis of a number between two ends."""
    scale = {"domain": list(ends), "nice": False, "zero": False}
    shown = None if title is None else {"title": title, "tickCount": 6, **axis}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": shown}


def pixels(field: str) -> dict[str, Any]:
    """Where a field says, in pixels from the top or from the left."""
    return {"field": field, "type": "quantitative", "scale": None, "axis": None}


def names(rows: Rows, *, at: float, limit: float, **look: Any) -> dict[str, Any]:
    """The `text` of every row at its `y`, `at` pixels from the left; to the left of what is before the beginning."""
    shown = {"align": "right" if at < 0 else "left", "baseline": "middle", "color": INK, "limit": limit, **look}
    return layer("text", rows, look=shown, x={"value": at}, y=pixels("y"), text={"field": "text"})


def key(rows: Rows, *, at: float, limit: float) -> list[dict[str, Any]]:
    """A square of each row's colour at its `y`, and its `text` beside."""
    squares = {"filled": True, "shape": "square", "opacity": 1, "size": 70}
    swatches = layer("point", rows, look=squares, x={"value": at}, y=pixels("y"), color=LITERAL)
    return [swatches, names(rows, at=at + 10, limit=limit)]


def share_ends(values: Sequence[float | None], least: float = 0.0) -> tuple[float, float]:
    """The ends of an axis of shares in %: from `least` to the next step above the largest, 100 at most."""
    largest = max([value for value in values if value is not None], default=0.0)
    return least, next(end for end in (5, 10, 20, 40, 60, 80, 100) if end >= min(largest, 100))
