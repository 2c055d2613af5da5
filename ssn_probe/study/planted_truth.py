"""A run on an organism with planted neurons: its sets compared with the ground truth."""

from collections.abc import Iterator, Mapping

import polars as pl

from ssn_probe.model.loading import locate
from ssn_probe.neurons import NeuronSet
from ssn_probe.neurons.selection import averaged, scored
from ssn_probe.organism.ground_truth import Truth, against_truth, load_truth
from ssn_probe.spec import SafetyNeurons, SetExpression, Shared
from ssn_probe.study.set_evaluation import choosers, evaluate, importance_of
from ssn_probe.study.workbench import Workbench

OWN, AVERAGE = "own", "average"


def truth_table(
    bench: Workbench, model: str, expressions: Mapping[str, SetExpression], sets: Mapping[str, NeuronSet]
) -> pl.DataFrame | None:
    """Every set against the ground truth, see `against_truth`; None for a model without ground truth.

    `ranked_by` says whose effects rank the neurons for `average_precision`: those of each language, or the average over
    languages. Of a set that every language chooses by its own, rows of `average` are what the rule takes by that.
    """
    truth = load_truth(locate(model))
    if truth is None:
        return None
    rows = (_rows(bench, truth, name, node, sets[name]) for name, node in expressions.items())
    return pl.concat(frame for frames in rows for frame in frames)


def _rows(bench: Workbench, truth: Truth, name: str, node: SetExpression, found: NeuronSet) -> Iterator[pl.DataFrame]:
    chosen = choosers(node)
    if len(chosen) != 1:
        yield _ranked(against_truth(truth, name, found), None)
        return
    means, rule = importance_of(bench, chosen[0]), chosen[0].rule
    average = scored(averaged(means), rule)
    if isinstance(node, Shared):
        yield _ranked(against_truth(truth, name, found, average), AVERAGE)
        return
    yield _ranked(against_truth(truth, name, found, scored(means, rule)), OWN)
    if isinstance(node, SafetyNeurons) and node.fdr is node.stable is None:
        by_average = evaluate(bench, Shared(node, by="mean"))
        yield _ranked(against_truth(truth, name, by_average, average), AVERAGE)


def _ranked(rows: pl.DataFrame, ranked_by: str | None) -> pl.DataFrame:
    return rows.select("set", pl.lit(ranked_by, pl.String).alias("ranked_by"), pl.exclude("set"))
