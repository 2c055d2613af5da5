"""Values that display themselves, as one rich renderable for the terminal, for a notebook and for `print`.

How a value looks is decided in `report/terminal`: the package installs one function that turns any `Displayed` value
into a rich renderable. Standard library only until something is displayed. The HTML has the page's own text colour and
no background, and every colour in it is legible on white and on black.
"""

from collections.abc import Callable
from typing import Any

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

PRE = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:normal;margin:0;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,'Courier New',monospace\">{code}</pre>"
)


RENDERERS: list[Callable[[Any], Any]] = []
"""The function that makes a rich renderable of a value; importing the package puts it here."""


class Displayed:
    """A value that a terminal (`rich.print`) and a notebook display in the same way."""

    def __rich__(self) -> Any:
        return RENDERERS[-1](self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Plain text and HTML, of which a notebook (IPython's protocol) chooses."""
        return bundle(self.__rich__())


def bundle(renderable: Any) -> dict[str, str]:
    """A rich renderable as plain text and as HTML, by MIME type."""
    return {"text/plain": as_text(renderable), "text/html": as_html(renderable)}


def as_text(renderable: Any, width: int = WIDTH) -> str:
    """A rich renderable as plain text without colours."""
    text = _recorded(renderable, width).export_text()
    return "\n".join(line.rstrip() for line in text.splitlines())


def as_html(renderable: Any, width: int = WIDTH) -> str:
    """A rich renderable as one `<pre>` with inline styles, its text escaped."""
    from rich.terminal_theme import TerminalTheme

    theme = TerminalTheme((255, 255, 255), (0, 0, 0), [COLOURS["grey"], *COLOURS.values()])
    return _recorded(renderable, width).export_html(theme=theme, code_format=PRE, inline_styles=True)


def _recorded(renderable: Any, width: int) -> Any:
    from io import StringIO

    from rich.console import Console

    console = Console(
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
    console.print(renderable, crop=False)
    return console


def literal(text: object, style: str = "") -> Any:
    """Text that is shown literally: no markup, no control characters, on one line."""
    from rich.text import Text

    from ssn_probe.text import plain

    return Text(plain(str(text)), style=style)
