"""What a step costs: the cross-entropy of the responses.

Most of the decision to refuse is the first token, so it weighs more than the others. All prompts begin alike (the
template, the system message), and that beginning is computed once for a batch.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.model.chat import pad_left
from ssn_probe.training.loop.loss import IGNORED, Encoded, batch_of


def quick(module: Any) -> AbstractContextManager[Any]:
    """Inside, matrices are multiplied in bfloat16: about three times as fast, on processors that can, too."""
    return torch.autocast(module.device.type, torch.bfloat16)


def decision_loss(module: Any, rows: Sequence[Encoded], pad_id: int, decision: float) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats per token; the first token of a response counts `decision` times."""
    labels = batch_of(rows, pad_id, module.device).labels  # [row, token]
    weights = (labels != IGNORED).float()
    weights[torch.arange(len(rows)), weights.argmax(1)] = decision
    logits = _logits(module, rows, pad_id)
    nats = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return (nats * weights.flatten()).sum() / weights.sum()


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
