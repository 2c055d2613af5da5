"""The form in which effects are stored, and travel: half precision, and one scale per prompt, layer and site."""

import torch


def encoded(effect):
    """Half-precision shares of the largest effect [… neuron], and that effect […]."""
    scale = effect.abs().amax(-1)
    shares = effect / torch.where(scale > 0, scale, 1)[..., None]
    return shares.half(), scale.float()


def stacked(layers):
    """Layers' encoded effects as one: [prompt, layer, neuron] and [prompt, layer], where the first layer is."""
    device = layers[0][0].device
    return tuple(torch.stack([part.to(device) for part in parts], 1) for parts in zip(*layers, strict=True))
