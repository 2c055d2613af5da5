"""Who reads a page can: in light and dark, on a phone, on paper, by keyboard, without scripts, with a screen reader."""

import io
import re
import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browsing import Visit

pytestmark = pytest.mark.page
Opened = Callable[..., AbstractContextManager[Visit]]
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"
FEWER_ROWS = """document.querySelectorAll("tbody:not(:has([rowspan]))").forEach(body =>
  [...body.rows].slice(4, -1).forEach(row => row.remove()))"""
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "device_scale_factor": 2}
LEVELS = "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(one => Number(one.tagName[1]))"
COLOURS = """() => ({
  paper: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.querySelector("h1")).color,
  charts: [...new Set([...document.querySelectorAll("svg text")].map(one => getComputedStyle(one).fill))],
})"""
CHART_TEXT = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const painted = [...svg.querySelectorAll("path, rect, text")];
  const shapes = painted.filter(one => one.tagName !== "text").map(one => [one, one.getBoundingClientRect()]);
  return [...svg.querySelectorAll("text")].filter(one => one.textContent.trim()).map(text => {
    const box = text.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
    const below = shapes.filter(([one, at]) => {
      const style = getComputedStyle(one), before = one.compareDocumentPosition(text) & 4;
      const seen = style.fill !== "none" && Number(style.fillOpacity) * Number(style.opacity) > .9;
      return before && seen && at.left < x && x < at.right && at.top < y && y < at.bottom;
    }).map(([one]) => getComputedStyle(one).fill);
    const paper = getComputedStyle(document.body).backgroundColor, style = getComputedStyle(text);
    return [text.textContent, style.fill, below.at(-1) ?? paper, parseFloat(style.fontSize)];
  });
})"""
UNNAMED = """() => [...document.querySelectorAll("svg:not([aria-hidden])")].filter(one => {
  const named = one.getAttribute("aria-label") ?? one.querySelector(":scope > title")?.textContent ?? "";
  return one.getAttribute("role") !== "img" || named.trim().length < 20;
}).map(one => one.outerHTML.slice(0, 200))"""
BARE_TABLES = """() => [...document.querySelectorAll("table")].filter(table =>
  !table.caption?.textContent.trim() || !table.tHead ||
  [...table.tHead.rows[0].cells].some(one => one.textContent.trim() && one.scope !== "col") ||
  [...table.tBodies].some(body => ![...body.rows].some(row => row.querySelector("th[scope]")))
).map(one => one.outerHTML.slice(0, 200))"""

WORDS_OF_CHARTS = """() => [...document.querySelectorAll("figure")].map(one => [
  one.querySelector("figcaption").textContent,
  [...one.querySelectorAll(".legend li")].map(line => line.textContent),
  [...one.querySelectorAll(".scrolls text")].map(text => text.textContent),
  [...one.querySelectorAll("figcaption, figcaption *, .legend li")].map(text =>
    Math.max(text.getBoundingClientRect().right, text.getBoundingClientRect().left + text.scrollWidth)),
])"""
SEEN_IN_CHARTS = "svg text:not([opacity='0'])"
"""Labels of an axis that would overlap are hidden."""
OWN_TEXT = """selector => [...document.querySelectorAll(selector)].map(one => {
  const seen = [...one.childNodes].filter(node => node.nodeName !== "title");
  return seen.map(node => node.textContent).join("");
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_against_the_guidelines(report: Path, visit: Opened, scheme: str) -> None:
    """axe-core's rules for WCAG 2.2 AA, and its best practices. What can be opened is open; of a table's rows,
    which are alike, the first four and the last are looked at, since axe-core takes its time.
    """
    from axe_playwright_python.sync_playwright import Axe

    with visit(report, color_scheme=scheme) as seen:
        seen.page.evaluate(OPEN_ALL)
        seen.page.evaluate(FEWER_ROWS)
        found = Axe().run(seen.page, options={"runOnly": STANDARDS, "resultTypes": ["violations"]})
        told = [f"{one['id']}: {node['html'][:200]}" for one in found.response["violations"] for node in one["nodes"]]
        assert told == []


def test_the_outline_and_what_has_a_name(report: Path, visit: Opened) -> None:
    with visit(report) as seen:
        levels = seen.page.evaluate(LEVELS)
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(second <= first + 1 for first, second in pairwise(levels))
        assert seen.page.evaluate(BARE_TABLES) == []
        assert seen.page.evaluate(UNNAMED) == []
        drawn = seen.page.evaluate(OWN_TEXT, "svg text")
        assert [text for text in drawn if re.fullmatch(r"\d+e[+-]?\d+", text)] == [], "figures are written out"


def test_dark_is_dark_and_light_is_light(report: Path, visit: Opened) -> None:
    shown = {}
    for scheme in ("light", "dark"):
        with visit(report, color_scheme=scheme) as seen:
            shown[scheme] = seen.page.evaluate(COLOURS)
    light, dark = shown["light"], shown["dark"]
    assert luminance(light["paper"]) > 0.8 > 0.1 > luminance(dark["paper"])
    assert luminance(light["ink"]) < 0.1 < 0.6 < luminance(dark["ink"])
    if light["charts"]:
        assert set(light["charts"]) != set(dark["charts"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_in_charts_can_be_told_from_what_is_behind_it(report: Path, visit: Opened, scheme: str) -> None:
    """axe-core does not look into drawings."""
    with visit(report, color_scheme=scheme) as seen:
        seen.page.evaluate(OPEN_ALL)
        faint = {
            f"{text}: {ink} on {paper}"
            for text, ink, paper, size in seen.page.evaluate(CHART_TEXT)
            if contrast(ink, paper) < (3 if size >= 24 else 4.5)
        }
        assert faint == set()


def test_a_phone_scrolls_down_only(report: Path, visit: Opened) -> None:
    with visit(report, **PHONE) as seen:
        for _ in range(2):
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
            assert seen.page.evaluate("document.body.scrollWidth") <= 360
            seen.page.evaluate(OPEN_ALL)


def test_the_words_of_a_chart_wrap_on_a_phone(report: Path, visit: Opened) -> None:
    """Only the drawing scrolls: its title, its subtitle and its legend are read without."""
    with visit(report, **PHONE) as seen:
        seen.page.evaluate(OPEN_ALL)
        for words, legend, drawn, ends in seen.page.evaluate(WORDS_OF_CHARTS):
            assert words.strip()
            assert max(ends) <= 360
            assert {squeezed(text) for text in legend} <= {squeezed(text) for text in drawn}
            assert not [text for text in drawn if len(text) > 40 and text in words], "the title is drawn again"


def test_the_charts_with_a_key_have_it_as_words(page_of: Callable[[str], Path], visit: Opened) -> None:
    with visit(page_of("large"), **PHONE) as seen:
        seen.page.evaluate(OPEN_ALL)
        legends = [legend for _, legend, _, _ in seen.page.evaluate(WORDS_OF_CHARTS) if legend]
        assert legends[0][0].startswith("untouched ")
        assert seen.page.locator("#chart-asr .legend").is_visible()
    with visit(page_of("large"), viewport={"width": 1280, "height": 900}) as seen:
        assert not seen.page.locator("#chart-asr .legend").is_visible(), "beside the drawing it is drawn"


def test_what_scrolls_shows_that_there_is_more(page_of: Callable[[str], Path], visit: Opened) -> None:
    """A shadow at the end beyond which it goes on, none where it ends, and none where nothing scrolls."""
    with visit(page_of("large"), **PHONE) as seen:
        seen.page.evaluate(OPEN_ALL)
        seen.page.evaluate("document.querySelectorAll('.scrolls > *').forEach(one => one.style.visibility = 'hidden')")
        paper = edge(seen, (100, 0))
        scrolling = set()
        for box in seen.page.locator(".scrolls").all()[:8]:
            box.evaluate("one => one.scrollIntoView({block: 'start'})")
            at = box.bounding_box()
            ends = [(at["x"] + 1, at["y"] + 1), (at["x"] + at["width"] - 3, at["y"] + 1)]
            more = box.evaluate("one => one.scrollWidth > one.clientWidth")
            scrolling.add(more)
            for left, plain in ((0, [True, not more]), (10**6, [not more, True])):
                box.evaluate("(one, left) => { one.scrollLeft = left; }", left)
                assert [edge(seen, end) == paper for end in ends] == plain
        assert scrolling == {True, False}


def edge(seen: Visit, at: tuple[float, float]) -> bytes:
    """Two by two pixels of what is on the screen."""
    return seen.page.screenshot(clip={"x": at[0], "y": at[1], "width": 2, "height": 2})


def test_nothing_is_missing_without_scripts(report: Path, visit: Opened) -> None:
    def said(**context: Any) -> str:
        with visit(report, **context) as seen:
            assert seen.said == []
            return re.sub(r"\s+", " ", seen.page.locator("main").text_content())

    assert said(java_script_enabled=False) == said()


def test_details_open_by_keyboard(report: Path, visit: Opened) -> None:
    with visit(report) as seen:
        folded = seen.page.locator("summary")
        if folded.count() == 0:
            return
        folded.first.focus()
        inside = "document.activeElement.parentElement.open"
        before = seen.page.evaluate(inside)
        for key in ("Enter", "Space"):
            seen.page.keyboard.press(key)
            before = not before
            assert seen.page.evaluate(inside) == before
        assert seen.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_paper_has_everything(report: Path, visit: Opened) -> None:
    """Without the script, too, which opens what is folded where a browser's style does not."""
    import pypdf

    with visit(report, java_script_enabled=False) as seen:
        pages = pypdf.PdfReader(io.BytesIO(seen.page.pdf(format="A4"))).pages
        printed = squeezed("".join(page.extract_text() for page in pages))
        assert 0 < len(pages) < 200
        for selector in ("h2", "summary", "details tbody tr:last-child th", SEEN_IN_CHARTS):
            words = map(squeezed, seen.page.evaluate(OWN_TEXT, selector))
            assert [text for text in words if text.isascii() and text not in printed] == [], selector


def squeezed(text: str) -> str:
    """Without blanks, which a PDF does not keep, and with letters for ligatures."""
    return re.sub(r"\s+|\u00ad", "", unicodedata.normalize("NFKC", text))


def channels(colour: str) -> tuple[float, ...]:
    """`rgb(1, 2, 3)` → its channels from 0 to 1."""
    found = [float(one) for one in re.findall(r"[\d.]+", colour)]
    assert colour.startswith("rgb"), colour
    assert len(found) == 3 or found[3] == 1, f"{colour} lets through what is behind it"
    return tuple(one / 255 for one in found[:3])


def luminance(colour: str) -> float:
    """The relative luminance of WCAG."""
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
