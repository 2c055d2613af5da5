"""Values that display themselves, as one rich renderable for the terminal, for a notebook and for `print`.

How a value looks is decided in `report/terminal`: the package installs one function that turns any `Displayed` value
into a rich renderable, which `rendering` writes as text and as HTML. Standard library until something is displayed.
"""

from collections.abc import Callable
from typing import Any

RENDERERS: list[Callable[[Any], Any]] = []
"""The function that makes a rich renderable of a value; importing the package puts it here."""


class Displayed:
    """A value that a terminal (`rich.print`) and a notebook display in the same way."""

    def __rich__(self) -> Any:
        return RENDERERS[-1](self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Plain text and HTML, of which a notebook (IPython's protocol) chooses."""
        from ssn_probe.spec.rendering import bundle

        return bundle(self.__rich__())


def literal(text: object, style: str = "") -> Any:
    """Text that is shown literally: no markup, no control characters, on one line."""
    from rich.text import Text

    from ssn_probe.text import plain

    return Text(plain(str(text)), style=style)
