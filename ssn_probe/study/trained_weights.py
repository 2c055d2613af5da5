"""The weights that an arm trains: made once, kept like any measurement, put in while something is measured.

A training that was killed goes on from its last checkpoint, which lies beside its result in the cache.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ssn_probe.data.training_rows import SafetyData
from ssn_probe.model.asking import asked_of
from ssn_probe.model.plain_text import spells
from ssn_probe.neurons import NeuronSet
from ssn_probe.runs.cache import Entry, VanishedError
from ssn_probe.spec import LoRA, NeST, SparseEdit, Trains
from ssn_probe.spec.labels import set_label
from ssn_probe.spec.node import digest, to_json
from ssn_probe.study.learned_responses import learned_rows, made_contexts
from ssn_probe.study.measurements import judge_of
from ssn_probe.study.probed_sets import clusters_of
from ssn_probe.study.resolve import rows_to_train
from ssn_probe.study.workbench import Weights, Workbench

HISTORY = {
    "step": pl.Int64,
    "loss": pl.Float64,
    "lr": pl.Float64,
    "norm": pl.Float64,
    "held_out": pl.Float64,
    "probe": pl.Float64,
}


AFTER = "after training: "
"""How the rows of progress begin of sets that are identified in a trained model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a training gave: its history, and delta files by step of the curve (None: the change that it chose).

    Files that are kept in the cache are paths here: the change of an 8B model's neurons takes hundreds of MB.
    """

    files: Mapping[int | None, Any]
    history: pl.DataFrame

    def file(self, step: int | None = None) -> Any:
        """The delta file of a step. Raises VanishedError where the cache was deleted meanwhile."""
        from ssn_probe.training.delta_file.file import read_delta

        found = self.files[step]
        if not isinstance(found, Path):
            return found
        if not found.exists():
            raise VanishedError(f"{found} was removed while it was in use", "Run the same command again: it resumes.")
        return read_delta(found)


def trained_bench(bench: Workbench, node: Trains, neurons: NeuronSet, label: str, step: int | None = None) -> Workbench:
    """The bench whose model has the weights that `node` trains, as they were after `step` (None: as it chose them).

    Nothing is trained before something has to be computed with them. `label` is the training's row of progress.
    """
    inputs = {"expansion": digest(training_inputs(bench, node, neurons)), "step": step}

    @contextmanager
    def put_in() -> Iterator[None]:
        from ssn_probe.training.export.merging import written

        file = train(bench, node, neurons, label).file(step)
        with bench_weights(bench), written(bench.subject.model._module, file.delta):
            yield

    def make() -> Workbench:
        return replace(bench, weights=Weights(inputs, _once(put_in)), memory={}, readouts={})

    return bench.remember(("trained bench", digest(inputs)), make)


def bench_weights(bench: Workbench) -> AbstractContextManager[None]:
    """Inside, the model has the bench's weights."""
    return nullcontext() if bench.weights is None else bench.weights.inside()


def _once(put_in: Callable[[], AbstractContextManager[None]]) -> Callable[[], AbstractContextManager[None]]:
    """The same context, of which only the outermost does anything."""
    inside = False

    @contextmanager
    def guarded() -> Iterator[None]:
        nonlocal inside
        if inside:
            yield
            return
        with put_in():
            inside = True
            try:
                yield
            finally:
                inside = False

    return guarded


def training_inputs(bench: Workbench, node: Trains, neurons: NeuronSet) -> dict[str, Any]:
    """What decides the trained weights: the neurons, the rows to learn, and how."""
    return bench.inputs(
        "expansion",
        adapter=_adapter(node),
        neurons=digest([list(neuron) for neuron in _neurons(neurons)]),
        rows=bench.remember(("rows digest", data_of(bench, node)), data_of(bench, node).rows_digest),
        probe=[
            *_judged_by(bench),
            to_json(dict(judge_of(bench, bench.data[node.data], node.languages).identity)),
            bench.data[node.data].max_new_tokens,
        ],
        training=to_json(node.training),
        kept=to_json(node.at),
        **_tied(bench, node, neurons),
        **_read_as(bench, data_of(bench, node)),
    )


