"""A run on an organism with planted neurons: its sets compared with the ground truth."""

from collections.abc import Mapping

import polars as pl

from ssn_probe.model.loading import locate
from ssn_probe.neurons import NeuronSet
from ssn_probe.neurons.selection import averaged, scored
from ssn_probe.organism.ground_truth import against_truth, load_truth
from ssn_probe.spec import SetExpression, Shared
from ssn_probe.study.set_evaluation import choosers, importance_of
from ssn_probe.study.workbench import Workbench


def truth_table(
    bench: Workbench, model: str, expressions: Mapping[str, SetExpression], sets: Mapping[str, NeuronSet]
) -> pl.DataFrame | None:
    """Every set against the ground truth, see `against_truth`; None for a model without ground truth."""
    truth = load_truth(locate(model))
    if truth is None:
        return None
    return pl.concat(
        against_truth(truth, name, sets[name], _ranking(bench, node)) for name, node in expressions.items()
    )


def _ranking(bench: Workbench, expression: SetExpression) -> pl.DataFrame | None:
    """The scores by which the set's rule ranks all neurons; those of a shared set are averaged over languages."""
    chosen = choosers(expression)
    if len(chosen) != 1:
        return None
    means = importance_of(bench, chosen[0])
    return scored(averaged(means) if isinstance(expression, Shared) else means, chosen[0].rule)
