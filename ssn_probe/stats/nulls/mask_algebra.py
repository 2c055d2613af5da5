"""Neuron sets as masks: set expressions for many labellings of the prompts at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ssn_probe.errors import RecipeError
from ssn_probe.neurons.neuron_set import EVERY, SCHEMA, combined_languages
from ssn_probe.neurons.set_algebra import SetAlgebra
from ssn_probe.spec import (
    After,
    LeaveOneOut,
    NeuronFile,
    ProbedNeurons,
    RandomLike,
    SafetyNeurons,
    SetExpression,
    Shared,
    WholeLayers,
    WithoutStrongest,
)
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.spec.node import walk
from ssn_probe.stats.nulls.array_selection import Asked, Taken
from ssn_probe.stats.nulls.prompt_effects import Group


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskSet:
    """A neuron set in many samples at the neurons of one pool group: `mask` bool [sample, language, neuron].

    A language-free set has the language `"*"`. The operators are those of `NeuronSet`; an empty set is not an error.
    """

    mask: np.ndarray
    languages: tuple[str, ...]
    group: Group

    @property
    def language_free(self) -> bool:
        return self.languages == (EVERY,)

    def __and__(self, other: "MaskSet") -> "MaskSet":
        return self._combined(np.logical_and, other)

    def __or__(self, other: "MaskSet") -> "MaskSet":
        return self._combined(np.logical_or, other)

    def __sub__(self, other: "MaskSet") -> "MaskSet":
        return self._combined(np.greater, other)

    def _combined(self, operator: np.ufunc, other: "MaskSet") -> "MaskSet":
        languages = combined_languages(self.languages, other.languages)
        return self._in(languages, operator(self._mask_of(languages), other._mask_of(languages)))

    def of(self, language: str) -> "MaskSet":
        return self._in((EVERY,), self._mask_of((language,)))

    def union(self) -> "MaskSet":
        return self._in((EVERY,), np.logical_or.reduce(self.mask, axis=1, keepdims=True))

    def at_least(self, count: int) -> "MaskSet":
        """The neurons of `count` languages or more, language-free."""
        if count > len(self.languages):
            raise RecipeError(f"at_least={count}, but the set has {len(self.languages)} languages", "Give fewer.")
        return self._in((EVERY,), self.mask.sum(axis=1, keepdims=True) >= count)

    def only(
        self,
        *,
        layers: Sequence[int] | None = None,
        sites: Sequence[str] | None = None,
        languages: Sequence[str] | None = None,
    ) -> "MaskSet":
        chosen = self.languages if languages is None else tuple(languages)
        if self.language_free and not set(chosen) <= {EVERY}:
            raise RecipeError(
                "a language-free set has no languages to choose from", "Choose them before .of or .union."
            )
        here = np.ones(len(self.group.index), dtype=bool)
        for values, allowed in ((self.group.layers, layers), (self.group.sites, sites)):
            if allowed is not None:
                here &= np.isin(values, allowed)
        return self._in(chosen, self._mask_of(chosen) & here)

    def neurons(self, values: np.ndarray) -> pl.DataFrame:
        """The neurons whose value is not 0: `language, layer, site, index, value`, from [language, neuron]."""
        language, neuron = np.nonzero(values)
        columns = {
            "language": np.array(self.languages)[language],
            "layer": self.group.layers[neuron],
            "site": self.group.sites[neuron],
            "index": self.group.index[neuron],
            "value": values[language, neuron],
        }
        return pl.DataFrame(columns, schema_overrides={name: kind for name, kind in SCHEMA.items() if name in columns})

    def _in(self, languages: tuple[str, ...], mask: np.ndarray) -> "MaskSet":
        return MaskSet(mask=mask, languages=languages, group=self.group)

    def _mask_of(self, languages: tuple[str, ...]) -> np.ndarray:
        """The mask [sample, language, neuron] that applies in these languages."""
        if languages == self.languages:
            return self.mask
        if self.language_free:
            return np.repeat(self.mask, len(languages), axis=1)
        unknown = [language for language in languages if language not in self.languages]
        if unknown:
            raise RecipeError(f"the set has no language {unknown[0]!r}", f"Languages: {', '.join(self.languages)}.")
        return self.mask[:, [self.languages.index(language) for language in languages]]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskAlgebra(SetAlgebra[MaskSet]):
    """Set expressions as masks, from what the rules of their `SafetyNeurons` take in one pool group."""

    taken: Mapping[SafetyNeurons, Taken]
    languages: tuple[str, ...]
    group: Group
    anchor: str | None
    found: dict[SetExpression, MaskSet] = field(default_factory=dict)

    def evaluate(self, expression: SetExpression) -> MaskSet:
        if expression not in self.found:
            self.found[expression] = super().evaluate(expression)
        return self.found[expression]

    def chosen(self, node: SafetyNeurons) -> MaskSet:
        return MaskSet(mask=self.taken[node].own, languages=self.languages, group=self.group)

    def chosen_by_mean(self, node: SafetyNeurons) -> MaskSet:
        return MaskSet(mask=self.taken[node].mean, languages=(EVERY,), group=self.group)

    def shared_with_anchor(self, node: Shared, found: MaskSet) -> MaskSet:
        anchor = node.anchor or self.anchor
        if anchor is None:
            raise RecipeError("Shared(…) needs an anchor language", "Give Shared(…, anchor=…).")
        if anchor not in found.languages:
            raise RecipeError(
                f"the anchor {anchor!r} is not a language of the set", f"Languages: {', '.join(found.languages)}."
            )
        return found & found.of(anchor)

    def shared_at_least(self, node: Shared, found: MaskSet) -> MaskSet:
        assert node.at_least is not None
        return found.at_least(node.at_least)

    def left_out(self, inner: SetExpression) -> Sequence[str]:
        shared = shared_with_anchor(inner)
        anchor = None if shared is None else shared.anchor or self.anchor
        return () if anchor is None else (anchor,)

    def other(self, expression: SetExpression) -> MaskSet:
        reason = no_null(expression) or f"no null for this set: {type(expression).__name__} has no masks"
        raise RecipeError(reason, "Leave the set out of the nulls.")


_REASONS: Mapping[type, str] = {
    RandomLike: "it is random itself",
    ProbedNeurons: "a probe is fitted to the labels, and no mean effect gives its weights",
    NeuronFile: "a file's neurons do not depend on the prompts' labels here",
    WithoutStrongest: "its strongest neuron needs scores of all layers at once",
    WholeLayers: "it takes all neurons of a layer, whatever the labels",
    LeaveOneOut: "each of its languages has a set of its own, chosen from other prompts",
    After: "it is identified in a model that is trained",
}


def no_null(expression: SetExpression) -> str | None:
    """Why this set has no permutation null and no half-samples, in words; None when it has both."""
    for node in walk(expression):
        if type(node) in _REASONS:
            return f"no null for this set: it contains {type(node).__name__}, and {_REASONS[type(node)]}"
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


def asked_of(expressions: Iterable[SetExpression]) -> dict[SafetyNeurons, Asked]:
    """What the sets, which have a null each, ask of their `SafetyNeurons`."""
    found: dict[SafetyNeurons, Asked] = {}
    for expression in expressions:
        node, every = chooser(expression), list(walk(expression))
        by_mean = sum(isinstance(one, Shared) and one.by == "mean" for one in every)
        own = sum(isinstance(one, SafetyNeurons) for one in every) > by_mean
        before = found.get(node, Asked(own=False, mean=False))
        found[node] = Asked(own=before.own or own, mean=before.mean or by_mean > 0)
    return found
