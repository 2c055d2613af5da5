"""The other run that a Patch carries over from: the parallel prompts in the source language, with nothing changed."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from ssn_probe.neurons import EVERY, NEURON, SITES, NeuronSet
from ssn_probe.spec.node import digest
from ssn_probe.study.measurements import Carry, tokens_of
from ssn_probe.study.workbench import METHODS, Workbench
from ssn_probe.tracing.edits import Edits, Neuron, carried_neurons

if TYPE_CHECKING:
    from ssn_probe.tracing.carried import Carried


class Source:
    """The prompts of a context in the source language, run once for all languages, when a value is first asked for.

    Only the neurons of the set are captured, those of any language that is evaluated. The values live as long as this
    object: with long responses they are the largest thing that a study holds.
    """

    def __init__(
        self,
        bench: Callable[[], Workbench],
        rows: pl.DataFrame,
        *,
        neurons: Callable[[], NeuronSet],
        languages: Sequence[str],
        max_new_tokens: int,
        label: str,
    ):
        self.make_bench, self.rows, self.find, self.languages = bench, rows, neurons, languages
        self.max_new_tokens, self.label = max_new_tokens, label
        self.carried: Carried | None = None

    @cached_property
    def bench(self) -> Workbench:
        return self.make_bench()

    @cached_property
    def neurons(self) -> list[Neuron]:
        return in_forward_order(self.find(), self.languages)

    def carry(self, prompt_ids: Sequence[str], edits: Edits) -> Carry:
        """What the neurons to be carried over in `edits` did, prompt by prompt in the order of `prompt_ids`."""
        tokens = dict(zip(self.rows["prompt_id"], tokens_of(self.bench, self.rows), strict=True))
        prompts = digest([tokens[prompt] for prompt in prompt_ids])
        inputs = {"prompts": prompts, "version": METHODS["activations"], "max_new_tokens": self.max_new_tokens}
        return Carry(inputs, lambda: self.values(prompt_ids, edits))

    def values(self, prompt_ids: Sequence[str], edits: Edits) -> "Carried":
        """The values of a `carry`."""
        row = {prompt: number for number, prompt in enumerate(self.rows["prompt_id"])}
        column = {neuron: number for number, neuron in enumerate(self.neurons)}
        return self.run().select(
            [row[prompt] for prompt in prompt_ids], [column[neuron] for neuron in carried_neurons(edits)]
        )

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides the values: the prompts, the neurons, and how many tokens may come."""
        neurons = digest([list(neuron) for neuron in self.neurons])
        tokens = digest(tokens_of(self.bench, self.rows))
        return self.bench.inputs("activations", prompts=tokens, neurons=neurons, max_new_tokens=self.max_new_tokens)

    def run(self) -> "Carried":
        """Every value, from the cache or captured now."""
        bench = self.bench
        with bench.alone(("source", id(self))):
            return self._run(bench)

    def _run(self, bench: Workbench) -> "Carried":
        from ssn_probe.tracing.capture import capture

        if self.carried is None:
            with bench.shelf(self.inputs, self.rows.height) as shelf:
                self.carried = capture(
                    bench.subject,
                    tokens_of(bench, self.rows),
                    self.neurons,
                    max_new_tokens=self.max_new_tokens,
                    batch_size=bench.size("activations"),
                    shelf=shelf,
                    advance=bench.tracker.advance(self.label),
                )
        return self.carried

    def complete_row(self) -> None:
        """Ends the row of progress of a source that nothing asked for."""
        if self.carried is None:
            self.bench.tracker.advance(self.label)(self.rows.height)


def in_forward_order(neurons: NeuronSet, languages: Sequence[str]) -> list[Neuron]:
    """The neurons that apply in any of these languages, each once, in the order of the forward pass."""
    rows = neurons.frame.filter(pl.col("language").is_in([EVERY, *languages])).select(NEURON).unique()
    return sorted(rows.iter_rows(), key=lambda neuron: (neuron[0], SITES.index(neuron[1]), neuron[2]))
