"""The other run that a Patch carries over from: the parallel prompts in the source language, with nothing changed."""

from collections.abc import Sequence

import polars as pl

from ssn_probe.lab import Lab, rows_of, tokens_of
from ssn_probe.neurons import EVERY, NEURON, SITES, NeuronSet
from ssn_probe.progress import Advance
from ssn_probe.prompts import PromptSet
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.carry import Carried
from ssn_probe.tracing.edits import Edits, Neuron, carried_neurons


class Source:
    """One context's prompts in the source language, run once for all languages, when a value is first asked for.

    Only the neurons of the set are captured, those of any language that is evaluated. The values live as long as this
    object: with long responses they are the largest thing that a study holds.
    """

    def __init__(
        self,
        lab: Lab,
        prompts: PromptSet,
        context: str,
        source: str,
        *,
        neurons: NeuronSet,
        languages: Sequence[str],
        max_new_tokens: int,
        advance: Advance,
    ):
        self.lab, self.max_new_tokens, self.advance = lab, max_new_tokens, advance
        self.rows = rows_of(lab, prompts, context, source)
        self.neurons = in_forward_order(neurons, languages)
        self.carried: Carried | None = None

    def values(self, prompt_ids: Sequence[str], edits: Edits) -> Carried:
        """What the neurons to be carried over in `edits` did, prompt by prompt in the order of `prompt_ids`."""
        if self.carried is None:
            self.carried = self._run()
        row = {prompt: number for number, prompt in enumerate(self.rows["prompt_id"])}
        column = {neuron: number for number, neuron in enumerate(self.neurons)}
        return self.carried.select(
            [row[prompt] for prompt in prompt_ids], [column[neuron] for neuron in carried_neurons(edits)]
        )

    def _run(self) -> Carried:
        return capture(
            self.lab.subject,
            tokens_of(self.lab, self.rows),
            self.neurons,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.lab.batch_size,
            advance=self.advance,
        )

    def close(self) -> None:
        """Every figure was known, so that nothing had to run: its share of the progress is done."""
        if self.carried is None:
            self.advance(self.rows.height)


def in_forward_order(neurons: NeuronSet, languages: Sequence[str]) -> list[Neuron]:
    """The neurons that apply in any of these languages, each once, in the order of the forward pass."""
    rows = neurons.frame.filter(pl.col("language").is_in([EVERY, *languages])).select(NEURON).unique()
    return sorted(rows.iter_rows(), key=lambda neuron: (neuron[0], SITES.index(neuron[1]), neuron[2]))
