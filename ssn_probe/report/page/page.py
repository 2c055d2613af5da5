"""The page of a run: templates filled with the sections that report.md has, and with its charts."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.report_sections import sections_of


def page(run: FinishedRun, charts: Mapping[str, str]) -> str:
    """The whole page. `charts`: SVG by the chart's name, trusted; everything else is escaped."""
    from markupsafe import Markup

    style = files("ssn_probe.report.page").joinpath("page.css").read_text(encoding="utf-8")
    drawn = {name: Markup(svg) for name, svg in charts.items()}
    known = {"run": run, "sections": sections_of(run), "charts": drawn}
    return _templates().get_template("page.html").render(**known, style=Markup(style), style_hash=_hash(style))


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("ssn_probe.report.page", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
