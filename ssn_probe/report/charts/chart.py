"""A chart: an altair specification, its title and what it shows in words. vl-convert draws it, without a browser."""

import base64
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssn_probe.files import write_whole
from ssn_probe.model.kept import NOTHING_KEPT, Kept, source_digest
from ssn_probe.report.charts.svg import clean_svg
from ssn_probe.report.charts.theme import CONFIG, LEFT_TO_RIGHT, TITLE_WIDTH

PICTURES = "charts"
"""Below the cache of a results folder: pictures that were drawn. Drawing takes longer than all else of a report."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing without its head as SVG, and its title, subtitle and legend as text, see `Chart`."""

    svg: str
    title: str
    subtitle: Sequence[str] = ()
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """`title`: the finding. `description`: what it shows, for those who cannot see it. `specification`: altair's.

    A notebook shows it; `altair` makes altair's object of it, to change. `subtitle`: n, and what bars and bands are.
    `legend`: the colour and the words of what is drawn, where they stand far on the right. `kept`: where its pictures
    are found again, under all that decides them but the fonts of the machine.
    """

    name: str
    title: str
    description: str
    specification: Mapping[str, Any]
    subtitle: Sequence[str] = ()
    legend: Sequence[tuple[str, str]] = ()
    kept: Kept = field(default=NOTHING_KEPT, repr=False)

    @property
    def altair(self) -> Any:
        """The chart as an object of altair."""
        import altair as alt

        return alt.Chart.from_dict(dict(self.specification))

    @cached_property
    def svg(self) -> str:
        """The chart as SVG for a page: named, without style, script and link; it needs no font but the reader's."""
        return self._picture("svg", lambda: clean_svg(self._drawn, *self._words))

    @cached_property
    def figure(self) -> Figure:
        """The chart for a page, which writes its words beside the drawing."""
        svg = self._picture("headless", lambda: clean_svg(self._drawn, *self._words, headed=False))
        legend = [(colour, _unmarked(text)) for colour, text in self.legend]
        return Figure(svg=svg, title=_unmarked(self.title), subtitle=[*map(_unmarked, self.subtitle)], legend=legend)

    @cached_property
    def png(self) -> bytes:
        """The chart as PNG, twice the size, with two pixels for each of the SVG."""
        return base64.b64decode(self._picture("png", lambda: base64.b64encode(painted(self.svg)).decode()))

    @cached_property
    def _drawn(self) -> str:
        return drawn(self.specification)

    @property
    def _words(self) -> tuple[str, str, str]:
        return self.name, self.title, self.description

    def _picture(self, kind: str, draw: Callable[[], str]) -> str:
        given = [*self._words, self.specification, version("vl-convert-python"), source_digest()]
        return draw() if self.kept.folder is None else self.kept.value(kind, given, draw)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Of which a notebook chooses (IPython's protocol)."""
        png = base64.b64encode(self.png).decode()
        # In HTML, since an exported notebook makes a picture without its description of an SVG.
        html = f'<div style="max-width:50em">{self.svg}</div>'
        text = f"{self.title}\n{self.description}"
        return {"text/plain": text, "text/html": html, "image/svg+xml": self.svg, "image/png": png}


def drawn(specification: Mapping[str, Any]) -> str:
    """What vl-convert draws of a specification, as SVG."""
    import vl_convert

    return vl_convert.vegalite_to_svg(dict(specification))


def painted(svg: str) -> bytes:
    """An SVG as PNG, of twice its size."""
    import vl_convert

    return vl_convert.svg_to_png(svg, scale=2)


def chart(
    name: str,
    title: str,
    description: str,
    body: Mapping[str, Any],
    *,
    subtitle: Sequence[str],
    legend: Sequence[Mapping[str, Any]] = (),
) -> Chart:
    """A chart of Vega-Lite's layers or panels; `subtitle`: see `Chart`; `legend`: rows of `marks.key`."""
    lines, below = (
        [part for line in text for part in textwrap.wrap(_whole(line), width, break_on_hyphens=False)]
        for text, width in (([title], TITLE_WIDTH), (subtitle, TITLE_WIDTH + 26))
    )
    head = {"title": {"text": lines, "subtitle": below}}
    spoken = description if description.endswith(".") else f"{description}."
    return Chart(
        name=name,
        title=title,
        description=spoken,
        specification={**head, **body, "config": CONFIG},
        subtitle=tuple(subtitle),
        legend=tuple((row["colour"], row["text"]) for row in legend),
    )


def _unmarked(text: str) -> str:
    """Text for elements, which isolate names that are written from right to left."""
    return _whole(text.replace(LEFT_TO_RIGHT, ""))


def _whole(line: str) -> str:
    """A number stays with its sign."""
    return line.replace(" %", "\u00a0%")


def kept_pictures(cache: Path, *, writes: bool = True) -> Kept:
    """Where pictures are kept in the cache of a results folder; nowhere where there is none."""
    return Kept(folder=cache / PICTURES, writes=writes) if cache.is_dir() else NOTHING_KEPT


def figures_of(charts: Mapping[str, Chart]) -> dict[str, Figure]:
    """What a page has of every chart, by name."""
    return {name: one.figure for name, one in charts.items()}


def save_charts(charts: Mapping[str, Chart], folder: Path) -> None:
    """Writes `NAME.svg` and `NAME.png` (twice the size) of every chart, each file whole or not at all.

    Raises ResultError where the disk refuses.
    """
    for name, one in charts.items():
        save_chart(one, folder / name)


def save_chart(chart: Chart, path: Path) -> None:
    """Writes `path`.svg and `path`.png."""
    svg, png = chart.svg, chart.png
    write_whole(path.with_name(f"{path.name}.svg"), lambda temporary: temporary.write_text(svg, encoding="utf-8"))
    write_whole(path.with_name(f"{path.name}.png"), lambda temporary: temporary.write_bytes(png))
