"""The page of a run: templates filled with what report.md says, too, with its charts and with some responses.

It loads nothing and runs nothing but one script, which sorts tables: the policy in its head names the digests of this
script and of its style. Every value that a template writes goes through `foreign.shown`.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from ssn_probe.report.charts.theme import CLASSES
from ssn_probe.report.document import Table
from ssn_probe.report.page.content import Content

MARKS = {"shown": ("yes", "✓"), "not shown": ("no", "✗"), "not testable": ("open", "?")}
"""How a verdict is marked: its class, and a sign beside the word."""
STYLE, SCRIPT = ("page.css",), ("sort.js",)
MOST_LINES = 2
"""Of the answer on the first screen."""


def as_html(content: Content) -> str:
    """The whole page. The SVG of charts is trusted; everything else is escaped."""
    from markupsafe import Markup

    drawn = {name: replace(one, svg=Markup(one.svg)) for name, one in content.drawn.items()}
    trusted = replace(content, drawn=drawn)
    return rendered("page.html", STYLE, SCRIPT, content=trusted, most_lines=MOST_LINES)


def rendered(template: str, styles: Sequence[str], scripts: Sequence[str], **known: Any) -> str:
    """A template with its one style and its one script, made of these files, and the policy that allows just them."""
    from markupsafe import Markup

    fixed = {"style": Markup(_files(styles)), "script": Markup(_files(scripts)), "marks": MARKS}
    return _templates().get_template(template).render(policy=policy(styles, scripts), **fixed, **known)


def policy(styles: Sequence[str], scripts: Sequence[str], *, any_style: bool = False) -> str:
    """The Content-Security-Policy of a page with this style and this script.

    `any_style`: of one that another release may have written, with another style; its script then does not run.
    """
    style = "'unsafe-inline'" if any_style else f"'{_hash(_files(styles))}'"
    return (
        f"default-src 'none'; style-src {style}; script-src '{_hash(_files(scripts))}'; img-src 'none'; "
        "base-uri 'none'; form-action 'none'"
    )


def numeric_columns(table: Table) -> Sequence[bool]:
    """Which columns hold figures: all of their cells begin with one, or are empty."""
    columns = zip(*table.rows, strict=False)
    return [all(map(_is_figure, column)) for column in columns] or [False] * len(table.head)


def _is_figure(cell: str) -> bool:
    return re.match(r"[<≤≥~×]? ?[+−-]?[.\d∞]|[–-]?$", cell) is not None


def _files(names: Sequence[str]) -> str:
    folder = files("ssn_probe.report.page")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from ssn_probe.report.page.foreign import alone, attribute, short, shown

    made = Environment(
        loader=PackageLoader("ssn_probe.report.page", "templates"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"alone": alone, "attribute": attribute, "numeric_columns": numeric_columns, "short": short}
    made.globals["classes"] = CLASSES
    return made


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
