"""The tokens that all prompts of a measurement begin with, run once for a batch: all prompts use their keys and values.

A chat template puts the same tokens in front of every message. A causal model computes the same there whatever
follows, so these tokens run in a batch of one, with the neurons changed as they are in the whole, and the rest of the
prompts runs behind them: [start][padding][rest], with the padding masked and positions that go on without a gap.
What is shared follows from the measurement's prompts as a whole, never from a batch, and changes results by rounding.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssn_probe.model.families import BUILT_IN
from ssn_probe.model.subject import Subject
from ssn_probe.model.text_config import text_config

OLD_NAME = "past_key_values"
"""What transformers calls a cache up to 5.23; later `cache`."""

WORTH = 128
"""Tokens of a measurement that need not run, from which on a pass of its own for the start is worth it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedStart:
    """The first `tokens` of every prompt, none where everything runs whole."""

    tokens: tuple[int, ...]
    name: str

    def rest(self, prompt: Sequence[int]) -> Sequence[int]:
        """What has to run of a prompt: at least its last token."""
        return prompt[len(self.tokens) :]

    def before(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A padded batch of `rest`s, with the start in front of it, as plain data for `bodies.start.behind_start`."""
        count, device = len(self.tokens), inputs["input_ids"].device
        if not count:
            return inputs
        mask = inputs["attention_mask"]  # [prompt, key], or [prompt, 1, query, key], where 0 is added to what is seen
        seen = torch.nn.functional.pad(mask, (count, 0), value=0 if mask.is_floating_point() else 1)
        ids = torch.tensor([self.tokens], device=device)
        start = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "position_ids": torch.arange(count, device=device)[None],
            "logits_to_keep": torch.tensor([count - 1], device=device),
            "use_cache": True,
        }
        moved = {"attention_mask": seen, "position_ids": inputs["position_ids"] + count, "use_cache": True}
        return inputs | moved | {"start": (self.name, start)}


def shared_start(subject: Subject, tokens: Sequence[Sequence[int]], *, added: int = 0) -> SharedStart:
    """The start of some prompts, which at most `added` tokens follow."""
    length = _shared(subject, tokens, added)
    if not length:
        return SharedStart(tokens=(), name="")
    parameters = inspect.signature(subject.model._module.forward).parameters
    return SharedStart(tokens=tuple(tokens[0][:length]), name="cache" if "cache" in parameters else OLD_NAME)


def _shared(subject: Subject, tokens: Sequence[Sequence[int]], added: int) -> int:
    """How many first tokens run once: none on a host or of a model in parts, and none where a window cuts them.

    Families of users run whole: their layers are not known to take a cache in front of padding. A sliding window counts
    the padding between start and rest, so that all must fit in it.
    """
    here = subject.calls is None and subject.shards is None and not subject.spread
    if not here or len(tokens) < 2 or subject.family not in BUILT_IN:
        return 0
    shortest, longest = min(map(len, tokens)), max(map(len, tokens))
    rows = [list(row) for row in tokens]
    same = [first == second for first, second in zip(min(rows), max(rows), strict=False)]  # the least alike
    length = min([*same, False].index(False), shortest - 1)
    config = text_config(subject.model._module.config)
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if (kinds - {"full_attention"} or not kinds) and window and longest + added > window:
        return 0
    return length if (len(tokens) - 1) * length >= WORTH else 0
