"""Signs that a tokenizer, or the chat template that comes with it, is another model's.

A tokenizer whose own vocabulary is larger than the model's is refused. The others are signs and no proof, since models
are published so: vocabularies with room to grow (but not for a tenth of their tokens), and turns that are marked by
what looks like a control token and is none (Zephyr, Tulu and OLMo were trained so). They are notes.
"""

import re
from collections.abc import Iterator
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.templates import MESSAGES, render

FEWEST = 0.9
"""The share of a model's vocabulary that the tokenizers of published models have at least, of those that we know."""
CONTROL = re.compile(r"<\|[^<>|\s]+\|>|<｜[^<>｜\s]+｜>|<\w+_of_\w+>")
"""How control tokens are spelled."""


def check_vocabulary(tokenizer: Any, size: int) -> None:
    """Raises ModelError where the tokenizer's vocabulary, without added tokens, is larger than that of the model."""
    if tokenizer.vocab_size > size:
        raise ModelError(
            f"The tokenizer of {tokenizer.name_or_path!r} has {tokenizer.vocab_size:,} tokens, and the model has a "
            f"vocabulary of {size:,} (vocab_size in config.json).",
            "The tokenizer is another model's: use the one that the model was trained with.",
        )


def vocabulary_notes(tokenizer: Any, size: int) -> Iterator[str]:
    """What may show that the tokenizer or the template is another model's, and may also be right."""
    if len(tokenizer) < FEWEST * size:
        yield (
            f"the tokenizer has {len(tokenizer):,} tokens, and the model has a vocabulary of {size:,}: it may be "
            "another model's"
        )
    written = render(tokenizer, [[{"role": "user", "content": MESSAGES[0]}]])[0]
    for text in dict.fromkeys(CONTROL.findall(written)):
        read = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(read) != 1 or read[0] == tokenizer.unk_token_id:
            count = "an unknown token" if len(read) == 1 else f"{len(read)} tokens"
            yield (
                f"the chat template writes {text}, which the tokenizer reads as {count}: unless the model was trained "
                "so, the template or the tokenizer is another model's"
            )
