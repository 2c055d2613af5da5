"""Text in a page: escaped, with what is unseen written out, and right-to-left words isolated."""

import re
from typing import Any

from markupsafe import Markup, escape

from ssn_probe.text import visible

_RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
_RUN = re.compile(rf"([{_RIGHT_TO_LEFT}](?:[^A-Za-z]*[{_RIGHT_TO_LEFT}])?)")
"""From the first to the last letter of right-to-left text, up to the next Latin letter."""


def shown(value: Any) -> Any:
    """What a template writes for a value: jinja calls it for each, so that no template can forget to."""
    return value if isinstance(value, Markup) else isolated(visible(str(value)))


def short(value: Any) -> Markup:
    """The same for a name that has little room."""
    return isolated(visible(str(value), 60))


def isolated(text: str) -> Markup:
    """Escaped text; numbers and signs beside right-to-left words stay where they are."""
    pieces = _RUN.split(text)
    return Markup("").join(
        Markup("<bdi>{}</bdi>").format(piece) if place % 2 else escape(piece) for place, piece in enumerate(pieces)
    )


def alone(value: Any, most: int = 300) -> Markup:
    """A text that is alone in its element, which finds its direction by `dir="auto"`; line ends stay."""
    return escape(visible(str(value), most, lines=True))


def attribute(value: Any) -> Markup:
    """Text for an attribute or a title, which hold no elements."""
    return escape(visible(str(value), 300))
