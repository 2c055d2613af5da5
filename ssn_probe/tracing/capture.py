"""What some neurons do in an untouched run, so that it can be carried over to another one."""

from collections.abc import Sequence

import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.batching import Advance, BatchSize, Memory, Shelf, gather, no_progress, run_batches
from ssn_probe.tracing.carried import Carried
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import Neuron, carrying, places_of, prepared
from ssn_probe.tracing.execution import run_body
from ssn_probe.tracing.generate import run_generation
from ssn_probe.tracing.responses import finish


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
        from ssn_probe.tracing.bodies.generation import trace_last_values

        batch, steps = [tokens[row] for row in rows], [1] * len(rows)
        if max_new_tokens:
            ids, values, _odds = run_generation(subject, batch, places, max_new_tokens, wanted=wanted)
            found, steps = values, [one.tokens for one in finish(subject, ids.tolist())]
        else:
            found = run_body(subject, trace_last_values, whole_inputs(subject, batch), places, wanted)[:, None]
            if not found.isfinite().all():
                raise_non_finite(subject, batch)
        # [prompt, step, neuron], every batch as long as the longest response may be
        values = torch.nn.functional.pad(found.cpu(), (0, 0, 0, most - found.shape[1]))
        return {"values": values, "steps": torch.tensor(steps)}

    if wanted:
        run_batches(tokens, batch_size, run, shelf, advance)
    dtype = getattr(torch, subject.identity["dtype"])
    values = gather(shelf.parts(), "values", torch.zeros(len(tokens), most, len(neurons), dtype=dtype))
    return Carried(values=values, steps=gather(shelf.parts(), "steps", torch.ones(len(tokens), dtype=torch.int64)))
