"""Set expressions on masks: the set algebra of `neuron_set` for many labellings of the prompts at once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ssn_probe.errors import RecipeError
from ssn_probe.neurons import EVERY
from ssn_probe.spec import (
    After,
    Combine,
    LeaveOneOut,
    NeuronFile,
    Of,
    Only,
    RandomLike,
    SafetyNeurons,
    SetExpression,
    Shared,
    UnionOf,
    WholeLayers,
    WithoutStrongest,
)
from ssn_probe.spec.anchors import shared_with_anchor, the_anchor
from ssn_probe.spec.node import walk
from ssn_probe.stats.nulls.array_selection import select


@dataclass(frozen=True, kw_only=True, eq=False)
class Masked:
    """A neuron set in many samples, one pool group of it: `mask` bool [sample, language, neuron].

    A language-free set has the one language `"*"`.
    """

    mask: np.ndarray
    languages: tuple[str, ...]

    @property
    def language_free(self) -> bool:
        return self.languages == (EVERY,)

    def at(self, language: str) -> np.ndarray:
        """The mask [sample, neuron] that applies in a language. Raises RecipeError when the set does not know it."""
        if self.language_free:
            return self.mask[:, 0]
        if language not in self.languages:
            raise RecipeError(f"the set has no language {language!r}", f"Languages: {', '.join(self.languages)}.")
        return self.mask[:, self.languages.index(language)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Means:
    """Mean effects of one pool group, float64 [sample, language, neuron], and where its neurons are ([neuron])."""

    harmful: np.ndarray
    harmless: np.ndarray
    languages: tuple[str, ...]
    layers: np.ndarray
    sites: np.ndarray
    anchor: str | None


_REASONS: Mapping[type, str] = {
    RandomLike: "it is random itself",
    NeuronFile: "a file's neurons do not depend on the prompts' labels here",
    WithoutStrongest: "its strongest neuron needs scores of all layers at once",
    WholeLayers: "a layer's neurons are all of it, whatever the labels",
    LeaveOneOut: "each of its languages has a set of its own, chosen from other prompts",
    After: "it is identified in a model that is trained",
}


def no_null(expression: SetExpression) -> str | None:
    """Why this set has no permutation null and no half-samples, in words; None when it has both."""
    for node in walk(expression):
        if type(node) in _REASONS:
            return f"no null for this set: it holds {type(node).__name__}, and {_REASONS[type(node)]}"
        if isinstance(node, SafetyNeurons) and node.stable is not None:
            return "no null for this set: stable=… would repeat its half-samples in every draw; see its error bound"
        if isinstance(node, SafetyNeurons) and node.fdr is not None:
            return "no null for this set: fdr=… is a test itself"
    if len({node for node in walk(expression) if isinstance(node, SafetyNeurons)}) > 1:
        return "no null for this set: it combines several different SafetyNeurons(…)"
    return None


def chooser(expression: SetExpression) -> SafetyNeurons:
    """The `SafetyNeurons` that a set is made of. Raises RecipeError with the reason where there is no null."""
    reason = no_null(expression)
    if reason is not None:
        raise RecipeError(reason, "Leave the set out of the nulls.")
    return next(node for node in walk(expression) if isinstance(node, SafetyNeurons))


def evaluate(expression: SetExpression, means: Means) -> Masked:
    """The set in every sample, with the semantics of `study.set_evaluation.evaluate`; an empty set is no error here."""
    match expression:
        case SafetyNeurons():
            return Masked(mask=_taken(expression, means), languages=means.languages)
        case Shared():
            return _shared(expression, means)
        case Combine(operation=operation, left=left, right=right):
            return _combined(operation, evaluate(left, means), evaluate(right, means))
        case Of(neurons=inner, language=language):
            language = language or the_anchor(means.anchor)
            return Masked(mask=evaluate(inner, means).at(language)[:, None], languages=(EVERY,))
        case UnionOf(neurons=inner):
            found = evaluate(inner, means)
            shared = shared_with_anchor(inner)
            anchor = None if shared is None else shared.anchor or means.anchor
            mask = found.mask[:, [place for place, one in enumerate(found.languages) if one != anchor]]
            return Masked(mask=np.logical_or.reduce(mask, axis=1, keepdims=True), languages=(EVERY,))
        case Only(neurons=inner):
            return _only(expression, evaluate(inner, means), means)
    raise RecipeError(str(no_null(expression)), "Leave the set out of the nulls.")


def _taken(node: SafetyNeurons, means: Means) -> np.ndarray:
    assert node.top is not None
    return select(means.harmful, means.harmless, rule=node.rule, top=node.top)


def _shared(node: Shared, means: Means) -> Masked:
    if node.by == "mean":
        assert isinstance(node.neurons, SafetyNeurons)
        harmful, harmless = (side.mean(axis=1, keepdims=True) for side in (means.harmful, means.harmless))
        average = replace(means, harmful=harmful, harmless=harmless)
        return Masked(mask=_taken(node.neurons, average), languages=(EVERY,))
    inner = evaluate(node.neurons, means)
    if node.at_least is not None:
        return _at_least(inner, node.at_least)
    anchor = node.anchor or means.anchor
    if anchor is None:
        raise RecipeError("Shared(…) needs an anchor language", "Give Shared(…, anchor=…).")
    if anchor not in inner.languages:
        raise RecipeError(
            f"the anchor {anchor!r} is not a language of the set", f"Languages: {', '.join(inner.languages)}."
        )
    return replace(inner, mask=inner.mask & inner.at(anchor)[:, None])


def _at_least(inner: Masked, count: int) -> Masked:
    if count > len(inner.languages):
        raise RecipeError(f"at_least={count}, but the set has {len(inner.languages)} languages", "Give fewer.")
    languages = inner.mask.sum(axis=1, keepdims=True)
    return Masked(mask=languages >= count, languages=(EVERY,))


def _combined(operation: str, left: Masked, right: Masked) -> Masked:
    if not (left.language_free or right.language_free) and set(left.languages) != set(right.languages):
        raise RecipeError(
            f"sets over different languages do not combine: {left.languages} and {right.languages}",
            "Restrict both with .only(languages=…), or make one language-free with .of(…) or .union().",
        )
    languages = right.languages if left.language_free else left.languages
    first, second = (
        np.stack([side.at(language) for language in languages], axis=1) if languages != side.languages else side.mask
        for side in (left, right)
    )
    mask = {"and": np.logical_and, "or": np.logical_or, "minus": np.greater}[operation](first, second)
    return Masked(mask=mask, languages=languages)


def _only(node: Only, inner: Masked, means: Means) -> Masked:
    here = np.ones(len(means.layers), dtype=bool)
    if node.layers is not None:
        here &= np.isin(means.layers, node.layers)
    if node.sites is not None:
        here &= np.isin(means.sites, node.sites)
    if node.languages is None:
        return replace(inner, mask=inner.mask & here)
    if inner.language_free and EVERY not in node.languages:
        raise RecipeError("a language-free set has no languages to choose from", "Choose them before .of or .union.")
    rows = np.stack([inner.at(language) for language in node.languages], axis=1)
    return Masked(mask=rows & here, languages=node.languages)
