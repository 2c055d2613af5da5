"""The reference: the same module without nnsight, its forward pass and its greedy generation."""

from typing import Any

import torch

from benchmarks.models import Case
from ssn_probe.model.chat import pad_left
from ssn_probe.tracing.batching import by_length

Inputs = list[dict[str, Any]]


def batches(case: Case, size: int) -> Inputs:
    """The batches that the probe makes of the case's prompts."""
    rows = by_length(case.tokens)
    taken = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [pad_left([case.tokens[row] for row in batch], case.subject.pad_id, case.subject.device) for batch in taken]


@torch.no_grad()
def forward(case: Case, inputs: Inputs, *, whole: bool = False) -> torch.Tensor:
    """A plain forward pass over all batches, logits of the last position only, or of every one: [prompt, vocabulary].

    The last position is asked for as a tensor: with `logits_to_keep=1` the head is given a strided view, which costs
    the 100M model 4 % of the whole pass, and the reference should be the fastest there is.
    """
    made = []
    for batch in inputs:
        kept = {} if whole else {"logits_to_keep": last(batch)}
        made.append(case.plain(**batch, use_cache=False, **kept).logits[:, -1])
    return torch.cat(made)


def last(batch: dict[str, Any]) -> torch.Tensor:
    """The last position, as a tensor."""
    ids = batch["input_ids"]
    return torch.tensor([ids.shape[1] - 1], device=ids.device)


def prompt_of(batch: dict[str, Any]) -> dict[str, Any]:
    """What generation takes of a batch: it counts positions itself."""
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@torch.no_grad()
def responses(case: Case, inputs: Inputs, generate: Any = None) -> list[str]:
    """Greedy responses with `model.generate`, or with what is given in its place, decoded."""
    texts: list[str] = []
    for batch in inputs:
        settings = {"max_new_tokens": case.new_tokens, "do_sample": False, "pad_token_id": case.subject.pad_id}
        ids = (generate or case.plain.generate)(**prompt_of(batch), **settings)
        texts += decoded(case, ids[:, batch["input_ids"].shape[1] :])
    return texts


def decoded(case: Case, new: torch.Tensor) -> list[str]:
    """Token ids [prompt, step] as texts."""
    return case.subject.tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
