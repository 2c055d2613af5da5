"""What prompts begin with, run once a batch: all that begin alike use its keys and values.

A chat template puts the same tokens in front of every message, and messages begin with the same words, too. A causal
model computes the same there whatever follows, so each beginning of a batch runs once, with the neurons changed as they
are in the whole, and the rest of the prompts runs behind them: [start][padding][rest], with the padding masked and
positions that go on without a gap. How long a start is follows from the measurement's prompts as a whole and from how
many of them run together; results change by rounding.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssn_probe.model.families import BUILT_IN
from ssn_probe.model.subject import Subject
from ssn_probe.model.text_config import text_config
from ssn_probe.tracing.batching import BatchSize

OLD_NAME = "past_key_values"
"""What transformers calls a cache up to 5.23; later `cache`."""

WORTH = 128
"""Tokens of a batch that need not run, from which on a pass of its own for the starts is worth it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedStart:
    """How many first tokens run once for all prompts that begin with them; 0 where everything runs whole."""

    length: int = 0
    name: str = ""

    def rest(self, prompt: Sequence[int]) -> Sequence[int]:
        """What has to run of a prompt: at least its last token."""
        return prompt[self.length :]

    def before(
        self, inputs: dict[str, Any], batch: Sequence[Sequence[int]], among: Sequence[Sequence[int]] | None = None
    ) -> dict[str, Any]:
        """A padded batch of `rest`s, with the starts in front of it, as plain data for `bodies.start.behind_start`.

        Args:
            inputs: `rest`s of the prompts in `batch`, each with as many sequences as another, prompt-major.
            among: prompts whose starts there are, those of `batch` among them; None: just these.
        """
        if not self.length:
            return inputs
        device = inputs["input_ids"].device
        beginnings = [tuple(prompt[: self.length]) for prompt in batch]
        every = beginnings if among is None else [tuple(prompt[: self.length]) for prompt in among]
        numbers = {beginning: number for number, beginning in enumerate(dict.fromkeys(every))}
        of_prompts = torch.tensor([numbers[beginning] for beginning in beginnings], device=device)
        ids = torch.tensor(list(numbers), device=device)
        start = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "position_ids": torch.arange(self.length, device=device).expand(len(ids), -1),
            "logits_to_keep": torch.tensor([self.length - 1], device=device),
            "use_cache": True,
        }
        mask = inputs["attention_mask"]  # [prompt, key], or [prompt, 1, query, key], where 0 is added to what is seen
        seen = torch.nn.functional.pad(mask, (self.length, 0), value=0 if mask.is_floating_point() else 1)
        moved = {"attention_mask": seen, "use_cache": True}
        if "position_ids" in inputs:
            moved["position_ids"] = inputs["position_ids"] + self.length
        starts = of_prompts.repeat_interleave(len(inputs["input_ids"]) // len(batch))
        return inputs | moved | {"start": (self.name, start, starts)}


WHOLE = SharedStart()


def shared_start(
    subject: Subject, tokens: Sequence[Sequence[int]], together: int | BatchSize, *, added: int = 0, times: int = 1
) -> SharedStart:
    """The start of some prompts, of which so many run `together`, and which at most `added` tokens follow.

    times: in how many ways the prompts of a batch run, each behind starts that ran in the same way.
    """
    if not keeps_layers(subject, tokens, added):
        return WHOLE
    length = shared_length(tokens, together if isinstance(together, int) else together.size, times)
    if not length:
        return WHOLE
    parameters = inspect.signature(subject.model._module.forward).parameters
    return SharedStart(length=length, name="cache" if "cache" in parameters else OLD_NAME)


def keeps_layers(subject: Subject, tokens: Sequence[Sequence[int]], added: int = 0) -> bool:
    """May keys, values and inputs of layers be those of another pass? Not on a host nor of a model in parts, and not
    where a window cuts the prompts.

    Families of users run whole: their layers are not known to take a cache in front of padding. A sliding window counts
    the padding between start and rest, so that all must fit in it.
    """
    here = subject.calls is None and subject.shards is None and not subject.spread
    if not here or len(tokens) < 2 or subject.family not in BUILT_IN:
        return False
    config = text_config(subject.model._module.config)
    kinds = set(getattr(config, "layer_types", None) or ())
    window = int(getattr(config, "sliding_window", None) or 0)
    windowed = window and (not kinds or bool(kinds - {"full_attention"}))
    return not windowed or max(map(len, tokens)) + added <= window


def shared_length(tokens: Sequence[Sequence[int]], together: int, times: int = 1) -> int:
    """With how long a start the fewest tokens run; 0 where that saves too few of them.

    A batch has at most as many starts as the measurement has, and as many as prompts.
    """
    batches = -(-len(tokens) // max(1, together))
    most, best, beginnings = 0, 0, [0] * len(tokens)
    for length in range(1, min(map(len, tokens))):
        numbers: dict[tuple[int, int], int] = {}
        steps = zip(beginnings, tokens, strict=True)
        beginnings = [numbers.setdefault((before, row[length - 1]), len(numbers)) for before, row in steps]
        saved = length * (len(tokens) - batches * len(numbers))
        if saved <= 0:
            break
        if saved > most:
            most, best = saved, length
    return best if most * times >= WORTH * batches else 0
