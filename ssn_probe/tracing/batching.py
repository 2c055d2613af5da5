"""Batches of prompts of like length, and their results back in the order in which the prompts came."""

from collections.abc import Callable, Iterator, Sequence

Advance = Callable[[int], None]
"""Called after each batch with the number of prompts that are done."""


def no_progress(_done: int) -> None:
    """The Advance that tells nobody."""


def by_length(tokens: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Row numbers in batches of at most `size`, longest prompts first, so that little is padding.

    The longest come first because a batch that does not fit in memory should fail at once.
    """
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
