"""Every token id that reaches a model is one that its embedding has, wherever it comes from.

An id outside is an IndexError on a CPU, and on a GPU an assertion that ends the process. So the sources are compared
with the embedding before anything runs: the pad token, the ends of a turn, what the template writes, and every prompt.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from ssn_probe.errors import ModelError


def embedding_size(module: Any) -> int:
    """How many token ids the model has an embedding for."""
    return module.get_input_embeddings().weight.shape[0]


def is_inside(token: Any, size: int) -> TypeGuard[int]:
    """Is it a token id that an embedding of `size` rows has?"""
    return isinstance(token, int) and not isinstance(token, bool) and 0 <= token < size


def usable_pad(proposed: int | None, eos_ids: Sequence[int], size: int) -> int:
    """The pad token if the embedding has it, else the first end token that it has, else 0.

    Padding is masked, so which id stands there changes no number.
    """
    return next((token for token in (proposed, *eos_ids) if is_inside(token, size)), 0)


def all_inside(row: Sequence[Any], size: int) -> bool:
    """Is every id of a row one that the embedding has?"""
    try:
        # many times faster than a look at every token
        return not row or (is_inside(min(row), size) and is_inside(max(row), size))
    except TypeError:  # None, where a tokenizer has no token for a text
        return False


def first_outside(ids: Iterable[Any], size: int) -> Any:
    """The first id that an embedding of `size` rows does not have; None where there is none."""
    return next((token for token in ids if not is_inside(token, size)), None)


def outside_reason(token: Any, tokenizer: Any, size: int) -> str:
    """`the token '<x>' (id 300), but the model's embedding ends at 261`, for an error that says where it is."""
    return f"the token {token_text(token, tokenizer)!r} (id {token}), but the model's embedding ends at id {size - 1}"


def token_text(token: Any, tokenizer: Any) -> str:
    """A token as the vocabulary spells it, or `unknown`."""
    try:
        return str(tokenizer.convert_ids_to_tokens(token))
    except Exception:  # what a tokenizer of others raises for an id that it does not know
        return "unknown"


def without_text(ids: Iterable[int], tokenizer: Any) -> set[int]:
    """Those of some ids that the tokenizer does not know, so that it leaves them out of a text without a word."""
    known = list(ids)
    return {token for token, text in zip(known, tokenizer.convert_ids_to_tokens(known), strict=True) if text is None}


def decoded(rows: Sequence[Sequence[int]], tokenizer: Any) -> tuple[list[str], set[int]]:
    """Responses as text without special tokens, as they are written, and the ids that the tokenizer does not know."""
    unknown = without_text({token for row in rows for token in row}, tokenizer)
    known = [[token for token in row if token not in unknown] for row in rows]
    texts = tokenizer.batch_decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts, unknown


OUTSIDE_HINT = (
    "The tokenizer and the weights do not belong together, or tokens were added without resizing the embedding: use "
    "the tokenizer that the model was trained with, or leave the token out."
)


def check_inside(rows: Sequence[Sequence[Any]], tokenizer: Any, size: int) -> None:
    """Refuse rows of token ids of which one is outside the embedding.

    Raises:
        ModelError: names the first such row, by its number if there are several, and the token.
    """
    for number, row in enumerate(rows):
        if not all_inside(row, size):
            which = "The prompt" if len(rows) == 1 else f"Prompt {number + 1} of {len(rows)}"
            reason = outside_reason(first_outside(row, size), tokenizer, size)
            raise ModelError(f"{which} has {reason}.", OUTSIDE_HINT)


def check_ends(eos_ids: Sequence[int], size: int) -> None:
    """Refuse end tokens of which none can be generated: every response would run on to its limit.

    Raises:
        ModelError: there are end tokens, and all are outside the embedding.
    """
    if eos_ids and not any(is_inside(token, size) for token in eos_ids):
        raise ModelError(
            f"No end token of the model ({', '.join(map(str, eos_ids))}) is in its vocabulary: the embedding ends at "
            f"id {size - 1}. Responses would never end.",
            "Correct eos_token_id in generation_config.json, or eos_token in tokenizer_config.json.",
        )
