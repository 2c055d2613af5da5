"""A chart: an altair specification, its title and what it shows in words. vl-convert draws it, without a browser."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssn_probe.files import write_whole


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """`title`: the finding. `description`: what it shows, for those who cannot see it. `specification`: altair's."""

    title: str
    description: str
    specification: Mapping[str, Any]


def as_svg(chart: Chart) -> str:
    """The chart as SVG. It needs no network, and no font but the reader's."""
    import vl_convert

    return vl_convert.vegalite_to_svg(dict(chart.specification))


def save_charts(charts: Mapping[str, Chart], folder: Path) -> None:
    """Writes `NAME.svg` and `NAME.png` (twice the size) of every chart, each file whole or not at all.

    Raises ResultError where the disk refuses.
    """
    for name, chart in charts.items():
        save_chart(chart, folder / name)


def save_chart(chart: Chart, path: Path) -> None:
    """Writes `path`.svg and `path`.png."""
    import vl_convert

    svg = as_svg(chart)
    png = vl_convert.svg_to_png(svg, scale=2)
    write_whole(path.with_name(f"{path.name}.svg"), lambda temporary: temporary.write_text(svg, encoding="utf-8"))
    write_whole(path.with_name(f"{path.name}.png"), lambda temporary: temporary.write_bytes(png))
