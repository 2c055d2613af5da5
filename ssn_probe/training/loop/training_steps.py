"""The loop: one step after the other, until the schedule ends or the held-out loss no longer falls.

A step's loss is the mean over all its response tokens, whether they are computed at once, in micro-batches or in
several processes. The gradient is clipped over the deltas alone: clipped before a mask, the norm of everything else
would shrink it.

A loss or gradient that is not finite stops the training before it changes anything. A checkpoint is written once the
*next* loss has shown its deltas to be good, so the one on disk always is.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.files import ELSEWHERE
from ssn_probe.spec.training_settings import Schedule, Training
from ssn_probe.training.loop.frozen_model import recomputing
from ssn_probe.training.loop.loss import Encoded, batch_of, response_loss, response_tokens
from ssn_probe.training.loop.processes import Team
from ssn_probe.training.loop.resuming import FILE, State, Step, save_state
from ssn_probe.training.weights.trainable import Change, Trainable

Watch = Callable[[Step, Callable[[], Change]], None]
"""Called after every step, in every process, with the step's figures and a function that gives the present change.
The model is as it was before training; `merging.written(model, change())` puts the change in."""
Probe = Callable[[Any], float]
"""Called in every process with the changed model whenever the held-out loss is measured; NaN is no figure."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """What stays the same from step to step."""

    module: Any
    trainable: Trainable
    team: Team
    schedule: Schedule
    learned: Sequence[Encoded]
    held_out: Sequence[Encoded]
    pad_id: int
    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    keep: tuple[int, ...] = ()
    probe: Probe | None = None

    def gradients(self, step: int) -> float:
        """Computes the gradients of a step; returns its mean loss per response token."""
        rows = [self.learned[number] for number in self.schedule.batch(step)]
        loss = 0.0
        with self.trainable.attached(), recomputing(self.module, self.gradient_checkpointing):
            for share, mean in self._losses(rows):
                mean.backward()
                loss += mean.item() if share else 0.0
        return self.team.add_up([_gradient(delta) for delta in self.trainable.parameters.values()], loss)

    def held_out_loss(self) -> float:
        """Mean loss per response token of the held-out rows."""
        size, total = self.schedule.settings.batch, 0.0
        with torch.no_grad(), self.trainable.attached():
            for start in range(0, len(self.held_out), size):
                rows = self.held_out[start : start + size]
                losses = [mean.item() if share else 0.0 for share, mean in self._losses(rows)]
                total += sum(losses) * response_tokens(rows)
        return self.team.add_up([], total) / response_tokens(self.held_out)

    def probed(self) -> float | None:
        """The probe's figure for the changed model, if it has one."""
        if self.probe is None:
            return None
        with torch.no_grad(), self.trainable.attached():
            value = self.probe(self.module)
        return value if math.isfinite(value) else None

    def _losses(self, rows: Sequence[Encoded]) -> Iterator[tuple[list[Encoded], Tensor]]:
        """This process's micro-batches, each with its part of the mean loss, which is zero for an empty one."""
        tokens, device = response_tokens(rows), self.module.get_input_embeddings().weight.device
        for share in self.team.shares(rows, self.micro_batch):
            batch = batch_of(share or rows[:1], self.pad_id, device)
            yield share, response_loss(self.module, batch) * (len(share) > 0) / tokens


@dataclass
class Store:
    """Where checkpoints go, if anywhere; `saved` is the step of the one on disk, `elsewhere` how to give a folder."""

    folder: Path | None
    identity: str
    every: int
    saved: int
    elsewhere: str = ELSEWHERE

    def save(self, state: State, team: Team) -> None:
        if self.folder is not None and state.step > self.saved:
            if team.leads:
                save_state(self.folder, state, self.identity, self.elsewhere)
            team.wait()
            self.saved = state.step

    def last_checkpoint(self) -> str:
        """A sentence about the last good checkpoint."""
        if self.folder is None:
            return "There is no checkpoint, since no folder was given."
        if not self.saved:
            return "No checkpoint had been written yet."
        return f"The last good checkpoint, of step {self.saved}, is {self.folder / FILE}."


def run_steps(course: Course, state: State, store: Store, watch: Watch) -> None:
    """Trains from the step of `state` to the end. Raises ModelError for a loss or a gradient that is not finite."""
    started = time.monotonic()
    if course.held_out and not state.history:
        step = Step(step=0, total=course.schedule.total, held_out=course.held_out_loss(), probe=course.probed())
        _note(state, step, watch)
    until = max(course.keep, default=0)
    while state.step < course.schedule.total and (
        state.step < until or not stops_early(course.schedule.settings, state)
    ):
        step = _one_step(course, state, store, started)
        _note(state, step, watch)
    if not all(bool(delta.isfinite().all()) for delta in course.trainable.parameters.values()):
        raise _diverged("The trained weights are", math.nan, state.step, course, store)
    store.save(state, course.team)


def _note(state: State, step: Step, watch: Watch) -> None:
    state.history.append(step)
    watch(step, state.trainable.snapshot)


def stops_early(settings: Training, state: State) -> bool:
    """Has the held-out loss gone too long without a new low?"""
    return settings.patience is not None and state.unimproved >= settings.patience


def _one_step(course: Course, state: State, store: Store, started: float) -> Step:
    parameters = list(course.trainable.parameters.values())
    settings, rate = course.schedule.settings, course.schedule.rate(state.step)
    state.optimizer.zero_grad()
    loss = course.gradients(state.step)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip))
    if not math.isfinite(loss) or not math.isfinite(norm):
        quantity = "The gradient is" if math.isfinite(loss) else "The loss is"
        raise _diverged(quantity, norm if math.isfinite(loss) else loss, state.step + 1, course, store)
    if state.step - store.saved >= store.every:
        store.save(state, course.team)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    state.step += 1
    if state.step in course.keep:
        state.kept[state.step] = state.values()
    held_out = _measure(course, state, store)
    return Step(
        step=state.step,
        total=course.schedule.total,
        loss=loss,
        lr=rate,
        norm=norm,
        held_out=held_out,
        probe=None if held_out is None else course.probed(),
        seconds=time.monotonic() - started,
    )


def _measure(course: Course, state: State, store: Store) -> float | None:
    if not course.held_out or not course.schedule.measures(state.step):
        return None
    loss = course.held_out_loss()
    if not math.isfinite(loss):
        raise _diverged("The held-out loss is", loss, state.step, course, store)
    state.measured(loss)
    return loss


def _diverged(quantity: str, value: float, step: int, course: Course, store: Store) -> ModelError:
    settings = course.schedule.settings
    remedy = (
        f"Lower lr (it is {settings.lr:g}) or clip ({settings.clip:g})."
        if step > 1
        else "The untrained model gives the same."
    )
    return ModelError(
        f"{quantity} {value} at step {step} of {course.schedule.total}.", f"{store.last_checkpoint()} {remedy}"
    )


def _gradient(delta: torch.nn.Parameter) -> Tensor:
    assert delta.grad is not None
    return delta.grad
