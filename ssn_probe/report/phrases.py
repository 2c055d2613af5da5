"""What an arm does, in words, and whether it did what it is meant to do."""

from collections.abc import Mapping
from typing import Any

from ssn_probe.spec import (
    Amplify,
    Expand,
    Intervention,
    LeaveOneOut,
    LoRA,
    Patch,
    Then,
    Trains,
)
from ssn_probe.spec.labels import set_label
from ssn_probe.spec.node import Node
from ssn_probe.text import plain

ALPHA = 0.05


def intervention_phrase(node: Node, what: str, source: str | None) -> str:
    """`silencing the shared safety neurons`; `source` is the language that a Patch carries over from."""
    match node:
        case Amplify(by=by) if by > 1:
            return f"amplifying {what} by {by:g}"
        case Amplify(by=by):
            return f"weakening {what} to {by:g} of their activation"
        case Patch(positions=positions):
            where = "the last prompt position" if positions == "last" else "every step of the response"
            return f"carrying over from {plain(str(source))} the activation of {what} at {where}"
        case Expand(neurons=LeaveOneOut()):
            return f"training the weights of {what}, on data without it,"
        case Expand():
            return f"training the weights of {what}"
        case LoRA():
            return f"training LoRA adapters of as many parameters as {what}"
        case Then(first=first, then=then):
            trained = set_label(first.neurons) or "another set"
            return f"{intervention_phrase(first, trained, None)}, then {intervention_phrase(then, what, source)}"
    return f"silencing {what}"


def phrase_at_random(node: Intervention) -> str:
    """The same, done to a random set of the same size."""
    match node:
        case Amplify(by=by):
            return "amplifying as many random neurons" if by > 1 else "weakening as many random neurons"
        case Patch():
            return "carrying over as many random neurons"
        case Then(then=then):
            return phrase_at_random(then)
        case Trains():
            return "training as many random neurons"
    return "silencing as many random neurons"


def verdict(node: Intervention, row: Mapping[str, Any]) -> str:
    """What the primary row shows of an arm that is expected to raise, or to lower, ASR.

    Failing to reject is no proof of absence: the words claim no more than the test, the interval says how much.
    """
    if row["p"] is None:
        return "was not tested against enough random sets"
    raised, lowered = row["delta_low"] > 0, row["delta_high"] < 0
    did, opposite = (lowered, raised) if node.lowers else (raised, lowered)
    moved = ("lowered ASR", "raised ASR") if node.lowers else ("raised ASR", "lowered ASR")
    if did and row["p"] <= ALPHA:
        return f"{'strengthened' if node.lowers else 'broke'} refusal more than {phrase_at_random(node)}"
    if did:
        return f"{moved[0]}, but was not shown to do so more than random sets of as many neurons"
    shown = f"was not shown to {'strengthen' if node.lowers else 'break'} refusal"
    return f"{shown}; it {moved[1]}" if opposite else shown
