import xml.etree.ElementTree as ET

import pytest

from ssn_probe.report.charts.margins import with_room
from ssn_probe.report.charts.svg import SVG


def drawing(text: str, anchor: str, x: float, *, inside: str = "") -> ET.Element:
    mark = f'<text text-anchor="{anchor}" transform="translate({x},20)" font-size="10px">{text}</text>'
    group = f'<g transform="translate(50,0)">{mark}{inside}</g>'
    return ET.fromstring(f'<svg xmlns="{SVG}" viewBox="0 0 200 50">{group}</svg>')


@pytest.mark.parametrize(
    ("anchor", "x", "letters", "box"),
    [
        ("start", 0, 15, "0 0 200 50"),
        ("start", 0, 30, "0 0 248 50"),
        ("start", 0, 31, "0 0 254.4 50"),
        ("end", 0, 10, "-20 0 220 50"),
        ("middle", 50, 40, "-34 0 268 50"),
    ],
)
def test_a_view_box_has_room_for_a_wide_font(anchor: str, x: float, letters: int, box: str) -> None:
    root = drawing("n" * letters, anchor, x)
    with_room(root)
    assert root.attrib["viewBox"] == box


def test_only_what_is_seen_and_level_needs_room() -> None:
    hidden = f'<text opacity="0" font-size="10px">{"n" * 90}</text>'
    upright = f'<text transform="translate(0,0) rotate(-90)" font-size="10px">{"n" * 90}</text>'
    root = drawing("n\u0301" * 5, "start", 0, inside=hidden + upright)
    with_room(root)
    assert root.attrib["viewBox"] == "0 0 200 50"


def test_the_longest_line_counts() -> None:
    root = drawing(f"<tspan>n</tspan><tspan>{'n' * 30}</tspan>", "start", 0)
    with_room(root)
    assert root.attrib["viewBox"] == "0 0 248 50"
