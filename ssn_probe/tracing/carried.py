"""What neurons did in another run, to be put in place in this one: values per prompt and step, batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.edits import Edits, carried_neurons


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """The activations of some neurons in another run.

    Step t is the forward pass that predicts response token t, so step 0 is the last position of the prompt. `values`
    are in the order of `edits.carried_neurons`; `steps` says how many of them each prompt has: past the end of the
    other run's response nothing is carried over.
    """

    values: Float[Tensor, "prompt step neuron"]
    steps: Int[Tensor, " prompt"]

    def select(self, prompts: Sequence[int], neurons: Sequence[int]) -> "Carried":
        """Some prompts, which may repeat, and some neurons, by number and in this order."""
        return Carried(values=self.values[list(prompts)][:, :, list(neurons)], steps=self.steps[list(prompts)])


def check_carried(edits: Edits, carried: Carried | None, prompts: int) -> None:
    """Raises ModelError unless there is a value for every neuron to be carried over, in every prompt."""
    wanted, found = len(carried_neurons(edits)), (0, 0)
    if carried is not None:
        found = len(carried.values), carried.values.shape[2]
    if wanted and found != (prompts, wanted):
        raise ModelError(
            f"{wanted} neurons of {prompts} prompts are to be carried over, and there are values of {found[1]} neurons "
            f"of {found[0]} prompts.",
            "Capture them with `capture`, for the same neurons and the parallel prompts.",
        )


def for_batch(
    subject: Subject,
    ready: Sequence[tuple[Any, ...]],
    carried: Carried | None,
    rows: Sequence[int],
    prefixes: Sequence[Sequence[int]] = ((),),
) -> list[tuple[Any, ...]]:
    """Prepared edits with the carried values of the prompts in this batch, on the model's device.

    `prefixes` follow each prompt, prompt-major, in teacher-forced sequences: the prompt's last token is that much
    further from the end.
    """
    if carried is None:
        return list(ready)
    prompts = list(rows)
    values, steps = (part[prompts].repeat_interleave(len(prefixes), 0) for part in (carried.values, carried.steps))
    token = torch.tensor([-1 - len(prefix) for prefix in prefixes]).repeat(len(prompts))
    steps, token, first, batch = steps.to(subject.device), token.to(subject.device), 0, []
    for layer, site, index, how, value in ready:
        if how == "carry":
            mine = values[:, :, first : first + len(index)].to(subject.device)
            first, value = first + len(index), {"values": mine, "steps": steps, "token": token}
        batch.append((layer, site, index, how, value))
    return batch


def along_answers(ready: Sequence[tuple[Any, ...]], lengths: Int[Tensor, " prompt"]) -> list[tuple[Any, ...]]:
    """Prepared edits for prompts that answers of so many tokens follow: each step is carried to where it belongs."""
    found = []
    for layer, site, index, how, value in ready:
        if how == "carry":
            own = lengths.to(value["steps"].device)
            value = {**value, "steps": value["steps"].minimum(own), "token": -own}
            how = "carry along"
        found.append((layer, site, index, how, value))
    return found
