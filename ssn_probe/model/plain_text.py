"""Messages and responses as token ids, in which only the chat template writes control tokens.

A tokenizer reads `<|im_end|>` in a user's message as the end of the turn, so that a prompt could go on with an answer
that the model never gave. Where a text spells a control token, it is tokenised by a copy of the tokenizer in which
control tokens have other, secret names: the template's are written by these names, and those of the text are letters
like any others. Everything else, such as the merges at the edges of a message, is as it was by construction; all other
texts are tokenised as they always were.
"""

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary, ref

from ssn_probe.errors import ModelError
from ssn_probe.model.templates import MESSAGES, foreign_errors, own_template, render, two_turns

SHORTEST = 4
"""Characters of a token, or of a line, of a template which make it unlikely to stand in a text by chance."""
STRANGE = "\U0001242b"
"""A character that hardly a vocabulary has, a numeral in cuneiform."""


def tokenize(tokenizer: Any, rendered: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered chats.

    Raises:
        ModelError: the tokenizer cannot take a text.
    """
    if not rendered:
        return []
    hint = "tokenizer.json may be damaged, or of another version of the tokenizers package."
    with foreign_errors(f"The tokenizer of {tokenizer.name_or_path!r} cannot take a prompt", hint):
        return tokenizer(list(rendered), add_special_tokens=False)["input_ids"]


def telling(text: str) -> bool:
    """Is it no word or punctuation alone?"""
    return (
        len(text) >= SHORTEST and any(map(str.isalpha, text)) and not all(one.isalnum() or one == " " for one in text)
    )


@dataclass(frozen=True)
class _Renamed:
    """A copy of a tokenizer in which control tokens have other names, and a function that writes a text by them."""

    encode: Callable[[str], list[int]]
    by_name: Callable[[str], str]


class ControlTokens:
    """The control tokens of a tokenizer and its template, and texts as token ids without any but the template's."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = ref(tokenizer)  # which outlives this, and is not kept by it

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer()

    @cached_property
    def written(self) -> tuple[str, str, str, str]:
        """What the template writes around the messages of two turns; nothing where it cannot show them."""
        try:
            shown = two_turns(self.tokenizer)
        except ModelError:
            return ("", "", "", "")
        return (shown.before, shown.handover, shown.between, shown.end)

    @cached_property
    def _special(self) -> dict[int, str]:
        """Special tokens, and added ones that the template knows."""
        known = self.tokenizer.added_tokens_decoder.items()
        text = "".join(self.written) + own_template(self.tokenizer)
        found = {number: token.content for number, token in known if token.content}
        return {
            number: content
            for number, content in found.items()
            if self.tokenizer.added_tokens_decoder[number].special or (telling(content) and content in text)
        }

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Those that stand for something else than text: not the one that a tokenizer gives for an unknown word."""
        unknown = self.tokenizer.unk_token_id
        is_given = unknown is not None and unknown in tokenize(self.tokenizer, [STRANGE])[0]
        return {number: content for number, content in self._special.items() if not (is_given and number == unknown)}

    @cached_property
    def _around(self) -> tuple[str, str]:
        """What the template writes before and after a user's message."""
        before, _, after = _shown(self.tokenizer, MESSAGES[0]).partition(MESSAGES[0])
        return before, after

    @cached_property
    def _plain(self) -> Counter[int]:
        """The control tokens of a prompt whose message is a plain word."""
        return self.count(tokenize(self.tokenizer, [_shown(self.tokenizer, MESSAGES[0])])[0])

    def count(self, row: Sequence[int]) -> Counter[int]:
        """How often each control token is in a row."""
        return Counter(token for token in row if token in self.tokens)

    def spelled(self, row: Sequence[int], *, prompt: bool) -> Counter[int]:
        """The control tokens of a row that the template did not write; a `prompt` has the template's."""
        return self.count(row) - (self._plain if prompt else Counter())

    @cached_property
    def _renamed(self) -> _Renamed | None:
        """None where the tokenizer cannot be copied so, or the copy reads the template otherwise."""
        if not self.tokenizer.is_fast:
            return None
        secret = secrets.token_hex(8)  # else a text could spell these names, too
        names = {content: f"\ue000{secret} {number}\ue001" for number, content in self._special.items()}
        try:
            copy = _copied(self.tokenizer.backend_tokenizer.to_str(), names)
        except Exception:  # whatever the tokenizers package raises for a vocabulary that does without these tokens
            return None
        longest = sorted(map(re.escape, names), key=len, reverse=True)
        pattern = re.compile("|".join(longest) or "(?!)")

        def by_name(text: str) -> str:
            return pattern.sub(lambda found: names[found[0]], text)

        made = _Renamed(lambda text: copy.encode(text, add_special_tokens=False).ids, by_name)
        plain = _shown(self.tokenizer, MESSAGES[0])
        same = made.encode(by_name(plain)) == tokenize(self.tokenizer, [plain])[0]
        numbered = all(copy.token_to_id(names[content]) == number for number, content in self._special.items())
        return made if same and numbered else None

    def message_as_text(self, shown: str) -> list[int] | None:
        """A rendered prompt as token ids, with its message as plain text; None where that cannot be done."""
        before, after = self._around
        begins, ends = len(before), len(shown) - len(after)
        if self._renamed is None or begins > ends or not (shown.startswith(before) and shown.endswith(after)):
            return None
        named = self._renamed.by_name
        return self._renamed.encode(named(before) + shown[begins:ends] + named(after))

    def answer_as_text(self, text: str) -> list[int] | None:
        """A response as token ids of plain text."""
        return None if self._renamed is None else self._renamed.encode(text)


def _shown(tokenizer: Any, text: str) -> str:
    return render(tokenizer, [[{"role": "user", "content": text}]])[0]


def _copied(content: str, names: Mapping[str, str]) -> Any:
    """A tokenizer from the content of its file, in which some tokens have other names and cannot be merged."""
    from tokenizers import Tokenizer

    made = json.loads(content)
    for token in made["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = made["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(text, text): number for text, number in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(text, text), score] for text, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        pairs = (one.split(" ") if isinstance(one, str) else one for one in model["merges"])
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & set(names)]
    return Tokenizer.from_str(json.dumps(made | {"post_processor": None, "truncation": None, "padding": None}))


