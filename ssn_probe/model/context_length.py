"""How many tokens a model was made for, as its config and its tokenizer say: prompts are compared with it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from ssn_probe.model.text_config import text_config

UNLIMITED = 10**9
"""A tokenizer that states no `model_max_length` has a number far beyond this one."""
STRETCHED = ("linear", "dynamic")
"""Rotary scalings whose config states the context before they stretch it by `factor`."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A number of tokens, what it is the limit of, and what happens beyond it, as parts of a sentence."""

    tokens: int
    of: str
    beyond: str


def context_length(config: Any) -> int | None:
    """The tokens that prompt and response may have together; None where the config does not say.

    `max_position_embeddings`, times the factor of rotary embeddings that stretch it; with yarn, the original context
    times the factor. (vLLM counts in the same way.)
    """
    text = text_config(config)
    tokens = getattr(text, "max_position_embeddings", None)
    if not _is_count(tokens):
        return None
    rope = getattr(text, "rope_parameters", None)
    rope = rope if isinstance(rope, Mapping) else {}
    kind, factor = rope.get("rope_type"), rope.get("factor") or 1.0
    if kind == "yarn":
        return int((rope.get("original_max_position_embeddings") or tokens) * factor)
    return int(tokens * factor) if kind in STRETCHED else tokens


def sliding_window(config: Any) -> tuple[int, int, int] | None:
    """The tokens that a layer with a sliding window looks back on, how many layers have one, and of how many.

    None where no layer has one.
    """
    text = text_config(config)
    width, layers = getattr(text, "sliding_window", None), getattr(text, "num_hidden_layers", None)
    if not _is_count(width) or not _is_count(layers) or getattr(text, "use_sliding_window", True) is False:
        return None
    kinds = getattr(text, "layer_types", None)
    sliding = layers if kinds is None else sum(kind == "sliding_attention" for kind in kinds)
    return (width, sliding, layers) if sliding else None


def limits(config: Any, tokenizer: Any) -> tuple[Limit, ...]:
    """What a long prompt can exceed, the most important first."""
    context, window = context_length(config), sliding_window(config)
    found: list[Limit] = []
    stated = getattr(tokenizer, "model_max_length", None)
    if context is not None:
        beyond = "Beyond its context a model computes what it was not trained for"
        found.append(Limit(tokens=context, of=f"the model's context of {context:,} tokens", beyond=beyond))
    if _is_count(stated) and stated < min(UNLIMITED, context or UNLIMITED):
        of = f"the {stated:,} tokens that the tokenizer states as the model's limit (model_max_length)"
        found.append(Limit(tokens=stated, of=of, beyond="If that is right, the model was not trained for more"))
    if window is not None:
        width, sliding, layers = window
        which = "all layers" if sliding == layers else f"{sliding} of {layers} layers"
        beyond = f"In {which} a token does not see what lies further back"
        found.append(Limit(tokens=width, of=f"the sliding window of {width:,} tokens", beyond=beyond))
    return tuple(found)


def silence_reminders(tokenizer: Any) -> None:
    """Stop transformers from saying on stderr, once and of no prompt, what is said of every language in the notes."""
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    logger = logging.getLogger("transformers.generation.stopping_criteria")
    if _is_no_reminder not in logger.filters:
        logger.addFilter(_is_no_reminder)


def _is_no_reminder(record: logging.LogRecord) -> bool:
    return "exceeded the model's predefined maximum length" not in record.getMessage()


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
