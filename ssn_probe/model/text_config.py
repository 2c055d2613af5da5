"""The part of a config that describes the text model: the whole of it, or one that is nested in a model with images.

Such a model (Gemma-3, Ministral-3) keeps its decoder beside a tower for images, which no prompt of text reaches.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

NESTED = "text_config"
_BESIDE = re.compile(r"(^|[._])(vision|visual|image|audio|speech)")


def text_config(config: Any) -> Any:
    """The config of the text model, of a config as transformers reads it."""
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def raw_text_config(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the text model, of what config.json holds."""
    nested = raw.get(NESTED)
    return nested if isinstance(nested, Mapping) else raw


def parts(raw: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A raw config, and the configs of models that it nests, each with what stands before the names of its fields."""
    yield "", raw
    for name, nested in raw.items():
        if name.endswith("_config") and isinstance(nested, Mapping):
            yield f"{name}.", nested


def is_beside(path: str) -> bool:
    """Is a module or a weight of this name part of a tower beside the text model?"""
    return _BESIDE.search(path) is not None
