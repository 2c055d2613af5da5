"""The loss: cross-entropy of the response alone, given the request in the model's chat template.

A batch is padded on the left, so that all responses end in the last column and logits are computed for the last few
positions alone: with a vocabulary of 150,000 they would otherwise be most of the memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssn_probe.data.training_rows import Example
from ssn_probe.errors import DataError, ModelError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.plain_text import encode_answers, encode_messages, tokenize
from ssn_probe.model.templates import render
from ssn_probe.model.token_ids import OUTSIDE_HINT, first_outside, outside_reason

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids of one row; the response ends with the token that ends a turn, unless it was cut."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """`inputs`: `input_ids`, `attention_mask`, `position_ids`, each [row, token]. `labels`: the tokens to
    predict at the last positions, IGNORED before a response that is shorter than the longest.
    """

    inputs: dict[str, Tensor]
    labels: Int[Tensor, "row response"]


def encode_examples(
    examples: Sequence[Example],
    tokenizer: Any,
    eos_ids: Sequence[int] = (),
    longest: int | None = None,
    vocabulary: int | None = None,
) -> list[Encoded]:
    """Token ids of every row: the chat template up to where the response begins, the response, the end of the turn.

    Args:
        examples: the rows.
        tokenizer: with a chat template; in thinking models the think block is closed.
        eos_ids: the tokens on which the model's generation ends; empty for the tokenizer's own.
        longest: the most tokens that a row may have.
        vocabulary: how many token ids the model has an embedding for.

    Raises:
        DataError: a row of more tokens than `longest`, a token outside `vocabulary`, or a response without a token.
        ModelError: neither the model nor the tokenizer names a token that ends a response.
    """
    end = end_of_turn(tokenizer, eos_ids)
    prompts = encode_messages(tokenizer, [row.text for row in examples])
    responses = encode_answers(tokenizer, [row.target for row in examples])
    ends = [[end] if row.ends else [] for row in examples]
    rows = [Encoded(prompt=tuple(p), response=(*r, *e)) for p, r, e in zip(prompts, responses, ends, strict=True)]
    for row, example in zip(rows, examples, strict=True):
        length = len(row.prompt) + len(row.response)
        if longest is not None and length > longest:
            raise DataError(
                f"{example.prompt_id} ({example.language}) has {length:,} tokens, but the model takes {longest:,}",
                "Shorten it, or leave it out.",
            )
        outside = None if vocabulary is None else first_outside((*row.prompt, *row.response), vocabulary)
        if vocabulary is not None and outside is not None:
            reason = outside_reason(outside, tokenizer, vocabulary)
            raise DataError(f"{example.prompt_id} ({example.language}) has {reason}", OUTSIDE_HINT)
        if len(row.response) == example.ends:
            raise DataError(
                f"the response of {example.prompt_id} ({example.language}) has no tokens",
                "Write a response, or leave the row out.",
            )
    return rows


def end_of_turn(tokenizer: Any, eos_ids: Sequence[int] = ()) -> int:
    """The token that ends the assistant's turn: the last end token of a conversation in the chat template.

    Gemma-2 says `<end_of_turn>` where its tokenizer's end token is `<eos>`. A template that ends no turn leaves the
    tokenizer's own end token.
    """
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    ids = tokenize(tokenizer, render(tokenizer, [chat], prompted=False))[0]
    ends = {*eos_ids, tokenizer.eos_token_id} - {None}
    found = [token for token in ids if token in ends]
    if not ends:
        raise ModelError("The model has no token that ends a response.", "Set eos_token in tokenizer_config.json.")
    return found[-1] if found else tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(ends)


def batch_of(rows: Sequence[Encoded], pad_id: int, device: Any) -> Batch:
    """Rows as one batch; positions count from a row's first real token."""
    width = max(len(row.response) for row in rows)
    labels = [[IGNORED] * (width - len(row.response)) + list(row.response) for row in rows]
    return Batch(
        inputs=pad_left([row.prompt + row.response for row in rows], pad_id, str(device)),
        labels=torch.tensor(labels, device=device),
    )


def response_loss(module: Any, batch: Batch) -> Float[Tensor, ""]:
    """Summed cross-entropy of the response tokens in nats, in float32 or better.

    A sum, so that micro-batches and processes add up to the mean over all tokens of a step whatever their lengths.
    """
    kept = batch.labels.shape[1] + 1  # the position before the response predicts its first token
    logits = module(**batch.inputs, use_cache=False, logits_to_keep=kept).logits[:, :-1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten().to(logits.device), ignore_index=IGNORED, reduction="sum"
    )


def response_tokens(rows: Sequence[Encoded]) -> int:
    """How many tokens the loss of these rows is summed over."""
    return sum(len(row.response) for row in rows)
