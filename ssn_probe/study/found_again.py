"""Are they still the same neurons? Sets identified in a trained model, compared with the same sets before training."""

from collections.abc import Mapping

import polars as pl

from ssn_probe.neurons import NEURON, NeuronSet
from ssn_probe.spec import After, SetExpression
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

SCHEMA = {
    "set": pl.String,
    "language": pl.String,
    "before": pl.Int64,
    "after": pl.Int64,
    "kept": pl.Int64,
    "jaccard": pl.Float64,
    "expected": pl.Float64,
}


def compared_again(
    bench: Workbench, expressions: Mapping[str, SetExpression], sets: Mapping[str, NeuronSet]
) -> pl.DataFrame | None:
    """One row per set of the kind `set.after(…)` and language; None where there is no such set.

    `before` and `after` are sizes, `kept` the neurons in both, `jaccard` kept / either. `expected`: how many of `kept`
    independent draws of these sizes per (layer, site) would give, without regard to common importance.
    """
    rows = [
        (name, *_compared(bench, evaluate(bench, node.neurons), sets[name], language))
        for name, node in expressions.items()
        if isinstance(node, After)
        for language in sets[name].languages
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row") if rows else None


def _compared(
    bench: Workbench, before: NeuronSet, after: NeuronSet, language: str
) -> tuple[str, int, int, int, float, float]:
    first, second = before.neurons(language).select(NEURON), after.neurons(language).select(NEURON)
    kept = first.join(second, on=NEURON).height
    either = first.height + second.height - kept
    widths = bench.widths()
    places = ["layer", "site"]
    counts = first.group_by(places).len().join(second.group_by(places).len(), on=places, suffix="_after").sort(places)
    expected = sum(n * m / widths[layer, site] for layer, site, n, m in counts.iter_rows())
    return language, first.height, second.height, kept, kept / either if either else float("nan"), float(expected)