_known: WeakKeyDictionary[Any, tuple[Any, ControlTokens]] = WeakKeyDictionary()


def control_tokens(tokenizer: Any) -> ControlTokens:
    """The control tokens of a tokenizer, found once for each chat template that it is given."""
    state = (tokenizer.get_chat_template(), len(tokenizer))
    if tokenizer not in _known or _known[tokenizer][0] != state:
        _known[tokenizer] = (state, ControlTokens(tokenizer))
    return _known[tokenizer][1]


def encode_messages(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of user messages in the chat template, up to where the response begins."""
    shown = render(tokenizer, [[{"role": "user", "content": text}] for text in texts])
    found, rows = control_tokens(tokenizer), tokenize(tokenizer, shown)
    return [
        (found.message_as_text(prompt) if found.spelled(row, prompt=True) else None) or row
        for prompt, row in zip(shown, rows, strict=True)
    ]


def spells(tokenizer: Any, texts: Sequence[str], answers: Sequence[str]) -> bool:
    """Does any message or response spell a control token?"""
    found, shown = control_tokens(tokenizer), render(tokenizer, [[{"role": "user", "content": one}] for one in texts])
    return any(found.spelled(row, prompt=True) for row in tokenize(tokenizer, shown)) or any(
        found.spelled(row, prompt=False) for row in tokenize(tokenizer, answers)
    )


def encode_answers(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of responses to learn, which come without a template."""
    found, rows = control_tokens(tokenizer), tokenize(tokenizer, texts)
    return [
        (found.answer_as_text(text) if found.spelled(row, prompt=False) else None) or row
        for text, row in zip(texts, rows, strict=True)
    ]
