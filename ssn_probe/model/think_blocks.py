"""Think blocks: what opens and closes the thoughts that some models write before their answer.

A judge reads the response. Where a think block is still open at its end, the verdict is one on thoughts.
"""

import re
from collections.abc import Mapping
from typing import Any

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

SWITCHES: Mapping[str, Any] = {
    "enable_thinking": False,
    "thinking": False,
    "reasoning": False,
    "thinking_mode": "off",
    "thinking_budget": 0,
}
"""What chat templates of 2024 to 2026 ask for, and the value that switches thinking off.

Qwen3, SmolLM3, GLM-4.5, EXAONE-4 and Hunyuan ask for `enable_thinking`, Granite and DeepSeek-V3.1 for `thinking`,
Cohere for `reasoning`, Baichuan-M2 for `thinking_mode`, Seed-OSS for `thinking_budget`. A template ignores the others.
"""
TEXT_SWITCHES = ("/no_think", "detailed thinking off")
"""What in a system prompt switches thinking off, in templates that look for it there (Nemotron)."""


def switches(template: str) -> dict[str, Any]:
    """Those of `SWITCHES` that a template asks for."""
    import jinja2
    import jinja2.meta

    text = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", template)  # a tag of transformers alone
    parsed = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
    asked = jinja2.meta.find_undeclared_variables(parsed)
    return {name: value for name, value in SWITCHES.items() if name in asked}


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
