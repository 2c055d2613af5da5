"""Which slice of a weight a worker of vLLM changes: the shards together equal the change of the whole weight."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from ssn_probe.engines.vllm_fold import CannotFoldError, Folding

HEAD, HEADS, KV_HEADS, HIDDEN, FFN = 4, 8, 2, 16, 24
Q, KV = HEADS * HEAD, KV_HEADS * HEAD
LAYERS = 2
ROW = {
    "layers": "model.layers",
    "sites": {
        "q": ("self_attn.q_proj", "output"),
        "k": ("self_attn.k_proj", "output"),
        "v": ("self_attn.v_proj", "output"),
        "o": ("self_attn.o_proj", "input"),
        "ffn": ("mlp.down_proj", "input"),
    },
}
EDITS = [
    (0, "q", (0, 5, 13, 31), 0.0),
    (0, "k", (1, 4, 7), 2.0),
    (0, "v", (0, 3, 6), 0.0),
    (0, "o", (2, 15, 16, 30), 3.0),
    (0, "ffn", (0, 11, 12, 23), 0.0),
    (1, "ffn", (1,), -1.0),
]


class UnquantizedLinearMethod:
    """As vLLM calls what leaves weights as they are."""


class PPMissingLayer(torch.nn.Module):
    """As vLLM calls a layer that another worker has."""


class Linear(torch.nn.Module):
    """A projection as vLLM cuts it, with the attributes that it has there."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, **attributes: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())
        self.bias = None if bias is None else torch.nn.Parameter(bias.clone())
        self.quant_method = UnquantizedLinearMethod()
        self.output_size_per_partition, self.input_size_per_partition = weight.shape
        for name, value in attributes.items():
            setattr(self, name, value)


@dataclass
class Runner:
    model: torch.nn.Module

    def get_model(self) -> torch.nn.Module:
        return self.model


@dataclass
class Worker(Folding):
    model_runner: Runner
    weights: dict = field(default_factory=dict)


def whole(layer: int) -> dict[str, torch.Tensor]:
    """The weights of a layer as a checkpoint has them."""
    draw = torch.Generator().manual_seed(layer)
    shapes = {"q": (Q, HIDDEN), "k": (KV, HIDDEN), "v": (KV, HIDDEN), "o": (HIDDEN, Q), "ffn": (HIDDEN, FFN)}
    weights = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return weights | {f"{name} bias": torch.randn(shapes[name][0], generator=draw) for name in "qkv"}


def worker(rank: int, size: int, layers: range = range(LAYERS)) -> Worker:
    """What one of `size` workers holds, by vLLM's rule: heads are dealt out, and a key-value head may be repeated."""
    heads, kv_heads, replicas = HEADS // size, max(1, KV_HEADS // size), max(1, size // KV_HEADS)
    kv = rank // replicas
    cuts = {"q": slice(rank * heads * HEAD, (rank + 1) * heads * HEAD)}
    cuts |= dict.fromkeys("kv", slice(kv * kv_heads * HEAD, (kv + 1) * kv_heads * HEAD))
    held = torch.nn.ModuleList()
    for layer in range(LAYERS):
        full = whole(layer)
        if layer not in layers:
            held.append(PPMissingLayer())
            continue
        block = torch.nn.Module()
        block.self_attn, block.mlp = torch.nn.Module(), torch.nn.Module()
        block.self_attn.qkv_proj = Linear(
            torch.cat([full[name][cuts[name]] for name in "qkv"]),
            torch.cat([full[f"{name} bias"][cuts[name]] for name in "qkv"]),
            tp_rank=rank,
            head_size=HEAD,
            num_heads=heads,
            num_kv_heads=kv_heads,
            num_kv_head_replicas=replicas,
        )
        block.self_attn.o_proj = Linear(full["o"].chunk(size, 1)[rank], None, tp_rank=rank)
        block.mlp.down_proj = Linear(full["ffn"].chunk(size, 1)[rank], None, tp_rank=rank)
        held.append(block)
    model = torch.nn.Module()
    model.model = torch.nn.Module()
    model.model.layers = held
    return Worker(Runner(model))


def changed(layer: int) -> dict[str, torch.Tensor]:
    """The checkpoint's weights with the edits in them."""
    full = whole(layer)
    for where, site, indices, factor in EDITS:
        for index in indices if where == layer else ():
            if site in ("q", "k", "v"):
                full[site][index] *= factor
                full[f"{site} bias"][index] *= factor
            else:
                full[site][:, index] *= factor
    return full


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_shards_together_are_the_changed_weight(size: int) -> None:
    workers = [worker(rank, size) for rank in range(size)]
    untouched = [one.ssn_digest() for one in workers]
    held = [one.ssn_fold(ROW, EDITS) for one in workers]
    replicas = max(1, size // KV_HEADS)
    for site in ROW["sites"]:
        asked = sum(len(indices) for _, where, indices, _ in EDITS if where == site)
        assert sum(one[site] for one in held) == asked * (replicas if site in "kv" else 1)
    for layer in range(LAYERS):
        full = changed(layer)
        blocks = [one.model_runner.model.model.layers[layer] for one in workers]
        for site, name in (("o", "self_attn.o_proj"), ("ffn", "mlp.down_proj")):
            assert torch.equal(torch.cat([block.get_submodule(name).weight for block in blocks], 1), full[site])
        heads, kv_heads = HEADS // size * HEAD, max(1, KV_HEADS // size) * HEAD
        for name in ("weight", "bias"):
            parts = [getattr(block.self_attn.qkv_proj, name).split([heads, kv_heads, kv_heads]) for block in blocks]
            for site, place in (("q", 0), ("k", 1), ("v", 2)):
                copies = replicas if place else 1
                once = [part[place] for part in parts[::copies]]
                assert torch.equal(torch.cat(once), full[site if name == "weight" else f"{site} bias"])
                assert all(torch.equal(part[place], once[i // copies]) for i, part in enumerate(parts))
    for one in workers:
        one.ssn_unfold()
    assert [one.ssn_digest() for one in workers] == untouched


def test_layers_of_other_workers_are_theirs() -> None:
    first, second = worker(0, 1, range(1)), worker(0, 1, range(1, 2))
    assert [one.ssn_fold(ROW, EDITS)["ffn"] for one in (first, second)] == [4, 1]


def test_what_is_infinite_falls_silent_and_comes_back() -> None:
    one = worker(0, 1)
    weight = one.model_runner.model.model.layers[0].mlp.down_proj.weight.data
    weight[3, 11] = torch.inf
    before = weight.clone()
    one.ssn_fold(ROW, [(0, "ffn", (11,), 0.0)])
    assert not weight[:, 11].any()
    one.ssn_unfold()
    assert torch.equal(weight, before)


def test_weights_that_are_not_plain_are_refused() -> None:
    packed, quantised, other = worker(0, 1), worker(0, 1), worker(0, 1)
    packed.model_runner.model.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(torch.empty(0))
    quantised.model_runner.model.model.layers[0].mlp.down_proj.quant_method = object()
    del other.model_runner.model.model.layers[0].mlp.down_proj
    for one, why in ((packed, "packed"), (quantised, "quantised"), (other, "no layer 0 with 'mlp.down_proj'")):
        with pytest.raises(CannotFoldError, match=why):
            one.ssn_fold(ROW, EDITS[4:])
