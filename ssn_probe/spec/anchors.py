"""Which language a set is shared with, and which a patch carries over from, read off the expressions alone."""

from ssn_probe.errors import RecipeError
from ssn_probe.spec.interventions import After, Patch, Then
from ssn_probe.spec.neuron_sets import Only, RandomLike, Shared, WithoutStrongest
from ssn_probe.spec.node import Node


def the_anchor(anchor: str | None) -> str:
    """The anchor of a study, where an expression needs one. Raises RecipeError where there is none."""
    if anchor is None:
        raise RecipeError(
            "set.of() takes the anchor's neurons, and there is no anchor", "Name a language: set.of('en')."
        )
    return anchor


def by_anchor(node: Shared) -> bool:
    """Is the set shared with an anchor, rather than among several languages?"""
    return node.at_least is None and node.by == "intersection"


def shared_with_anchor(expression: Node) -> Shared | None:
    """The `Shared` that a set is, or is a part or another finding of; None for one not shared with an anchor."""
    while isinstance(expression, After | Only | RandomLike | WithoutStrongest):
        expression = expression.neurons
    return expression if isinstance(expression, Shared) and by_anchor(expression) else None


def source_of(node: Node | None, anchor: str | None) -> str | None:
    """The language that a Patch carries over from: the one it names, else the anchor; None for what is no Patch.

    Raises RecipeError where it names none and there is no anchor.
    """
    node = node.then if isinstance(node, Then) else node
    if not isinstance(node, Patch):
        return None
    source = node.source or anchor
    if source is None:
        raise RecipeError(
            "Patch(…) names no source language, and there is no anchor to carry over from",
            "Give Patch(set, source=…), a language of the prompt set; it needs another one to carry over to.",
        )
    return source
