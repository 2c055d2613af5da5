"""The final state with one neuron silenced per row of the batch: the brute-force truth."""

import nnsight
import torch

from .site_access import layer_of, reach, read


def trace_ablations(model, inputs, places, neurons, position):
    """‖final state − final state without the neuron‖, after the final norm: [neuron].

    inputs: one prompt, repeated: row 0 runs untouched, row i + 1 without neuron i. neurons: {(layer, site): (rows,
    indices)}, in forward order; position: "last" token of the prompt, or the "mean" over its tokens of the norm.
    """
    with torch.no_grad(), model.trace(**inputs):
        for (layer, site), (rows, indices) in neurons.items():
            activation = read(layer_of(model, places, layer), places["sites"][site])
            activation[rows, :, indices] = 0
        state = reach(model, places["norm"]).output
        state = state if state.dtype == torch.float64 else state.float()
        moved = (state[1:] - state[:1]).norm(dim=-1)  # [neuron, token]
        effects = nnsight.save(moved[:, -1] if position == "last" else moved.mean(-1))
    return effects  # noqa: RET504 (the name is bound when the trace has run)
