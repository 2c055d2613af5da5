"""The weights that an `Expand` arm trains: made once, kept like any measurement, put in while the arm is measured.

A training that was killed goes on from its last checkpoint, which lies beside its result in the cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.cache import Entry
from ssn_probe.expand.data import SafetyData, safety_data
from ssn_probe.lab import Lab, Weights
from ssn_probe.neurons import NeuronSet
from ssn_probe.node import digest, to_json
from ssn_probe.plan import rows_to_train
from ssn_probe.recipe import Expand

HISTORY = {"step": pl.Int64, "loss": pl.Float64, "lr": pl.Float64, "norm": pl.Float64, "held_out": pl.Float64}


def weights_of(lab: Lab, node: Expand, neurons: NeuronSet, label: str) -> Weights:
    """The trained weights of an arm; nothing is trained before they are asked for. `label` is the row of progress."""

    @contextmanager
    def inside() -> Iterator[None]:
        from ssn_probe.expand.merge import written

        file, _ = trained(lab, node, neurons, label)
        with written(lab.subject.model._module, file.delta):
            yield

    return Weights(digest(expansion_what(lab, node, neurons)), inside)


def expansion_what(lab: Lab, node: Expand, neurons: NeuronSet) -> dict[str, Any]:
    """What decides the trained weights: the neurons, the rows to learn, and how."""
    chosen = digest([list(neuron) for neuron in _neurons(neurons)])
    rows, settings = data_of(lab, node).rows_digest(), to_json(node.training)
    return lab.what("expansion", neurons=chosen, rows=rows, training=settings)


def _neurons(neurons: NeuronSet) -> list[tuple[int, str, int]]:
    from ssn_probe.expand.places import rows_of

    return sorted(rows_of(neurons))


def data_of(lab: Lab, node: Expand) -> SafetyData:
    """The rows to learn, each judged. Raises DataError for one that its judge does not call what it must be."""
    prompts = lab.data[node.data]
    key = ("safety data", prompts.digest, node.contexts, node.languages)
    return lab.remember(key, lambda: safety_data(prompts, languages=node.languages, contexts=node.contexts))


def trained(lab: Lab, node: Expand, neurons: NeuronSet, label: str) -> tuple[Any, pl.DataFrame]:
    """The delta file of an arm and the history of its training, from the cache or made."""
    what, planned = expansion_what(lab, node, neurons), rows_to_train(node, lab.data[node.data])

    def compute() -> tuple[Any, pl.DataFrame]:
        if lab.cache is None:
            return _train(lab, node, neurons, label, None)
        with lab.cache.entry(what) as entry:
            found = _kept(entry)
            lab.cache.count(found is not None, what)
            if found is None:
                found = _train(lab, node, neurons, label, entry.folder)
                _keep(entry, *found)
            else:
                lab.tracker.advance(label)(planned)
            return found

    return lab.remember(("expansion", digest(what)), compute)


def _kept(entry: Entry) -> tuple[Any, pl.DataFrame] | None:
    from ssn_probe.expand.file import read_delta

    file, history = entry.file("delta", ".safetensors"), entry.frames().get("history")
    return None if file is None or history is None else (read_delta(file), history)


def _keep(entry: Entry, file: Any, history: pl.DataFrame) -> None:
    from ssn_probe.expand.file import write_delta

    entry.write("delta", ".safetensors", lambda temporary: write_delta(temporary, file))
    entry.write("history", ".parquet", history.write_parquet)


def _train(lab: Lab, node: Expand, neurons: NeuronSet, label: str, folder: Path | None) -> tuple[Any, pl.DataFrame]:
    from ssn_probe.expand.file import delta_file
    from ssn_probe.expand.train import train

    subject, settings = lab.subject, node.training
    advance, left = lab.tracker.advance(label), [rows_to_train(node, lab.data[node.data])]

    def watch(step: Any, _delta: Any) -> None:
        done = min(left[0], settings.batch if step.step else 0)
        if done:
            left[0] -= done
            advance(done)

    found = train(
        subject.model._module,
        subject.tokenizer,
        _neurons(neurons),
        data_of(lab, node),
        settings,
        folder=folder,
        eos_ids=subject.eos_ids,
        watch=watch,
    )
    if left[0]:  # steps of an earlier process, or that an early stop has saved
        advance(left[0])
    columns = {name: [getattr(step, name) for step in found.history] for name in HISTORY}
    said = f"{type(node.neurons).__name__} with the key {node.neurons.key[:16]}"
    file = delta_file(found, model=subject.name, revision=subject.identity.get("commit"), neurons=said)
    return file, pl.DataFrame(columns, schema=HISTORY)
