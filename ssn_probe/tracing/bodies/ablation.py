"""What changes without one neuron, another in every row of the batch: the final state, or the refusal log-odds."""

import nnsight
import torch

from .refusal import trace_log_odds
from .site_access import layer_of, reach, read


def trace_ablations(model, inputs, places, neurons):
    """‖final state − final state without the neuron‖ at the last token, after the final norm: [neuron].

    inputs: one prompt, repeated: row 0 runs untouched, row i + 1 without neuron i. neurons: {(layer, site): (rows,
    indices)}, in forward order.
    """
    with torch.no_grad(), model.trace(**inputs):
        for (layer, site), (rows, indices) in neurons.items():
            activation = read(layer_of(model, places, layer), places["sites"][site])
            activation[rows, :, indices] = 0
        state = reach(model, places["norm"]).output[:, -1]
        state = state if state.dtype == torch.float64 else state.float()
        effects = nnsight.save((state[1:] - state[:1]).norm(dim=-1))
    return effects  # noqa: RET504 (the name is bound when the trace has run)


def ablated_log_odds(model, inputs, places, candidates, scoring, together):
    """r(x) of every prompt as it is, then without each candidate: [1 + candidate, prompt].

    inputs: prompts × sequences. candidates: (layer, site, index), in forward order. Every pass repeats the rows for as
    many candidates as make `together` rows, so that they need not travel.
    """
    rows = len(inputs["input_ids"])
    size, runs, found = max(1, together // rows), [None, *candidates], []
    for start in range(0, len(runs), size):
        chosen = runs[start : start + size]
        repeated = {
            name: value.repeat(len(chosen), *[1] * (value.ndim - 1))
            if torch.is_tensor(value) and value.ndim > 1
            else value
            for name, value in inputs.items()
        }
        odds = trace_log_odds(model, repeated, places, without(chosen, rows), scoring)
        found.append(odds.reshape(len(chosen), -1))
    return torch.cat(found)


def without(runs, rows):
    """Edits: the i-th `rows` rows run without the i-th neuron, or as they are where that is None."""
    silent = {}
    for run, neuron in enumerate(runs):
        if neuron is not None:
            layer, site, index = neuron
            which, indices = silent.setdefault((layer, site), ([], []))
            which += range(run * rows, (run + 1) * rows)
            indices += [index] * rows
    return [(*place, indices, "silence", which) for place, (which, indices) in silent.items()]
