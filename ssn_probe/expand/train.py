"""Train the weights of a set of neurons on refusals: `train`.

The base is frozen and stays in evaluation mode (no dropout), so that a step is a function of weights, rows and step
number; `steps` has the loop.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssn_probe.anatomy import anatomy_of
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.expand.checkpoint import State, Step, load_state
from ssn_probe.expand.data import Example, SafetyData
from ssn_probe.expand.delta import Delta
from ssn_probe.expand.digest import module_digest
from ssn_probe.expand.fraction import fraction
from ssn_probe.expand.guard import frozen, memory_errors
from ssn_probe.expand.loss import Encoded, encode_examples
from ssn_probe.expand.places import Neuron, places_of
from ssn_probe.expand.settings import Schedule, Training, held_out
from ssn_probe.expand.steps import Course, Store, Watch, run_steps
from ssn_probe.expand.team import gather_team
from ssn_probe.expand.trainable import Deltas
from ssn_probe.node import digest, to_json


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What came out: `delta`, of the lowest held-out loss (at `chosen_step`), or the last where nothing is held out;
    `last`, whatever was chosen; every step; and `record`, what a delta file states of the training, as plain JSON.
    """

    delta: Delta
    last: Delta
    chosen_step: int
    history: tuple[Step, ...]
    stopped_early: bool
    record: dict[str, Any]


def train(
    module: Any,
    tokenizer: Any,
    neurons: Iterable[Neuron],
    data: SafetyData,
    settings: Training | None = None,
    *,
    folder: Path | None = None,
    checkpoint_every: int = 50,
    micro_batch: int | None = None,
    gradient_checkpointing: bool = False,
    eos_ids: Sequence[int] = (),
    watch: Watch | None = None,
) -> Trained:
    """Train the weights of `neurons` to give the responses of `data`; the model itself is left as it was.

    Args:
        module: a causal model of a supported family, as transformers loads it, in float32, bfloat16 or float64, on one
            device, or sharded with FSDP2. Under a launcher every process calls this with the same arguments.
        tokenizer: with the chat template in which the model is asked.
        neurons: (layer, site, index), each once or more (`places.rows_of` takes them from a NeuronSet).
        data: rows that passed the safety check.
        settings: how to train.
        folder: where the checkpoint is kept; a training that was interrupted goes on from it.
        checkpoint_every: steps between checkpoints.
        micro_batch: rows per forward pass and process; None for all of a step's at once. Changes memory, not results
            (but for rounding).
        gradient_checkpointing: compute activations twice instead of keeping them.
        eos_ids: the tokens on which the model's generation ends.
        watch: called after every step.

    Raises:
        RecipeError: no neuron, or settings that make no sense.
        DataError: too few rows to hold some out, or a row that is too long.
        ModelError: neurons that the model does not have; a loss that is not finite; not enough memory.
        ResultError: a checkpoint that is damaged or belongs to another training.

    Source: Zhang et al. 2026, SS-Neuron Expansion; `algorithms.md` 6.
    """
    settings = settings or Training()
    _check_pace(checkpoint_every, micro_batch)
    places = places_of(module, neurons)
    deltas = Deltas(module, places)
    course = _course(module, tokenizer, deltas, data, settings, eos_ids, micro_batch, gradient_checkpointing)
    state = State(deltas=deltas, optimizer=_optimizer(deltas, settings))
    base = module_digest(module)
    identity = digest([to_json(settings), base, data.rows_digest(), repr(places), repr(course.learned)])
    if folder is not None:
        load_state(folder, state, identity)
    rows = micro_batch or math.ceil(settings.batch / course.team.size)
    with frozen(module), memory_errors(rows, gradient_checkpointing):
        run_steps(course, state, Store(folder, identity, checkpoint_every, state.step), watch or _silent)
    return _trained(course, state, data, base)


def _check_pace(checkpoint_every: int, micro_batch: int | None) -> None:
    for name, value in (("checkpoint_every", checkpoint_every), ("micro_batch", micro_batch)):
        if value is not None and value < 1:
            raise RecipeError(f"{name} is {value}", f"Give {name} as 1 or more.")


def _course(
    module: Any,
    tokenizer: Any,
    deltas: Deltas,
    data: SafetyData,
    settings: Training,
    eos_ids: Sequence[int],
    micro_batch: int | None,
    gradient_checkpointing: bool,
) -> Course:
    kept = held_out([(row.context, row.cluster) for row in data.examples], settings)
    learned = [row for row in data.examples if row.cluster not in kept]
    if not any(row.context == "harmful" for row in learned):
        raise DataError(
            f"{data.name} has too few rows to hold out {settings.held_out:.0%} of them",
            "Give more prompts, or held_out=0.",
        )
    longest = getattr(module.config, "max_position_embeddings", None)

    def encode(rows: Sequence[Example]) -> list[Encoded]:
        return encode_examples(rows, tokenizer, eos_ids, longest) if rows else []

    return Course(
        module=module,
        deltas=deltas,
        team=gather_team(module.get_input_embeddings().weight.device),
        schedule=Schedule(settings=settings, rows=len(learned)),
        learned=encode(learned),
        held_out=encode([row for row in data.examples if row.cluster in kept]),
        pad_id=tokenizer.pad_token_id or 0,
        micro_batch=micro_batch,
        gradient_checkpointing=gradient_checkpointing,
    )


def _optimizer(deltas: Deltas, settings: Training) -> torch.optim.AdamW:
    return torch.optim.AdamW(deltas.parameters.values(), lr=settings.lr, weight_decay=0.0)


def _silent(_step: Step, _delta: Callable[[], Delta]) -> None:
    pass


def _trained(course: Course, state: State, data: SafetyData, base: str) -> Trained:
    delta, settings = state.best_delta(), course.schedule.settings
    chosen = state.best_step if state.best else state.step
    record = {
        "method": "expand",
        "base": {
            "sha256": base,
            "family": anatomy_of(course.module.config).family,
            "dtype": str(delta.parts[0].base.dtype).removeprefix("torch."),
        },
        "training": to_json(settings),
        "seed": settings.seed,
        "data": data.describe(),
        "steps": {"done": state.step, "planned": course.schedule.total, "chosen": chosen},
        "held_out_loss": {"base": state.history[0].held_out, "chosen": state.best_loss} if state.best else None,
        "parameters": fraction(course.module, delta.neurons).to_dicts(),
    }
    return Trained(
        delta=delta,
        last=course.deltas.snapshot(),
        chosen_step=chosen,
        history=tuple(state.history),
        stopped_early=state.step < course.schedule.total,
        record=record,
    )
