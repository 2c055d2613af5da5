"""Evaluating set expressions: a `SetExpression` becomes a `NeuronSet` of this model and these prompts."""

import polars as pl

from ssn_probe.errors import RecipeError
from ssn_probe.importance import importance
from ssn_probe.lab import Lab
from ssn_probe.neurons import NeuronSet, read_neurons
from ssn_probe.node import walk
from ssn_probe.plan import anchor_of
from ssn_probe.recipe import (
    Combine,
    NeuronFile,
    Of,
    Only,
    RandomLike,
    SafetyNeurons,
    SetExpression,
    Shared,
    UnionOf,
    WithoutStrongest,
)
from ssn_probe.selection import averaged, random_like, select_neurons, shared_at_least, shared_with_anchor


def evaluate(lab: Lab, expression: SetExpression) -> NeuronSet:
    """The neurons that an expression stands for. Raises what its parts raise: DataError, RecipeError, ModelError."""
    return lab.remember(("set", expression), lambda: _evaluate(lab, expression))


def _evaluate(lab: Lab, expression: SetExpression) -> NeuronSet:
    match expression:
        case SafetyNeurons(rule=rule, top=top, pool=pool):
            assert top is not None
            return select_neurons(importance(lab, expression), rule=rule, top=top, pool=pool)
        case Shared():
            return _shared(lab, expression)
        case Combine(operation=operation, left=left, right=right):
            first, second = evaluate(lab, left), evaluate(lab, right)
            return {"and": first.__and__, "or": first.__or__, "minus": first.__sub__}[operation](second)
        case Of(neurons=inner, language=language):
            return evaluate(lab, inner).of(language)
        case UnionOf(neurons=inner):
            return evaluate(lab, inner).union()
        case WithoutStrongest(neurons=inner):
            return evaluate(lab, inner).without_strongest()
        case Only(neurons=inner, layers=layers, sites=sites, languages=languages):
            return evaluate(lab, inner).only(layers=layers, sites=sites, languages=languages)
        case RandomLike(neurons=inner, seed=seed):
            return random_like(evaluate(lab, inner), lab.widths(), seed)
        case NeuronFile(path=path):
            return read_neurons(path)
    raise TypeError(f"{type(expression).__name__} is no set expression")


def _shared(lab: Lab, node: Shared) -> NeuronSet:
    if node.at_least is not None:
        return shared_at_least(evaluate(lab, node.neurons), node.at_least)
    choosers = [inner for inner in walk(node) if isinstance(inner, SafetyNeurons)]
    if len(set(choosers)) != 1:
        return _shared_by_own_scores(evaluate(lab, node.neurons), node.anchor or lab.anchor)
    chosen = choosers[0]
    mean = averaged(importance(lab, chosen))
    if node.by == "mean":
        assert chosen.top is not None
        return select_neurons(mean, rule=chosen.rule, top=chosen.top, pool=chosen.pool)
    score = pl.col("harmful") if chosen.rule == "harmful" else pl.col("harmful") - pl.col("harmless")
    anchor = anchor_of(lab.data[chosen.prompts], node.anchor)
    return shared_with_anchor(evaluate(lab, node.neurons), anchor, mean.with_columns(score=score).drop("language"))


def _shared_by_own_scores(neurons: NeuronSet, anchor: str | None) -> NeuronSet:
    """Shared neurons of files, or of several choices: ranked by their own scores, averaged over languages."""
    if anchor is None:
        raise RecipeError("Shared(…) of a neuron file needs an anchor language", "Give Shared(…, anchor=…).")
    return shared_with_anchor(neurons, anchor, neurons.union().frame.drop("language"))
