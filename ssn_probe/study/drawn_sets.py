"""Sets that are drawn beside a tested set, from what a study measures: the importance of neurons, and own sets."""

from dataclasses import replace

from ssn_probe.errors import RecipeError
from ssn_probe.neurons import NeuronSet
from ssn_probe.neurons.own_sets import own_neurons, own_of
from ssn_probe.neurons.random_controls import Strata, as_important, importance_strata
from ssn_probe.spec import After, NeuronFile, SafetyNeurons, SetExpression, WholeLayers
from ssn_probe.spec.node import walk
from ssn_probe.study.contrast_effects import contrast
from ssn_probe.study.importance import importance
from ssn_probe.study.set_evaluation import choosers, evaluate
from ssn_probe.study.workbench import Workbench


def important_set(bench: Workbench, expression: SetExpression, neurons: NeuronSet, number: int, seed: int) -> NeuronSet:
    """As many neurons as `neurons` has in every language, layer and site, that are as important (`as_important`)."""
    node = measured_by(expression)
    if node is None:
        raise RecipeError("the importance of the set's neurons is not known", "Leave this comparison out.")
    strata: Strata = bench.remember(("strata", node), lambda: importance_strata(importance(bench, node)))
    return as_important(neurons, strata, seed * 10_000 + number)


def measured_by(expression: SetExpression) -> SafetyNeurons | None:
    """The measurement that knows the importance of every neuron a set may have; None where there is no single one.

    There is none for neurons of a file, of several effects or prompt sets, of a model that is trained, or for whole
    layers, whose neurons are at all sites.
    """
    if any(isinstance(node, After | NeuronFile | WholeLayers) for node in walk(expression)):
        return None
    found = {contrast(replace(node, labels=None)) for node in choosers(expression)}
    return found.pop() if len(found) == 1 else None


def own_set(bench: Workbench, expression: SetExpression, neurons: NeuronSet, number: int, seed: int) -> NeuronSet:
    """As many neurons of each language's own set, whether they are shared or not (`own_neurons`)."""
    own = own_of(expression)
    if own is None:
        raise RecipeError("the set is not known to be shared neurons of a larger set", "Leave this comparison out.")
    return own_neurons(neurons, evaluate(bench, own), seed * 10_000 + number)
