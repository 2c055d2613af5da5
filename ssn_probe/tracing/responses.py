"""Responses as they lie on a shelf, token by token, and as text: whoever finds all of them there imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ssn_probe.model.asking import own_turn
from ssn_probe.model.subject import Subject
from ssn_probe.model.token_ids import decoded
from ssn_probe.model.turn_ends import up_to_end
from ssn_probe.tracing.batching import Part, gather_array
from ssn_probe.tracing.edits import Edits


@runtime_checkable
class Engine(Protocol):
    """What generates in place of transformers. Its tokens depend on what runs together, so that it sets the batches."""

    @property
    def batch_size(self) -> int: ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What can change a token beside model, prompts and edits."""
        ...

    def greedy(self, prompts: Sequence[Sequence[int]], edits: Edits, max_new_tokens: int) -> list[list[int]]:
        """The greedy tokens after each prompt, the end token included."""
        ...


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One response: its text without special tokens, how many tokens were generated, and why it ended.

    `tokens` counts the end token where there is one; "length" means that `max_new_tokens` cut the response short.
    `unwritten` counts tokens that the tokenizer has no text for: an embedding is often larger than its tokenizer.
    """

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]
    unwritten: int = 0


def new_tokens(parts: Sequence[Part], prompts: int, max_new_tokens: int) -> list[list[int]]:
    """The token ids of every response of a shelf that has all of them, in the order of the prompts."""
    ids = gather_array(parts, "ids", np.full((prompts, max_new_tokens), -1))
    return [[token for token in row if token >= 0] for row in ids.tolist()]


def finish(subject: Subject, new: list[list[int]]) -> list[Generation]:
    """Cut each row at its end token, and decode; in the plain form, leave out what the model says for the user."""
    if not new:
        return []
    rows = [up_to_end(row, subject.eos_ids) for row in new]
    texts, own, unknown = _read(subject, [row for row, _ in rows])
    return [
        Generation(
            text=kept,
            tokens=len(row) + ended,
            finish_reason="stop" if ended or kept != text else "length",
            unwritten=sum(token in unknown for token in row) if unknown else 0,
        )
        for text, kept, (row, ended) in zip(texts, own, rows, strict=True)
    ]


def _read(subject: Subject, rows: list[list[int]]) -> tuple[list[str], list[str], set[int]]:
    """Rows of ids as text, the model's own part of each, and the ids that the tokenizer does not know."""

    def compute() -> Any:
        different = list(dict.fromkeys(map(tuple, rows)))  # many prompts are answered alike
        texts, unknown = decoded([list(row) for row in different], subject.tokenizer)
        own = [own_turn(text, subject.tokenizer) for text in texts]
        number = {row: one for one, row in enumerate(different)}
        order = [number[tuple(row)] for row in rows]
        return [texts[one] for one in order], [own[one] for one in order], sorted(unknown)

    texts, own, unknown = subject.kept.value("responses", rows, compute)
    return texts, own, set(unknown)
