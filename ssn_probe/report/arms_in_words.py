"""What an arm does to which set, in words: "silencing the shared safety neurons (SS)"."""

import re
from collections.abc import Sequence

from ssn_probe.report.recipe_sets import expression_of
from ssn_probe.report.refusal_in_words import is_shown, named
from ssn_probe.spec import Recipe
from ssn_probe.spec.anchors import source_of
from ssn_probe.spec.labels import set_label
from ssn_probe.study.refusal_trial import Refusals
from ssn_probe.text import plain


def set_name(recipe: Recipe, arm: str, refusals: Sequence[Refusals] | None) -> str:
    """The set of an arm in words."""
    return named(set_label(expression_of(recipe, arm)), refusals) or f"the set {plain(arm)}"


def phrase_of(recipe: Recipe, arm: str, anchor: str | None, refusals: Sequence[Refusals] | None) -> str:
    """What the arm does to its set."""
    return _phrase(recipe, arm, anchor, set_name(recipe, arm, refusals))


def short_phrase(recipe: Recipe, arm: str, anchor: str | None, refusals: Sequence[Refusals] | None) -> str:
    """The same with abbreviations, "silencing SS"; a set that is none of safety neurons goes by the arm's name."""
    name = set_name(recipe, arm, refusals) if is_shown(refusals) else f"the set {plain(arm)}"
    return re.sub(r"the (?:monolingual|shared) safety neurons \((MS|SS)\)", r"\1", _phrase(recipe, arm, anchor, name))


def _phrase(recipe: Recipe, arm: str, anchor: str | None, name: str) -> str:
    source = source_of(recipe.arms[arm], anchor)
    return recipe.arms[arm].phrase(name, None if source is None else plain(source))
