"""What an arm does, in words, and whether it did what it is meant to do."""

from collections.abc import Mapping
from typing import Any

from ssn_probe.spec import (
    Intervention,
)

ALPHA = 0.05


def verdict(node: Intervention, row: Mapping[str, Any]) -> str:
    """What the primary row shows of an arm that is meant to raise, or to lower, ASR.

    Failing to reject is no proof of absence: the words stay with what was shown, the interval says how much.
    """
    if row["p"] is None:
        return "was not tested against enough random sets"
    raised, lowered = row["delta_low"] > 0, row["delta_high"] < 0
    did, opposite = (lowered, raised) if node.lowers else (raised, lowered)
    moved = ("lowered ASR", "raised ASR") if node.lowers else ("raised ASR", "lowered ASR")
    if did and row["p"] <= ALPHA:
        return f"{'strengthened' if node.lowers else 'broke'} refusal more than {node.random_phrase()}"
    if did:
        return f"{moved[0]}, but was not shown to do so more than random sets of as many neurons"
    shown = f"was not shown to {'strengthen' if node.lowers else 'break'} refusal"
    return f"{shown}; it {moved[1]}" if opposite else shown


def sentence(words: str) -> str:
    """The words with a capital letter."""
    return words[:1].upper() + words[1:]
