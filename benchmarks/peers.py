"""What the probe is compared with: the same module without nnsight, and plain torch hooks that do the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.models import Case
from ssn_probe.model.chat import pad_left
from ssn_probe.tracing.batching import by_length


def batches(case: Case, size: int) -> list[dict[str, Any]]:
    """The batches that the probe makes of the case's prompts."""
    rows = by_length(case.tokens)
    taken = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [pad_left([case.tokens[row] for row in batch], case.subject.pad_id, case.subject.device) for batch in taken]


@torch.no_grad()
def forward(case: Case, inputs: list[dict[str, Any]], *, whole: bool) -> torch.Tensor:
    """A plain forward pass over all batches, logits of the last position only, or of every one.

    The last position is asked for as a tensor: with `logits_to_keep=1` the head is given a strided view, which costs
    the 100M model 4 % of the whole pass, and the reference should be the fastest there is.
    """
    made = []
    for batch in inputs:
        last = torch.tensor([batch["input_ids"].shape[1] - 1], device=case.subject.device)
        kept = {} if whole else {"logits_to_keep": last}
        made.append(case.plain(**batch, use_cache=False, **kept).logits[:, -1])
    return torch.cat(made)


@torch.no_grad()
def responses(case: Case, inputs: list[dict[str, Any]]) -> list[str]:
    """Greedy responses with `model.generate`, decoded."""
    texts: list[str] = []
    for batch in inputs:
        prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
        ids = case.plain.generate(
            **prompt, max_new_tokens=case.new_tokens, do_sample=False, pad_token_id=case.subject.pad_id
        )
        new = ids[:, batch["input_ids"].shape[1] :]
        texts += case.subject.tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts


@contextmanager
def hooked(case: Case) -> Iterator[None]:
    """Silence the case's neurons in the plain module with torch hooks."""
    handles = []
    for layer, site, indices, _ in case.edits:
        path, side = case.subject.family.modules[site]
        module = case.plain.get_submodule(f"{case.subject.family.layers}.{layer}.{path}")
        index = torch.tensor(indices, device=case.subject.device)
        if side == "input":
            handles.append(module.register_forward_pre_hook(lambda _m, given, index=index: _silence(given[0], index)))
        else:
            handles.append(module.register_forward_hook(lambda _m, _given, made, index=index: _silence(made, index)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _silence(activation: torch.Tensor, index: torch.Tensor) -> None:
    activation[..., index] = 0
