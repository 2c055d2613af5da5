"""Think blocks: what opens and closes the thoughts that some models write before their answer.

A judge reads the response. Where a think block is still open at its end, the verdict is one on thoughts.
"""

import re

PAIRS = (
    (
        r"<(?P<name>(?:[a-z_]+:)?(?:think|thinking|thought|thoughts|reasoning|reason|scratchpad|longcat_think))>",
        "</{name}>",
    ),
    (r"\[(?P<name>THINK)\]", "[/{name}]"),
    (r"<\|(?P<name>think|thinking|thought|reasoning)\|>", "<|/{name}|>"),
    (r"<\|begin_of_(?P<name>thought)\|>", "<|end_of_{name}|>"),
    (r"<\|START_(?P<name>THINKING)\|>", "<|END_{name}|>"),
    (r"◁(?P<name>think)▷", "◁/{name}▷"),
    (r"<\|channel\|>(?P<name>analysis)", "<|end|>"),
    (r"<\|channel>(?P<name>thought)", "<channel|>"),
)
"""What opens a think block, as a pattern, and what closes it, in models of 2024 to 2026."""


def open_block(text: str) -> tuple[str, str] | None:
    """What opens and what would close the last think block of a text, if it is left open."""
    for pattern, close in PAIRS:
        opened = list(re.finditer(pattern, text))
        if opened:
            last = opened[-1]
            closing = close.format(name=last["name"])
            if closing not in text[last.end() :]:
                return last[0], closing
    return None


def is_thought(response: str, closing: str | None) -> bool:
    """Does a response end inside a think block? `closing`: what closes the one that its prompt left open, if any."""
    if closing is not None and closing not in response:
        return True
    return open_block(response) is not None
