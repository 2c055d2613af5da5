"""The language that a set is shared with, and the one that a patch takes its values from, read off the expressions."""

from ssn_probe.errors import RecipeError
from ssn_probe.spec.interventions import After, Patch, Then
from ssn_probe.spec.neuron_sets import Only, RandomLike, Shared, WithoutStrongest
from ssn_probe.spec.node import Node


def the_anchor(anchor: str | None) -> str:
    """The anchor of a study, for an expression that needs it. Raises RecipeError when there is none."""
    if anchor is None:
        raise RecipeError(
            "set.of() takes the neurons of the anchor language, but there is none", "Name a language: set.of('en')."
        )
    return anchor


def by_anchor(node: Shared) -> bool:
    """Is the set shared with an anchor language, rather than among several languages?"""
    return node.at_least is None and node.by == "intersection"


def shared_with_anchor(expression: Node) -> Shared | None:
    """The `Shared` with an anchor that a set is made of; None for a set that is not shared with an anchor.

    A part of such a set, random neurons like it and the same set found after a training count, too.
    """
    while isinstance(expression, After | Only | RandomLike | WithoutStrongest):
        expression = expression.neurons
    return expression if isinstance(expression, Shared) and by_anchor(expression) else None


def source_of(node: Node | None, anchor: str | None) -> str | None:
    """The language whose values a Patch carries over: the one it names, else the anchor; None for other interventions.

    Raises RecipeError when the patch names no language and there is no anchor.
    """
    node = node.then if isinstance(node, Then) else node
    if not isinstance(node, Patch):
        return None
    source = node.source or anchor
    if source is None:
        raise RecipeError(
            "Patch(…) names no source language, and there is no anchor to take values from",
            "Give Patch(set, source=…) with a language of the prompt set. The set needs a second language to patch.",
        )
    return source
