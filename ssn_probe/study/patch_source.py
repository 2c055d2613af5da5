"""The other run that a Patch carries over from: the parallel prompts in the source language, with nothing changed."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.neurons import EVERY, NEURON, SITES, NeuronSet
from ssn_probe.spec.node import digest
from ssn_probe.study.workbench import METHODS, Carry, Workbench, rows_of, tokens_of
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.carried import Carried
from ssn_probe.tracing.edits import Edits, Neuron, carried_neurons


class Source:
    """One context's prompts in the source language, run once for all languages, when a value is first asked for.

    Only the neurons of the set are captured, those of any language that is evaluated. The values live as long as this
    object: with long responses they are the largest thing that a study holds.
    """

    def __init__(
        self,
        bench: Workbench,
        prompts: PromptSet,
        context: str,
        source: str,
        *,
        neurons: NeuronSet,
        languages: Sequence[str],
        max_new_tokens: int,
        label: str,
    ):
        self.bench, self.max_new_tokens, self.label = bench, max_new_tokens, label
        self.rows = rows_of(bench, prompts, context, source)
        self.neurons = in_forward_order(neurons, languages)
        self.carried: Carried | None = None

    def carry(self, prompt_ids: Sequence[str], edits: Edits) -> Carry:
        """What the neurons to be carried over in `edits` did, prompt by prompt in the order of `prompt_ids`."""
        tokens = dict(zip(self.rows["prompt_id"], tokens_of(self.bench, self.rows), strict=True))
        spoken, version = digest([tokens[prompt] for prompt in prompt_ids]), METHODS["activations"]
        what = {"prompts": spoken, "version": version, "max_new_tokens": self.max_new_tokens}
        return Carry(what, lambda: self.values(prompt_ids, edits))

    def values(self, prompt_ids: Sequence[str], edits: Edits) -> Carried:
        """The values of a `carry`."""
        if self.carried is None:
            self.carried = self._run()
        row = {prompt: number for number, prompt in enumerate(self.rows["prompt_id"])}
        column = {neuron: number for number, neuron in enumerate(self.neurons)}
        return self.carried.select(
            [row[prompt] for prompt in prompt_ids], [column[neuron] for neuron in carried_neurons(edits)]
        )

    @property
    def what(self) -> dict[str, Any]:
        """What decides the values: the prompts, the neurons, and how many tokens may come."""
        neurons = digest([list(neuron) for neuron in self.neurons])
        shown = digest(tokens_of(self.bench, self.rows))
        return self.bench.what("activations", prompts=shown, neurons=neurons, max_new_tokens=self.max_new_tokens)

    def _run(self) -> Carried:
        bench = self.bench
        with bench.shelf(self.what, self.rows.height) as shelf:
            return capture(
                bench.subject,
                tokens_of(bench, self.rows),
                self.neurons,
                max_new_tokens=self.max_new_tokens,
                batch_size=bench.size("activations"),
                shelf=shelf,
                advance=bench.tracker.advance(self.label),
            )

    def close(self) -> None:
        """Every figure was known, so that nothing had to run: its share of the progress is done."""
        if self.carried is None:
            self.bench.tracker.advance(self.label)(self.rows.height)


def in_forward_order(neurons: NeuronSet, languages: Sequence[str]) -> list[Neuron]:
    """The neurons that apply in any of these languages, each once, in the order of the forward pass."""
    rows = neurons.frame.filter(pl.col("language").is_in([EVERY, *languages])).select(NEURON).unique()
    return sorted(rows.iter_rows(), key=lambda neuron: (neuron[0], SITES.index(neuron[1]), neuron[2]))