def _read_as(bench: Workbench, data: SafetyData) -> dict[str, str]:
    """Rows that spell control tokens were once read as if they held them, and so trained other weights."""

    def spelled() -> bool:
        texts, answers = ([getattr(row, name) for row in data.examples] for name in ("text", "target"))
        return spells(bench.subject.tokenizer, texts, answers)

    return {"control_tokens": "text"} if bench.remember_prompts(("spelled", data), spelled) else {}


def _judged_by(bench: Workbench) -> list[str]:
    """How responses are compared with patterns: by what a reader sees, which is more than ASCII for other models."""
    ascii_only = bench.remember(("ascii",), lambda: all(map(str.isascii, bench.subject.tokenizer.get_vocab())))
    return [] if ascii_only else ["as seen"]


def _adapter(node: Trains) -> Literal["neurons", "lora"]:
    return "lora" if isinstance(node, LoRA) else "neurons"


def _tied(bench: Workbench, node: Trains, neurons: NeuronSet) -> dict[str, str]:
    """What else decides weights that the neurons of a cluster share, or that are not trained."""
    if isinstance(node, SparseEdit):
        return {"edit": digest([node.rank, node.keep, node.ridge, bench.anchor])}
    clusters = _clusters(bench, node, neurons)
    return {} if clusters is None else {"clusters": digest([[*one, own] for one, own in sorted(clusters.items())])}


def _clusters(bench: Workbench, node: Trains, neurons: NeuronSet) -> dict[tuple[int, str, int], int] | None:
    """The cluster of every neuron, where a training gives all neurons of a cluster one change."""
    if not isinstance(node, NeST):
        return None
    key = ("clusters", node, digest([list(neuron) for neuron in _neurons(neurons)]))
    return bench.remember(key, lambda: clusters_of(bench, node, _neurons(neurons)))


def _neurons(neurons: NeuronSet) -> list[tuple[int, str, int]]:
    from ssn_probe.training.weights.neuron_weights import rows_of

    return sorted(rows_of(neurons))


def data_of(bench: Workbench, node: Trains) -> SafetyData:
    """The rows to learn, each judged. Raises DataError for one that its judge does not call what it must be."""
    prompts = bench.data[node.data]
    key = ("safety data", prompts.digest, node.contexts, node.languages, node.references)

    def made() -> SafetyData:
        rows, judge = learned_rows(bench, node), judge_of(bench, prompts, node.languages)
        how = made_contexts(node, prompts, bench.anchor)
        return SafetyData(name=prompts.name, digest=prompts.digest, judge=judge, examples=rows, made=how)

    return bench.remember(key, made)


def train(bench: Workbench, node: Trains, neurons: NeuronSet, label: str) -> Outcome:
    """The delta files of a training and its history, from the cache or made."""
    inputs = training_inputs(bench, node, neurons)

    def compute() -> Outcome:
        if bench.cache is None:
            return _train(bench, node, neurons, label, None)
        anew = bench.cache.fresh and digest(inputs) not in bench.cache.opened
        with bench.cache.entry(inputs) as entry:
            found = _kept(entry, node)
            bench.cache.count(found is not None, inputs)
            if found is None:
                if anew:
                    _forget_checkpoint(entry)
                found = _keep(entry, _train(bench, node, neurons, label, entry.folder))
            if bench.cache.compute:
                _forget_checkpoint(entry)
            return found

    outcome = bench.remember(("expansion", digest(inputs)), compute)
    complete_row(bench, node, neurons, label)
    return outcome


def is_trained(bench: Workbench, node: Trains, inputs: Mapping[str, Any]) -> bool:
    """Is the training in the cache, to its end?"""
    if bench.cache is None:
        return False
    with bench.cache.entry(inputs) as entry:
        return _kept(entry, node) is not None


def complete_row(bench: Workbench, node: Trains, neurons: NeuronSet, label: str) -> None:
    """Completes the row of a training that was not needed, or whose rows have not all been counted."""
    _progress(bench, node, neurons, label).complete(bench.tracker.advance(label))


def _progress(bench: Workbench, node: Trains, neurons: NeuronSet, label: str) -> Any:
    """What the training's row of progress has counted."""
    from ssn_probe.training.loop.training_progress import TrainingProgress

    key = ("training progress", label, digest(training_inputs(bench, node, neurons)))
    total, batch = rows_to_train(node, bench.data[node.data]), node.training.batch
    return bench.remember(key, lambda: TrainingProgress(total=total, batch=batch))


