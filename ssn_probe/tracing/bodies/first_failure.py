"""Where a forward pass first yields NaN or Inf."""

import nnsight
import torch

from .site_access import change, layer_of, read, token_mask


def trace_first_non_finite(model, inputs, places, edits):
    """The first (layer, site) in forward order that is not finite at a real token; None where all are."""
    with torch.no_grad(), model.trace(**inputs):
        mask = token_mask(model)
        found = nnsight.save([])
        for layer in range(places["depth"]):
            envoy = layer_of(model, places, layer)
            for site, place in places["sites"].items():
                activation = read(envoy, place)
                for _layer, _site, index, how, value in edits:
                    if (_layer, _site) == (layer, site):
                        change(activation, index, how, value)
                if not activation[mask.to(activation.device)].isfinite().all():
                    found.append((layer, site))
    return found[0] if found else None
