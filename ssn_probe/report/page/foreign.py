"""Text in a page: escaped, with what is unseen written out, and right-to-left words isolated."""

from typing import Any

from markupsafe import Markup, escape

from ssn_probe.text import RIGHT_TO_LEFT, visible


def shown(value: Any) -> Any:
    """What a template writes for a value: jinja calls it for each, so that no template can forget to."""
    return value if isinstance(value, Markup) else isolated(visible(str(value)))


def short(value: Any) -> Markup:
    """The same for a name that has little room."""
    return isolated(visible(str(value), 60))


def isolated(text: str) -> Markup:
    """Escaped text; numbers and signs beside right-to-left words stay where they are."""
    pieces = RIGHT_TO_LEFT.split(text)
    return Markup("").join(
        Markup("<bdi>{}</bdi>").format(piece) if place % 2 else escape(piece) for place, piece in enumerate(pieces)
    )


def alone(value: Any, most: int = 300) -> Markup:
    """A text that is alone in its element, which finds its direction by `dir="auto"`; line ends stay."""
    return escape(visible(str(value), most, lines=True))


def attribute(value: Any) -> Markup:
    """Text for an attribute or a title, which hold no elements."""
    return escape(visible(str(value), 300))