def _name(step: int | None) -> str:
    return "delta" if step is None else f"delta-{step}"


def _kept(entry: Entry, node: Trains) -> Outcome | None:
    paths = {step: entry.file(_name(step), ".safetensors") for step in (node.at or (None,))}
    history = entry.frames().get("history")
    return None if history is None or None in paths.values() else Outcome(files=paths, history=history)


def _keep(entry: Entry, outcome: Outcome) -> Outcome:
    from ssn_probe.training.delta_file.file import write_delta

    def keep(step: int | None, file: Any) -> Path:
        return entry.write(_name(step), ".safetensors", lambda temporary: write_delta(temporary, file), durable=True)

    paths = {step: keep(step, file) for step, file in outcome.files.items()}
    entry.write("history", ".parquet", outcome.history.write_parquet, durable=True)
    return Outcome(files=paths, history=outcome.history)


def _forget_checkpoint(entry: Entry) -> None:
    """What is done needs none, and what is to be made anew must not go on from one."""
    from ssn_probe.training.loop.resuming import FILE

    (entry.folder / FILE).unlink(missing_ok=True)


def _train(bench: Workbench, node: Trains, neurons: NeuronSet, label: str, folder: Path | None) -> Outcome:
    from ssn_probe.training.delta_file.file import delta_file
    from ssn_probe.training.loop.train_within_memory import train_within_memory

    subject, progress = bench.subject, _progress(bench, node, neurons, label)
    with bench_weights(bench):
        found = (
            _edit(bench, node, neurons)
            if isinstance(node, SparseEdit)
            else train_within_memory(
                subject.model._module,
                subject.tokenizer,
                _neurons(neurons),
                data_of(bench, node),
                node.training,
                eos_ids=subject.eos_ids,
                max_new_tokens=bench.data[node.data].max_new_tokens,
                micro_batch=bench.batch_size,
                shrink=bench.batch_size is None,
                adapter=_adapter(node),
                clusters=_clusters(bench, node, neurons),
                keep=node.at or (),
                folder=folder,
                gradient_checkpointing=bench.gradient_checkpointing,
                watch=progress.watch(bench.tracker.advance(label), partial(bench.tracker.note, label)),
                warn=bench.warn,
            )
        )
    columns = {name: [getattr(step, name) for step in found.history] for name in HISTORY}
    origin = {"model": subject.name, "revision": subject.identity.get("commit"), "neurons": ""}
    files = {step: delta_file(found, step=step, **origin) for step in (node.at or (None,))}
    with bench_weights(bench):
        files = {step: _with_rounding(bench, file) for step, file in files.items()}
    return Outcome(files=files, history=pl.DataFrame(columns, schema=HISTORY))


def _with_rounding(bench: Workbench, file: Any) -> Any:
    """The file with what is lost of its change where it is measured: in the model's weights, in their precision."""
    from ssn_probe.training.export.merging import rounding_in

    cost = rounding_in(bench.subject.model._module, file.delta)
    return replace(file, about={**file.about, "rounding": asdict(cost)})


def _edit(bench: Workbench, node: SparseEdit, neurons: NeuronSet) -> Any:
    """The change of an arm that is computed and not trained."""
    from ssn_probe.training.sparse_edit import sparse_edit

    subject, chosen, data = bench.subject, _neurons(neurons), data_of(bench, node)
    strength = {"rank": node.rank, "keep": node.keep, "ridge": node.ridge}
    return sparse_edit(subject.model._module, subject.tokenizer, chosen, data, anchor=bench.anchor, **strength)


def stated(bench: Workbench, node: Trains, arm: str, file: Any) -> Any:
    """The file as this study states it: its names for the base, the neurons (else the arm's) and the data.

    The cache keeps one file for all that comes to the same neurons and rows, whoever asked first.
    """
    base = {**file.about["base"], "name": bench.subject.name, "revision": bench.subject.identity.get("commit")}
    neurons = f"{set_label(node.neurons) or f'the set {arm}'}, key {node.neurons.key[:16]}"
    about = {**file.about, "base": base, "neurons": neurons, "data": data_of(bench, node).describe()}
    if asked := asked_of(bench.subject.identity):
        about["asked"] = asked
    return replace(file, about=about)
