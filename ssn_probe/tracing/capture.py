"""What some neurons do in an untouched run, so that it can be carried over to another one."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.batching import Advance, BatchSize, Memory, Shelf, gather, no_progress, run_batches
from ssn_probe.tracing.carried import Carried
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import Neuron, carrying, places_of, prepared
from ssn_probe.tracing.generate import OPEN_LOOP, finish, generation_inputs


def capture(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    neurons: Sequence[Neuron],
    *,
    max_new_tokens: int = 0,
    batch_size: int | BatchSize = 256,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> Carried:
    """The activations of some neurons at the last position of each prompt, and at each step of its greedy response.

    Args:
        tokens: prompts as token ids.
        neurons: (layer, site, index), in forward order and each once, as `edits.carried_neurons` gives them; no others
            leave the model.
        max_new_tokens: 0 for the prompt's last position alone, one step and no generation. Otherwise step t is the
            forward pass that predicts response token t, up to the response's own end.

    Raises:
        ModelError: neurons in another order or outside the model, or a forward pass that yields NaN or Inf.
    """
    edits = carrying(neurons, "capture")
    if list(neurons) != [(layer, site, index) for layer, site, indices, _ in edits for index in indices]:
        raise ModelError("Neurons to capture must be in forward order, each once.", "Take those of `carried_neurons`.")
    wanted = [(layer, site, index) for layer, site, index, _how, _value in prepared(subject, edits)]
    places, most, shelf = places_of(subject), max(1, max_new_tokens), shelf or Memory()

    def run(rows: list[int]) -> dict[str, torch.Tensor]:
        batch, steps = [tokens[row] for row in rows], [1] * len(rows)
        if max_new_tokens:
            found, steps = _by_step(subject, batch, places, wanted, max_new_tokens)
        else:
            found = _last(subject, batch, places, wanted)[:, None]
        # [prompt, step, neuron], every batch as long as the longest response may be
        values = torch.nn.functional.pad(found.cpu(), (0, 0, 0, most - found.shape[1]))
        return {"values": values, "steps": torch.tensor(steps)}

    if wanted:
        run_batches(tokens, batch_size, run, shelf, advance)
    dtype = getattr(torch, subject.identity["dtype"])
    values = gather(shelf.parts(), "values", torch.zeros(len(tokens), most, len(neurons), dtype=dtype))
    return Carried(values=values, steps=gather(shelf.parts(), "steps", torch.ones(len(tokens), dtype=torch.int64)))


def _last(subject: Subject, batch: Sequence[Sequence[int]], places: Any, wanted: Any) -> torch.Tensor:
    """[prompt, neuron] at the last position of the prompts."""
    from ssn_probe.tracing.bodies.generation import trace_last_values

    inputs = pad_left(batch, subject.pad_id, subject.device)
    last = torch.tensor([inputs["input_ids"].shape[1] - 1], device=subject.device)
    found = trace_last_values(subject.model, inputs | {"logits_to_keep": last, "use_cache": False}, places, wanted)
    if not found.isfinite().all():
        raise_non_finite(subject, batch)
    return found


def _by_step(
    subject: Subject, batch: Sequence[Sequence[int]], places: Any, wanted: Any, max_new_tokens: int
) -> tuple[torch.Tensor, list[int]]:
    """[prompt, step, neuron] up to where the batch ended, and how many of the steps are each response's own."""
    from ssn_probe.tracing.bodies.generation import trace_generation_values

    inputs, settings = generation_inputs(subject, batch, max_new_tokens)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=OPEN_LOOP)
        found, ids, finite = trace_generation_values(subject.model, inputs, places, wanted, settings)
    values = torch.stack(found, 1)
    if not finite or not values.isfinite().all():
        raise_non_finite(subject, batch)
    made = finish(subject, ids[:, inputs["input_ids"].shape[1] :].tolist())
    return values, [one.tokens for one in made]
