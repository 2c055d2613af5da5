"""Text as a model is asked it: user messages in its chat template, as token ids, and batches of them."""

from collections.abc import Sequence
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.plain_text import encode_messages
from ssn_probe.model.subject import Subject
from ssn_probe.model.token_ids import check_inside


def encode(subject: Subject, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of user messages in the model's chat template, up to where the response begins.

    The template adds its own special tokens, so none is added a second time; in thinking models the think block is
    closed. Control tokens that a message spells are plain text, see `plain_text`.
    """

    def compute() -> list[list[int]]:
        rows = encode_messages(subject.tokenizer, texts)
        check_inside(rows, subject.tokenizer, subject.vocabulary)
        return rows

    return subject.kept.value("messages", list(texts), compute)


def check_tokens(tokens: Sequence[Sequence[int]]) -> None:
    """Raises ModelError where there is no prompt, or a prompt without tokens."""
    if not tokens or not all(len(row) for row in tokens):
        raise ModelError("A prompt without tokens cannot be run.", "Leave empty prompts out.")


def pad_left(tokens: Sequence[Sequence[int]], pad_id: int, device: str) -> dict[str, Any]:
    """One batch: `input_ids`, `attention_mask`, `position_ids`, each [prompt, token], padded on the left.

    Positions count from a row's first real token, so that a padded row computes what the same row computes alone.
    """
    import torch

    check_tokens(tokens)
    width = max(map(len, tokens))
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in tokens])
    lengths = torch.tensor([len(row) for row in tokens])
    mask = (torch.arange(width) >= (width - lengths)[:, None]).long()
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {key: value.to(device) for key, value in batch.items()}


def whole_inputs(subject: Subject, tokens: Sequence[Sequence[int]]) -> dict[str, Any]:
    """One batch for a pass that reads states: logits of the last position alone, and no cache."""
    import torch

    inputs = pad_left(tokens, subject.pad_id, subject.device)
    last = torch.tensor([inputs["input_ids"].shape[1] - 1], device=subject.device)
    return inputs | {"logits_to_keep": last, "use_cache": False}
