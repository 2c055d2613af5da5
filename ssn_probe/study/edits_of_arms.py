"""How an intervention changes a running model: one registered function per kind of intervention.

A function takes the intervention, the neurons that apply while a language is evaluated, and where they are applied, and
returns edits, which are plain data (`ssn_probe.tracing.edits`). An intervention without a function makes no edits.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ssn_probe.neurons import NeuronSet, Site
from ssn_probe.spec import Amplify, Intervention, MeanOf, Patch, Suppress, Trains
from ssn_probe.spec.node import digest
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.batching import covered
from ssn_probe.tracing.edits import NO_EDITS, Edits, Neuron, amplification, carrying, suppression
from ssn_probe.tracing.kept_values import mean_activations_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Where:
    """Where an intervention is applied: on which bench, in which language, and from which source it carries over."""

    bench: Workbench
    language: str
    source: str | None = None


MakeEdits = Callable[[Any, Iterable[Neuron], Where], Edits]
EDITS: dict[type[Intervention], MakeEdits] = {}


def edits(kind: type[Intervention]) -> Callable[[MakeEdits], MakeEdits]:
    """Registers the function that makes the edits of an intervention: `function(node, neurons, where) -> Edits`.

    `neurons` are the (layer, site, index) that apply while `where.language` is evaluated; edits are plain data, made by
    the functions of `ssn_probe.tracing.edits`. An example: docs/extend/intervention.md.
    """

    def register(function: MakeEdits) -> MakeEdits:
        EDITS[kind] = function
        return function

    return register


def edits_for(
    bench: Workbench, neurons: NeuronSet | None, does: Intervention | None, language: str, source: str | None = None
) -> Edits:
    """What changes in the model while `language` is evaluated: nothing for the baseline, nor where weights change."""
    if neurons is None or does is None or isinstance(does, Trains):
        return NO_EDITS
    rows = neurons.neurons(language)[["layer", "site", "index"]].iter_rows()
    return EDITS[type(does)](does, rows, Where(bench=bench, language=language, source=source))


@edits(Suppress)
def _suppress(node: Suppress, neurons: Iterable[Neuron], where: Where) -> Edits:
    means = harmless_means(where.bench, node.to, where.language) if isinstance(node.to, MeanOf) else None
    return suppression(neurons, means)


@edits(Amplify)
def _amplify(node: Amplify, neurons: Iterable[Neuron], _where: Where) -> Edits:
    return amplification(neurons, node.by)


@edits(Patch)
def _patch(node: Patch, neurons: Iterable[Neuron], where: Where) -> Edits:
    return carrying(neurons, f"{where.source}, {node.positions}")


def harmless_means(bench: Workbench, node: MeanOf, language: str) -> Mapping[Site, Any]:
    """Mean activations over the harmless identify prompts of a language."""

    def compute() -> Mapping[Site, Any]:
        rows = bench.data[node.prompts].select("identify", "harmless", language)
        tokens = tokens_of(bench, rows)
        with bench.shelf(bench.inputs("mean activations", prompts=digest(tokens)), rows.height) as shelf:
            if not covered(shelf, rows.height) or not tokens:
                from ssn_probe.tracing.means import mean_activations

                mean_activations(bench.subject, tokens, batch_size=bench.size("mean activations"), shelf=shelf)
            return mean_activations_of(shelf.parts())

    return bench.remember(("means", bench.data[node.prompts].digest, language), compute)
