"""Room at the sides of a drawing for the reader's own font, which may be wider than what vl-convert measured."""

import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator

NARROW, MIDDLE, WIDE, FULL = 0.4, 0.64, 0.77, 1.0
"""Widths in em of DejaVu Sans, the widest of the fonts that systems call sans-serif."""
BOLD = 1.1
MARGIN = 6
"""Units that stay free beside the longest text."""


def with_room(root: ET.Element) -> None:
    """Widens the view box of `root` to what its texts need in a wide font; a drawing that has the room stays."""
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    ends = list(_ends(root, 0.0))
    first = min([left, *(start - MARGIN for start, _ in ends)])
    last = max([left + width, *(end + MARGIN for _, end in ends)])
    root.attrib["viewBox"] = f"{first:g} {top:g} {round(last - first, 1):g} {height:g}"


def _ends(element: ET.Element, x: float) -> Iterator[tuple[float, float]]:
    """Where every level text begins and ends at most, in units of the drawing."""
    moved = element.get("transform", "")
    if "rotate" in moved:
        return
    if found := re.match(r"translate\(([-\d.e]+)", moved):
        x += float(found[1])
    if element.tag.endswith("}text") and element.get("opacity") != "0":
        bold = BOLD if element.get("font-weight") == "bold" else 1
        size = float(element.get("font-size", "12px").removesuffix("px")) * bold
        lines = [child.text or "" for child in element if child.tag.endswith("}tspan")]
        for line in lines or [element.text or ""]:
            wide = size * sum(map(_width, line))
            start = x - wide * {"middle": 0.5, "end": 1.0}.get(element.get("text-anchor", "start"), 0.0)
            yield start, start + wide
        return
    for child in element:
        yield from _ends(child, x)


def _width(letter: str) -> float:
    if unicodedata.combining(letter) or unicodedata.category(letter) == "Cf":
        return 0
    if letter in "mwMW%@—" or unicodedata.east_asian_width(letter) in ("W", "F"):
        return FULL
    if letter in " .,;:'!|()[]ijlftrI-/\"":
        return NARROW
    return WIDE if letter.isupper() else MIDDLE
