"""An SVG for a page that runs no script and loads nothing: with titles as tooltips, and colours that CSS can change."""

import re
import xml.etree.ElementTree as ET

from ssn_probe.report.charts.margins import with_room
from ssn_probe.report.charts.theme import CLASSES, CONFIG
from ssn_probe.text import isolated

SVG = "http://www.w3.org/2000/svg"
KEPT = frozenset(
    {"id", "class", "d", "x", "y", "x1", "x2", "y1", "y2", "dx", "dy", "width", "height", "viewBox", "transform"}
)
KEPT |= {
    "fill",
    "stroke",
    "opacity",
    "fill-opacity",
    "stroke-opacity",
    "stroke-width",
    "stroke-dasharray",
    "stroke-linecap",
}
KEPT |= {"text-anchor", "font-family", "font-size", "font-weight", "font-style", "clip-path"}
"""The attributes that a drawing needs."""


def clean_svg(drawn: str, name: str, title: str, description: str, *, headed: bool = True) -> str:
    """What vl-convert drew as an image with a name: scalable, without styles, links and what draws nothing.

    `name`: begins every id, so that several charts share a page. A mark's own description becomes its `<title>`.
    `headed`: title and subtitle are drawn; a page writes them beside the drawing, where they wrap.
    """
    ET.register_namespace("", SVG)
    root = ET.fromstring(drawn)
    if not headed:
        _behead(root)
    for element in root.iter():
        _clean(element, name)
        if element.text:
            element.text = isolated(element.text)
    _without_empty(root)
    with_room(root)
    for size in ("width", "height", "class"):
        root.attrib.pop(size, None)
    title_id, description_id = f"{name}-title", f"{name}-description"
    root.attrib |= {"class": "chart", "role": "img", "aria-labelledby": f"{title_id} {description_id}"}
    for place, (tag, identity, text) in enumerate([("title", title_id, title), ("desc", description_id, description)]):
        child = ET.Element(f"{{{SVG}}}{tag}", id=identity)
        child.text = text
        root.insert(place, child)
    return ET.tostring(root, encoding="unicode")


def _behead(root: ET.Element) -> None:
    """Removes the title of the whole chart, the one nearest to the root, and the room that its lines had."""
    level = [root]
    while level:
        for parent in level:
            for child in parent:
                if "role-title" in child.get("class", "").split():
                    left, top, width, height = map(float, root.attrib["viewBox"].split())
                    cut = max(map(_last_baseline, child.iter(f"{{{SVG}}}text"))) + CONFIG["title"]["offset"]
                    root.attrib["viewBox"] = f"{left:g} {top + cut:g} {width:g} {height - cut:g}"
                    parent.remove(child)
                    return
        level = [child for parent in level for child in parent]


def _last_baseline(text: ET.Element) -> float:
    """Of a text of one or more lines, from the top of its title."""
    found = re.match(r"translate\([-\d.e]+,([-\d.e]+)", text.get("transform", ""))
    return (float(found[1]) if found else 0.0) + sum(float(line.get("dy", 0)) for line in text)


def _clean(element: ET.Element, name: str) -> None:
    label = element.get("aria-label")
    is_mark = element.get("role") == "graphics-symbol" and element.get("aria-roledescription", "").endswith(" mark")
    attributes = {key: value for key, value in element.attrib.items() if key in KEPT and key != "class"}
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if "clip-path" in attributes:
        attributes["clip-path"] = re.sub(r"url\(#", f"url(#{name}-", attributes["clip-path"])
    classes = [f"{CLASSES[value]}-{way}" for way in ("fill", "stroke") if (value := attributes.get(way)) in CLASSES]
    if classes:
        attributes["class"] = " ".join(classes)
    for key in ("opacity", "stroke-width"):
        if attributes.get(key) == "1":
            del attributes[key]
    element.attrib.clear()
    element.attrib.update(attributes)
    if label and is_mark:
        child = ET.SubElement(element, f"{{{SVG}}}title")
        child.text = label


def _without_empty(element: ET.Element) -> None:
    """Removes groups without content, and paths that draw nothing."""
    for child in list(element):
        _without_empty(child)
        tag = child.tag.rpartition("}")[2]
        invisible = tag == "path" and not {"fill", "stroke"} & set(child.attrib)
        if (tag == "g" and not len(child)) or (tag == "path" and not child.get("d")) or invisible:
            element.remove(child)
