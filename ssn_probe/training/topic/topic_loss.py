"""What a lesson costs: refusals are learned word by word, answers are to stay as likely as the base finds them.

Most of the decision to refuse is the first token, so it weighs more than the others. All prompts begin alike (the
template, the system message), and that beginning is computed once for a batch.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssn_probe.model.chat import pad_left
from ssn_probe.training.loop.loss import IGNORED, Encoded, batch_of

LIKELY = 32
"""How many of the base's most likely tokens stand for all of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """A row, and what is to be how likely at each token of its response; None: the response itself, certainly."""

    row: Encoded
    likely: tuple[Int[Tensor, "token likely"], Float[Tensor, "token likely"]] | None = None


def quick(module: Any) -> AbstractContextManager[Any]:
    """Inside, matrices are multiplied in bfloat16: about three times as fast, on processors that can, too."""
    return torch.autocast(module.device.type, torch.bfloat16)


@torch.no_grad()
def as_now(module: Any, rows: Sequence[Encoded], pad_id: int, size: int = 16) -> list[Lesson]:
    """Lessons to go on as the model does now."""
    lessons = list[Lesson]()
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        with quick(module):
            chances, tokens = _logits(module, part, pad_id).softmax(-1).topk(LIKELY, -1)
        chances = chances / chances.sum(-1, keepdim=True)
        lessons += [
            Lesson(row=row, likely=(tokens[i, -len(row.response) :], chances[i, -len(row.response) :]))
            for i, row in enumerate(part)
        ]
    return lessons


def lesson_loss(module: Any, lessons: Sequence[Lesson], pad_id: int, decision: float) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats per token; the first token of a response counts `decision` times."""
    rows = [lesson.row for lesson in lessons]
    labels = batch_of(rows, pad_id, module.device).labels  # [row, token]
    kept = labels != IGNORED
    tokens = labels.clamp_min(0)[..., None].repeat(1, 1, LIKELY)
    chances = torch.zeros(tokens.shape, device=labels.device)
    chances[..., 0] = 1.0
    for i, lesson in enumerate(lessons):
        if lesson.likely is not None:
            count = len(lesson.row.response)
            tokens[i, -count:], chances[i, -count:] = lesson.likely
    weights = kept.float()
    weights[torch.arange(len(rows)), kept.int().argmax(1)] = decision
    found = _logits(module, rows, pad_id).log_softmax(-1).gather(-1, tokens)
    return -((found * chances).sum(-1) * weights).sum() / weights.sum()


def _logits(module: Any, rows: Sequence[Encoded], pad_id: int) -> Float[Tensor, "row token vocabulary"]:
    """The logits before every token of the responses, padded on the left; the prompts' common beginning runs once."""
    from transformers import DynamicCache

    columns = zip(*(row.prompt[:-1] for row in rows), strict=False)  # what is left of a prompt has a token at least
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    rest = pad_left([row.prompt[shared:] + row.response for row in rows], pad_id, str(module.device))
    longest = max(len(row.response) for row in rows)
    # The cache goes by its place: transformers 5.24 calls it `cache`, older versions `past_key_values`.
    cache = DynamicCache(config=module.config)
    if shared:
        first = torch.tensor([rows[0].prompt[:shared]], device=module.device)
        module(first, None, None, cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(rows))
    before = torch.ones(len(rows), shared, dtype=torch.long, device=module.device)
    seen = torch.cat((before, rest["attention_mask"]), 1)
    places = (seen.cumsum(-1) - 1).clamp_min(0)[:, shared:]
    out = module(rest["input_ids"], seen, places, cache, use_cache=True, logits_to_keep=longest + 1)
    return out.logits[:, :-1].float()
