"""How a model reads texts: control tokens that they spell, and messages that a template changes.

A tokenizer reads `<|im_end|>` in a user's message as the end of the turn, and a jailbreak set may hold just that. Such
tokens reach the model as plain text (`model/plain_text`) where that can be done. What is written in a message is
compared with what the model gets, so that a reader is told of either.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ssn_probe.model.plain_text import control_tokens, encode_answers, encode_messages, telling, tokenize
from ssn_probe.model.templates import render


@dataclass(frozen=True, kw_only=True)
class Read:
    """How a model reads a message.

    `as_text`: control tokens that it spells, and that reach the model as plain text. `tokens`: those that reach it as
    control tokens, and the signs of a turn in plain text. `stands`: is its text in the prompt as it is written?
    """

    as_text: tuple[str, ...]
    tokens: tuple[str, ...]
    stands: bool


class Reader:
    """Reads messages as a tokenizer and its chat template do."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """Lines in plain text by which the template separates turns, such as `[/INST]` or `### Response:`."""
        contents = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.content]
        tokens = "|".join(map(re.escape, sorted(contents, key=len, reverse=True)))
        text = "\n".join(control_tokens(self.tokenizer).written[1:])
        parts = re.split(rf"\n|{tokens}" if tokens else r"\n", text)
        return tuple(dict.fromkeys(part.strip() for part in parts if telling(part.strip())))

    def messages(self, texts: Sequence[str]) -> list[Read]:
        """How user messages are read."""
        shown = render(self.tokenizer, [[{"role": "user", "content": text}] for text in texts])
        rows = tokenize(self.tokenizer, shown)
        return [self._read(text, row, prompt) for text, row, prompt in zip(texts, rows, shown, strict=True)]

    def answers(self, texts: Sequence[str]) -> list[Read]:
        """How responses to learn are read, which come without a template."""
        return [self._read(text, row) for text, row in zip(texts, tokenize(self.tokenizer, texts), strict=True)]

    def _read(self, text: str, usual: Sequence[int], prompt: str | None = None) -> Read:
        """`usual`: its tokens as the tokenizer has them; where it spells control tokens, others reach the model."""
        found, encode = control_tokens(self.tokenizer), encode_answers if prompt is None else encode_messages
        spelled = left = found.spelled(usual, prompt=prompt is not None)
        if spelled:
            left = found.spelled(encode(self.tokenizer, [text])[0], prompt=prompt is not None)
        return Read(
            as_text=self._named(spelled - left),
            tokens=(*self._named(left), *(line for line in self.lines if line in text)),
            stands=prompt is None or text in prompt,
        )

    def _named(self, found: Counter[int]) -> tuple[str, ...]:
        return tuple(control_tokens(self.tokenizer).tokens[token] for token in sorted(found))
