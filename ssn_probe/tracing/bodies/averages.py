"""What every neuron's activation is on average, and at most."""

import nnsight
import torch

from .site_access import layer_of, read, token_mask


def trace_sums(model, inputs, places):
    """The sum of every neuron's activation over the real tokens of a batch: ({site: [layer, neuron]}, tokens)."""
    with torch.no_grad(), model.trace(**inputs):
        mask = token_mask(model)
        sums = []
        for layer in range(places["depth"]):
            envoy = layer_of(model, places, layer)
            for place in places["sites"].values():
                activation = read(envoy, place)
                sums.append(activation[mask.to(activation.device)].double().sum(0).to(mask.device))
        sites = list(places["sites"])
        total = nnsight.save({site: torch.stack(sums[i :: len(sites)]) for i, site in enumerate(sites)})
        tokens = nnsight.save(mask.sum())
    return total, tokens


def trace_peaks(model, inputs, places):
    """The largest of every neuron's activations over the real tokens of a prompt: {site: [prompt, layer, neuron]}."""
    with torch.no_grad(), model.trace(**inputs):
        mask = token_mask(model)[..., None]
        found = []
        for layer in range(places["depth"]):
            envoy = layer_of(model, places, layer)
            for place in places["sites"].values():
                activation = read(envoy, place)
                real = mask.to(activation.device)
                found.append(activation.masked_fill(~real, -torch.inf).amax(1).float().to(mask.device))
        sites = list(places["sites"])
        peaks = nnsight.save({site: torch.stack(found[i :: len(sites)], 1) for i, site in enumerate(sites)})
    return peaks  # noqa: RET504 (the name is bound when the trace has run)
