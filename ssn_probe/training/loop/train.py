"""Train the weights of a set of neurons on refusals: `train`.

The base is frozen and stays in evaluation mode (no dropout), so that a step is a function of weights, rows and step
number. The loop is in `training_steps`.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ssn_probe.data.training_rows import Example, SafetyData, check_learned
from ssn_probe.errors import RecipeError
from ssn_probe.files import ELSEWHERE
from ssn_probe.model.computation import computation
from ssn_probe.model.context_length import context_length
from ssn_probe.model.digests import module_digest
from ssn_probe.model.families import family_of
from ssn_probe.model.precision import check_trainable
from ssn_probe.model.token_ids import embedding_size, usable_pad
from ssn_probe.model.torch_settings import computing_plainly
from ssn_probe.spec.node import digest, to_json
from ssn_probe.spec.training_settings import Schedule, Training
from ssn_probe.training.loop.frozen_model import frozen, step_memory_errors
from ssn_probe.training.loop.loss import Encoded, encode_examples
from ssn_probe.training.loop.processes import check_same_step, gather_team
from ssn_probe.training.loop.resuming import State, Step, load_state
from ssn_probe.training.loop.training_steps import Course, Probe, Store, Watch, run_steps
from ssn_probe.training.weights.lora import LowRank, parameters_of
from ssn_probe.training.weights.neuron_weights import Neuron, Place, places_of
from ssn_probe.training.weights.parameter_counts import fraction
from ssn_probe.training.weights.tied import TiedDeltas, tied_places
from ssn_probe.training.weights.trainable import Change, Deltas, Trainable


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """The result of a training.

    `delta`: the change of the lowest held-out loss (at `chosen_step`), or the last where nothing is held out. `last`:
    the last change in any case. `kept`: the change after each step to keep. `record`: the part of a delta file's record
    that training knows, as plain JSON.
    """

    delta: Change
    last: Change
    kept: Mapping[int, Change]
    chosen_step: int
    history: tuple[Step, ...]
    stopped_early: bool
    record: dict[str, Any]


@computing_plainly()
def train(
    module: Any,
    tokenizer: Any,
    neurons: Iterable[Neuron],
    data: SafetyData,
    settings: Training | None = None,
    *,
    adapter: Literal["neurons", "lora"] = "neurons",
    clusters: Mapping[Neuron, int] | None = None,
    keep: Sequence[int] = (),
    folder: Path | None = None,
    elsewhere: str = ELSEWHERE,
    checkpoint_every: int = 50,
    micro_batch: int | None = None,
    gradient_checkpointing: bool = False,
    eos_ids: Sequence[int] = (),
    watch: Watch | None = None,
    probe: Probe | None = None,
    resumed: Callable[[], object] = lambda: None,
    warn: Callable[[str], None] = warnings.warn,
) -> Trained:
    """Train the weights of `neurons` to give the responses of `data`; the model itself is left as it was.

    Args:
        module: a causal model of a supported family, as transformers loads it, in float32, bfloat16 or float64, on one
            device, or sharded with FSDP2. Under a launcher every process calls this with the same arguments.
        tokenizer: with the chat template in which the model is asked.
        neurons: (layer, site, index), each once or more (`neuron_weights.rows_of` takes them from a NeuronSet).
        data: rows that passed the safety check.
        settings: how to train.
        adapter: `"neurons"`, the weights of the set; `"lora"`, low-rank adapters of as many parameters (`lora`).
        clusters: the cluster of every neuron, where the neurons of a cluster are to share one change (`tied`).
        keep: steps after which the change is kept; the training does not stop early before the last of them.
        folder: where the checkpoint is kept; an interrupted training continues from it.
        elsewhere: how to give another folder, where that one cannot be written.
        checkpoint_every: steps between checkpoints.
        micro_batch: rows per forward pass and process; None for all of a step's at once. Changes memory, not results
            (but for rounding).
        gradient_checkpointing: compute activations twice instead of keeping them.
        eos_ids: the tokens on which the model's generation ends.
        watch: called after every step.
        probe: called with the changed model whenever the held-out loss is measured; its figure goes into the history.
        resumed: called where the training continues from a checkpoint.
        warn: told of a damaged checkpoint, which is not used.

    Raises:
        RecipeError: no neuron, or settings that make no sense, such as steps to keep beyond the last.
        DataError: too few rows to hold some out, or a row that is too long.
        ModelError: neurons that the model does not have; a loss that is not finite; too little memory.
        ResultError: a checkpoint that belongs to another training, or that not all processes have.

    Source: Zhang et al. 2026, SS-Neuron Expansion.
    """
    settings = settings or Training()
    _check_pace(checkpoint_every, micro_batch)
    places = places_of(module, neurons) if clusters is None else tied_places(places_of(module, neurons))
    check_trainable(_dtype(module, places))
    trainable = _trainable(module, places, settings, adapter, clusters)
    course = _course(
        module,
        tokenizer,
        data,
        settings,
        eos_ids,
        trainable=trainable,
        micro_batch=micro_batch,
        gradient_checkpointing=gradient_checkpointing,
        keep=tuple(sorted(set(keep))),
        probe=probe,
    )
    optimizer = torch.optim.AdamW(trainable.parameters.values(), lr=settings.lr, weight_decay=0.0)
    state = State(trainable=trainable, optimizer=optimizer)
    base = module_digest(module)
    rows = [data.rows_digest(), repr(places), repr(course.learned)]
    rows.append(f"{_dtype(module, places)} {computation(module.config)}")  # the digest is the same for other ones
    if clusters is not None:
        rows.append(repr(sorted(clusters.items())))
    identity = digest([to_json(settings), base, *rows, adapter, list(course.keep)])
    if folder is not None:
        if load_state(folder, state, identity, warn):
            resumed()
        check_same_step(course.team, state.step, folder)
    share = math.ceil(settings.batch / course.team.size)
    rows = min(micro_batch or share, share)
    with frozen(module), step_memory_errors(rows, gradient_checkpointing):
        run_steps(
            course, state, Store(folder, identity, checkpoint_every, state.step, elsewhere), watch or (lambda *_: None)
        )
    return _trained(course, state, data, base, places)


def _trainable(
    module: Any,
    places: Sequence[Place],
    settings: Training,
    adapter: Literal["neurons", "lora"],
    clusters: Mapping[Neuron, int] | None,
) -> Trainable:
    if clusters is not None:
        return TiedDeltas(module, places, clusters)
    return LowRank(module, places, settings.seed) if adapter == "lora" else Deltas(module, places)


def _dtype(module: Any, places: Sequence[Place]) -> str:
    """The precision of the base."""
    return str(module.get_submodule(places[0].module).weight.dtype).removeprefix("torch.")


def _check_pace(checkpoint_every: int, micro_batch: int | None) -> None:
    for name, value in (("checkpoint_every", checkpoint_every), ("micro_batch", micro_batch)):
        if value is not None and value < 1:
            raise RecipeError(f"{name} is {value}", f"Give {name} as 1 or more.")


def _course(
    module: Any, tokenizer: Any, data: SafetyData, settings: Training, eos_ids: Sequence[int], **options: Any
) -> Course:
    learned, kept = data.split(settings)
    check_learned(data.name, data.examples, learned, settings)
    schedule = Schedule(settings=settings, rows=len(learned))
    if wrong := [step for step in options["keep"] if not 1 <= step <= schedule.total]:
        raise RecipeError(
            f"step {wrong[0]} cannot be kept: the training has {schedule.total} steps",
            f"Keep steps from 1 to {schedule.total}.",
        )
    longest, vocabulary = context_length(module.config), embedding_size(module)

    def encode(rows: Sequence[Example]) -> list[Encoded]:
        return encode_examples(rows, tokenizer, eos_ids, longest, vocabulary) if rows else []

    return Course(
        module=module,
        team=gather_team(module.get_input_embeddings().weight.device),
        schedule=schedule,
        learned=encode(learned),
        held_out=encode(kept),
        pad_id=usable_pad(tokenizer.pad_token_id, (), vocabulary),
        **options,
    )


def _trained(course: Course, state: State, data: SafetyData, base: str, places: Sequence[Place]) -> Trained:
    settings, module, change = course.schedule.settings, course.module, state.chosen()
    chosen = state.best_step if state.best else state.step
    record = {
        "method": "expand",
        "base": {
            "sha256": base,
            "family": family_of(module.config).name,
            "config": computation(module.config),
            "dtype": _dtype(module, places),
        },
        "training": to_json(settings),
        "seed": settings.seed,
        "data": data.describe(),
        "steps": {"done": state.step, "planned": course.schedule.total, "chosen": chosen},
        "held_out_loss": {"base": state.history[0].held_out, "chosen": state.best_loss} if state.best else None,
        "parameters": fraction(module, change).to_dicts(),
    }
    if isinstance(course.trainable, LowRank):
        matched = sum(parameters_of(module, places).values())
        record |= {"method": "lora", "lora": {"ranks": course.trainable.ranks, "matched_parameters": matched}}
    if isinstance(course.trainable, TiedDeltas):
        record |= {"method": "nest"}
    return Trained(
        delta=change,
        last=course.trainable.snapshot(),
        kept={step: course.trainable.snapshot(values) for step, values in state.kept.items()},
        chosen_step=chosen,
        history=tuple(state.history),
        stopped_early=state.step < course.schedule.total,
        record=record,
    )
