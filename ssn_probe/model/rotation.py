"""Rotary embeddings whose frequencies follow the longest row of a batch, or of the batches before it, are refused.

With such embeddings a prompt's results would depend on which prompts share its batch, and no key could say so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.text_config import text_config


def check_rotation(config: Any) -> None:
    """Refuse rotary embeddings whose frequencies depend on the lengths of the prompts.

    Raises:
        ModelError: a `rope_type` of dynamic or longrope, for the model or for a type of layer.
    """
    text = text_config(config)
    context = getattr(text, "max_position_embeddings", None)
    for where, rope in rotations(config):
        kind = str(rope.get("rope_type") or rope.get("type") or "default")
        if "dynamic" in kind:
            raise _moving(kind, where, f"{context}", "set rope_type to default, which computes the same there")
        short, long = rope.get("short_factor"), rope.get("long_factor")
        if kind == "longrope" and short != long:
            original = rope.get("original_max_position_embeddings") or context
            same = "set long_factor to the values of short_factor (or, for longer prompts alone, the reverse)"
            raise _moving(kind, where, f"{original}", same)


def rotations(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rotary parameters of a config and where they stand: one set of them, or one for each type of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(text_config(config), name, None)
        if isinstance(found, Mapping):
            yield name, found
            yield from ((f"{name}.{layers}", one) for layers, one in found.items() if isinstance(one, Mapping))


def _moving(kind: str, where: str, tokens: str, remedy: str) -> ModelError:
    return ModelError(
        f"The config asks for rotary embeddings of rope_type {kind} ({where}): their frequencies follow the longest "
        "prompt of a batch, so a prompt's results would depend on its neighbours.",
        f"If no prompt with its response has more than {tokens} tokens, {remedy}, in a copy of the model's folder. "
        "Else choose a scaling that is the same for every length, such as yarn or linear.",
    )
