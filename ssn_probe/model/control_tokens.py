"""Texts that are more than text to a model: control tokens spelled in a message, and messages a template changes.

A tokenizer reads `<|im_end|>` in a user's message as the end of the turn, and a jailbreak set may hold just that. What
is written in a message is compared with what the model gets: control tokens that a plain word does not bring along, and
text that does not stand in the rendered prompt.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import tokenize
from ssn_probe.model.templates import MESSAGES, render, two_turns

SHORTEST = 4
"""Characters of a line that a template writes between turns which make it unlikely to stand in a text by chance."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """How a model reads a message: control `tokens` that the message spells, and whether its text `stands` there."""

    tokens: tuple[str, ...]
    stands: bool


class Reader:
    """Reads messages as a tokenizer and its chat template do."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._unknown = tokenizer.unk_token_id

    @cached_property
    def added(self) -> dict[int, str]:
        """The tokens that stand for something else than text: special ones, and added ones that the template writes."""
        written = "".join(self._written)
        known = self.tokenizer.added_tokens_decoder.items()
        return {
            number: token.content
            for number, token in known
            if number != self._unknown and (token.special or (token.content and token.content in written))
        }

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """Lines in plain text by which the template separates turns, such as `[/INST]` or `### Response:`."""
        contents = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.content]
        tokens = "|".join(map(re.escape, sorted(contents, key=len, reverse=True)))
        text = "\n".join(self._written[1:])
        parts = re.split(rf"\n|{tokens}" if tokens else r"\n", text)
        return tuple(dict.fromkeys(part.strip() for part in parts if _telling(part.strip())))

    @cached_property
    def _written(self) -> tuple[str, str, str, str]:
        try:
            shown = two_turns(self.tokenizer)
        except ModelError:
            return ("", "", "", "")
        return (shown.before, shown.handover, shown.between, shown.end)

    @cached_property
    def _plain(self) -> Counter[int]:
        """The control tokens of a prompt whose message is a plain word."""
        return self._count(tokenize(self.tokenizer, self._render([MESSAGES[0]])))[0]

    def _render(self, texts: Sequence[str]) -> list[str]:
        return render(self.tokenizer, [[{"role": "user", "content": text}] for text in texts])

    def _count(self, rows: Sequence[Sequence[int]]) -> list[Counter[int]]:
        return [Counter(token for token in row if token in self.added) for row in rows]

    def messages(self, texts: Sequence[str]) -> list[Read]:
        """How user messages are read."""
        shown = self._render(texts)
        counts = self._count(tokenize(self.tokenizer, shown))
        return [
            Read(tokens=self._spelled(text, count - self._plain), stands=text in prompt)
            for text, prompt, count in zip(texts, shown, counts, strict=True)
        ]

    def answers(self, texts: Sequence[str]) -> list[Read]:
        """How responses to learn are read, which come without a template."""
        counts = self._count(tokenize(self.tokenizer, texts))
        return [Read(tokens=self._spelled(text, count), stands=True) for text, count in zip(texts, counts, strict=True)]

    def _spelled(self, text: str, found: Counter[int]) -> tuple[str, ...]:
        return (*(self.added[token] for token in sorted(found)), *(line for line in self.lines if line in text))


def _telling(line: str) -> bool:
    """Is it no word or punctuation alone?"""
    return (
        len(line) >= SHORTEST and any(map(str.isalpha, line)) and not all(one.isalnum() or one == " " for one in line)
    )
