"""A training as commands and studies run it: beside an ASR probe, and with fewer rows in a pass where memory ends."""

from collections.abc import Iterable, Sequence
from typing import Any

from ssn_probe.data.training_rows import SafetyData
from ssn_probe.model.out_of_memory import fitting
from ssn_probe.spec.training_settings import Training
from ssn_probe.training.loop.compliance_probe import held_out_probe
from ssn_probe.training.loop.train import Trained, train
from ssn_probe.training.weights.neuron_weights import Neuron


def train_within_memory(
    module: Any,
    tokenizer: Any,
    neurons: Iterable[Neuron],
    data: SafetyData,
    settings: Training,
    *,
    eos_ids: Sequence[int],
    max_new_tokens: int,
    micro_batch: int | None,
    shrink: bool,
    **options: Any,
) -> Trained:
    """`train` with the ASR probe of its held-out rows.

    Args:
        max_new_tokens: of a response to the probe.
        micro_batch: rows in a forward pass; None for all rows of a step.
        shrink: start again from the last checkpoint with half as many whenever they do not fit.
        options: further arguments of `train`.

    Raises:
        OutOfMemory: the rows do not fit, or with `shrink` not even one; and what `train` raises.
    """
    chosen = list(neurons)
    probe = held_out_probe(tokenizer, data, settings, max_new_tokens=max_new_tokens, eos_ids=eos_ids)

    def work(rows: int | None) -> Trained:
        given = {"eos_ids": eos_ids, "micro_batch": rows, "probe": probe}
        return train(module, tokenizer, chosen, data, settings, **given, **options)

    return fitting(work, micro_batch, shrink=shrink)
