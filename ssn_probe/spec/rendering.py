"""A rich renderable as plain text, as a terminal draws it, and as HTML: tables as tables, sentences as text that wraps.

The HTML has no script, and nothing that would be loaded. Styles are inline, since a page that a notebook is exported to
keeps no style sheet of ours. Text has the page's own colour and no background, and every colour is legible on white and
on black.
"""

from collections.abc import Iterator
from html import escape
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.style import StyleType
from rich.table import Column, Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

WIDTH = 100
"""Columns in a notebook, independent of its window, so that a stored notebook looks the same everywhere."""

COLOURS = {
    "red": (210, 60, 60),
    "green": (45, 135, 60),
    "yellow": (150, 115, 0),
    "blue": (60, 115, 215),
    "magenta": (180, 75, 180),
    "cyan": (0, 130, 145),
    "grey": (118, 118, 118),
}
"""The terminal's colours in HTML, in its order, with grey for black and white.

They are of medium luminance, so that they are legible on white and on black.
"""

THEME = TerminalTheme((255, 255, 255), (0, 0, 0), [COLOURS["grey"], *COLOURS.values()])
PRE = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:normal;margin:0;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,'Courier New',monospace\">{code}</pre>"
)
PARAGRAPH = '<div style="white-space:pre-wrap;overflow-wrap:anywhere;max-width:50em">{}</div>'
FRAME = (
    '<section style="border:1px solid #767676;border-radius:4px;padding:0.4em 0.8em;margin:0.5em 0;max-width:50em">'
    "{}</section>"
)
TABLE = (
    '<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:0.5em 0;'
    'font-variant-numeric:tabular-nums">{}</table></div>'
)
CELL = "padding:0.15em 0.8em 0.15em 0;vertical-align:top;text-align:{}"


def bundle(renderable: RenderableType) -> dict[str, str]:
    """A rich renderable as plain text and as HTML, by MIME type."""
    return {"text/plain": as_text(renderable), "text/html": as_html(renderable)}


def as_text(renderable: RenderableType, width: int = WIDTH) -> str:
    """A rich renderable as plain text without colours."""
    console = recorder(width)
    console.print(renderable, crop=False)
    text = console.export_text()
    return "\n".join(line.rstrip() for line in text.splitlines())


def recorder(width: int = WIDTH) -> Console:
    """A console that keeps what is printed on it, whatever the surroundings."""
    return Console(
        file=StringIO(),
        width=width,
        record=True,
        force_terminal=True,
        force_jupyter=False,
        color_system="truecolor",
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        _environ={},  # so that NO_COLOR, COLUMNS and a notebook around us change nothing
    )


def as_html(renderable: RenderableType) -> str:
    """A rich renderable as HTML, its text escaped; what is neither a table nor text is drawn as on a terminal."""
    match renderable:
        case Group():
            return "".join(map(as_html, renderable.renderables))
        case Panel():
            title = PARAGRAPH.format(f"<strong>{_inline(renderable.title)}</strong>") if renderable.title else ""
            return FRAME.format(title + as_html(renderable.renderable))
        case Padding():
            return as_html(renderable.renderable)
        case Table():
            return TABLE.format("".join(_table(renderable)))
        case Text() | str():
            return PARAGRAPH.format(_inline(renderable))
    console = recorder()
    console.print(renderable, crop=False)
    return console.export_html(theme=THEME, code_format=PRE, inline_styles=True)


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield f'<caption style="text-align:left">{_inline(table.title)}</caption>'
    if table.show_header:
        heads = "".join(_cell("th", column, column.header, ' scope="col"') for column in table.columns)
        yield f"<thead><tr>{heads}</tr></thead>"
    named = next((number for number, column in enumerate(table.columns) if str(column.header)), 0)
    yield "<tbody>"
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = (
            _cell("th", column, cell, ' scope="row"', ";font-weight:normal")
            if number == named
            else _cell("td", column, cell)
            for number, (column, cell) in enumerate(zip(table.columns, row, strict=True))
        )
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody>"


def _cell(tag: str, column: Column, content: RenderableType, scope: str = "", more: str = "") -> str:
    side = "right" if column.justify == "right" else "left"
    # Figures stand on one line, however narrow the page; words may wrap.
    more += ";white-space:nowrap" if tag == "td" and side == "right" else ""
    inner = _inline(content, "" if "col" in scope else column.style)
    return f'<{tag}{scope} style="{CELL.format(side)}{more}">{inner}</{tag}>'


def _inline(content: RenderableType, style: StyleType = "") -> str:
    """Text with its colours; a line break is a line break."""
    if not isinstance(content, Text | str):
        return as_html(content)
    text = Text(content, end="") if isinstance(content, str) else content.copy()
    text.end = ""
    console = recorder()
    base = console.get_style(style) + console.get_style(text.style)
    pieces: list[str] = []
    for words, own, _ in text.render(console):
        rule = (base + own if own else base).get_html_style(THEME)
        shown = escape(words).replace("\n", "<br>")
        pieces.append(f'<span style="{rule}">{shown}</span>' if rule else shown)
    return "".join(pieces)
