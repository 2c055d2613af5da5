"""What the probe is compared with: the same module without nnsight, and plain torch hooks that do the same."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast

import torch

from benchmarks import hooks
from benchmarks.models import Case
from ssn_probe.model.chat import pad_left
from ssn_probe.neurons import Site
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


def hooked(case: Case) -> AbstractContextManager[None]:
    """Inside, the case's neurons are silent in the plain module, by torch hooks."""
    silent: dict[hooks.Place, hooks.At] = {
        (layer, cast(Site, site)): partial(_silence, torch.tensor(indices, device=case.subject.device))
        for layer, site, indices, _ in case.edits
    }
    return hooks.hooked(case.plain, case.subject.family, silent)


def _silence(index: torch.Tensor, activation: torch.Tensor) -> None:
    activation[..., index] = 0
