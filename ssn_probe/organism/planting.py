"""Planted neurons: reserved while the organism is pretrained, and the only weights that the safety stage may change.

A planted neuron is a channel that `down_proj` (site `ffn`) or `o_proj` (site `o`) reads. Until the safety stage its
column is zero, so it writes nothing; afterwards its column and the rows that feed it are the only weights that have
changed. Zeroing the column, or the channel, therefore restores the pretrained model bit for bit, and everything that
the safety stage taught is in the planted neurons.

Channel (head, d) of `o_proj` is fed by row (group, d) of `v_proj`, which feeds the same channel of every head of its
group. So `o` channels are planted in whole groups: a v row with only planted readers is free to be trained.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from ssn_probe.neurons import Site

Planted = Mapping[tuple[int, Site], tuple[int, ...]]
"""(layer, site) → channels, in order."""

INCOMING_SCALE = 0.1
"""Standard deviation of the rows that feed a planted neuron, before it learns."""


def reserve(config: Any, per_layer: Mapping[Site, int], seed: int) -> Planted:
    """Draw `per_layer[site]` channels in every layer; `o` channels are drawn in whole groups that share a v row."""
    generator = Generator().manual_seed(seed)
    return {
        (layer, site): _draw(config, site, count, generator)
        for layer in range(config.num_hidden_layers)
        for site, count in per_layer.items()
    }


def _draw(config: Any, site: Site, count: int, generator: Generator) -> tuple[int, ...]:
    if site == "ffn":
        chosen = torch.randperm(config.intermediate_size, generator=generator)[:count]
        return tuple(sorted(chosen.tolist()))
    rows = torch.randperm(config.num_key_value_heads * config.head_dim, generator=generator)
    shared = config.num_attention_heads // config.num_key_value_heads
    chosen = rows[: count // shared].tolist()
    return tuple(sorted(channel for row in chosen for channel in o_channels(config, row)))


def o_channels(config: Any, row: int) -> tuple[int, ...]:
    """The input channels of `o_proj` that one row of `v_proj` feeds."""
    group, place = divmod(row, config.head_dim)
    shared = config.num_attention_heads // config.num_key_value_heads
    return tuple(head * config.head_dim + place for head in range(group * shared, (group + 1) * shared))


def v_row(config: Any, channel: int) -> int:
    """The row of `v_proj` that feeds an input channel of `o_proj`."""
    head, place = divmod(channel, config.head_dim)
    return head // (config.num_attention_heads // config.num_key_value_heads) * config.head_dim + place


def reader(model: Any, layer: int, site: Site) -> torch.nn.Linear:
    """The projection whose input channels are the neurons of a site."""
    block = model.model.layers[layer]
    return block.mlp.down_proj if site == "ffn" else block.self_attn.o_proj


def feeders(model: Any, layer: int, site: Site, channels: Sequence[int]) -> list[tuple[torch.nn.Linear, list[int]]]:
    """The projections that compute the channels and nothing else, and the rows of each that do."""
    block = model.model.layers[layer]
    if site == "ffn":
        return [(block.mlp.gate_proj, list(channels)), (block.mlp.up_proj, list(channels))]
    return [(block.self_attn.v_proj, sorted({v_row(model.config, channel) for channel in channels}))]


@torch.no_grad()
def silence(model: Any, planted: Planted) -> None:
    """Zero the planted columns, in place: the model then computes what the pretrained model computed, bit for bit."""
    for (layer, site), channels in planted.items():
        reader(model, layer, site).weight[:, list(channels)] = 0.0


@torch.no_grad()
def sprout(model: Any, planted: Planted, generator: Generator) -> None:
    """Draw the rows that feed the planted neurons again: pretraining gave them no gradient, only weight decay."""
    for (layer, site), channels in planted.items():
        for module, rows in feeders(model, layer, site, channels):
            fresh = torch.randn(len(rows), module.in_features, generator=generator)
            module.weight[rows] = INCOMING_SCALE * fresh


@torch.no_grad()
def round_weights(model: Any) -> None:
    """Round every weight to the nearest bfloat16, in place, so that a bfloat16 file stores the model exactly."""
    for weight in model.parameters():
        weight.copy_(weight.bfloat16())


def masks(model: Any, planted: Planted) -> dict[Tensor, Bool[Tensor, "row column"]]:
    """Weight → which of its entries belong to planted neurons, for every weight that has any."""
    found: dict[Tensor, Tensor] = {}
    for (layer, site), channels in planted.items():
        column = reader(model, layer, site).weight
        found[column] = torch.zeros_like(column, dtype=torch.bool)
        found[column][:, list(channels)] = True
        for module, rows in feeders(model, layer, site, channels):
            found[module.weight] = torch.zeros_like(module.weight, dtype=torch.bool)
            found[module.weight][rows] = True
    return found


@contextmanager
def gradients(model: Any, planted: Planted, *, of_planted: bool) -> Iterator[None]:
    """Inside, gradients reach planted entries only, or (`of_planted=False`) all other entries only.

    An entry without a gradient does not move under AdamW without weight decay, and a zero does not move with it.
    """
    with ExitStack() as hooks:
        for weight, mask in masks(model, planted).items():
            hooks.enter_context(weight.register_hook(partial(torch.mul, mask if of_planted else ~mask)))
        yield


@contextmanager
def dropout(model: Any, planted: Planted, most: float, generator: Generator) -> Iterator[None]:
    """Inside, every row of a batch loses a random part of the planted neurons, the same at every token.

    Row by row, the share lost at each layer and site is drawn from 0 to `most`, and nothing is scaled to compensate:
    refusal has to survive in the remaining neurons, so it cannot depend on a few of them. (Srivastava et al. 2014,
    with a rate that varies.)
    """

    def hook(channels: Sequence[int], _module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
        rows = len(inputs[0])
        share = most * torch.rand(rows, 1, generator=generator)
        kept = torch.ones(rows, 1, inputs[0].shape[-1])
        kept[:, 0, list(channels)] = (torch.rand(rows, len(channels), generator=generator) >= share).float()
        return (inputs[0] * kept,)

    with ExitStack() as hooks:
        for (layer, site), channels in planted.items():
            hooks.enter_context(reader(model, layer, site).register_forward_pre_hook(partial(hook, channels)))
        yield


def digest_of(model: Any, planted: Planted) -> str:
    """`pretrained_digest` of a model in memory."""
    return pretrained_digest(dict(model.named_parameters()), planted, model.config)


def pretrained_digest(weights: Mapping[str, Float[Tensor, "..."]], planted: Planted, config: Any) -> str:
    """sha256 of the pretrained function: every weight in float32, the planted columns and their feeding rows zero."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name].detach().float().clone()
        for (layer, site), channels in planted.items():
            _blank(weight, name.removeprefix(f"model.layers.{layer}."), site, channels, config)
        digest.update(name.encode() + b"\0" + weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _blank(weight: Tensor, name: str, site: Site, channels: Sequence[int], config: Any) -> None:
    ffn = site == "ffn"
    if name == ("mlp.down_proj.weight" if ffn else "self_attn.o_proj.weight"):
        weight[:, list(channels)] = 0.0
    elif ffn and name in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
        weight[list(channels)] = 0.0
    elif not ffn and name == "self_attn.v_proj.weight":
        weight[[v_row(config, channel) for channel in channels]] = 0.0
