"""LoRA of as many parameters as a set of neurons has, by peft: the same budget in the same matrices.

A matrix gets the rank that costs what the set spends in it, rounded down; what that leaves goes, one rank at a time, to
the matrices that lost most by rounding, for as long as the total does not exceed the set's. A matrix that holds several
sites has one adapter, which changes all of its rows. Scale 1 (alpha = rank), no
dropout; A begins as peft's does (Kaiming uniform), B at zero; both are float32 whatever the base.

peft puts its layers into the model. Here they are in it only while the change is attached.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssn_probe.errors import ModelError
from ssn_probe.training.weights.adapter import Adapter, Factors
from ssn_probe.training.weights.neuron_weights import Place

NAME = "default"


def parameters_of(module: Any, places: Sequence[Place]) -> dict[str, int]:
    """Path of the linear layer → how many weights the places have in it."""
    counts: dict[str, int] = {}
    for place in places:
        outputs, inputs = module.get_submodule(place.module).weight.shape
        own = len(place.indices) * (inputs if place.axis == "row" else outputs)
        counts[place.module] = counts.get(place.module, 0) + own
    return counts


def ranks_of(module: Any, places: Sequence[Place]) -> dict[str, int]:
    """Path of the linear layer → rank; only matrices of rank 1 or more. At least one matrix, the cheapest, has one."""
    wanted = parameters_of(module, places)
    cost = {path: sum(module.get_submodule(path).weight.shape) for path in wanted}
    ranks = {path: wanted[path] // cost[path] for path in cost}
    left = sum(wanted.values()) - sum(ranks[path] * cost[path] for path in cost)
    for path in sorted(cost, key=lambda path: -(wanted[path] % cost[path]) / cost[path]):
        if cost[path] <= left and wanted[path] % cost[path]:
            ranks[path] += 1
            left -= cost[path]
    if not any(ranks.values()):
        ranks[min(cost, key=lambda path: cost[path])] = 1
    return {path: rank for path, rank in ranks.items() if rank}


def lora_config(ranks: Mapping[str, int]) -> Any:
    """peft's configuration of adapters on exactly these layers."""
    from peft import LoraConfig

    patterns = {path.replace(".", r"\."): rank for path, rank in ranks.items()}
    return LoraConfig(
        r=1,
        lora_alpha=1,
        rank_pattern=patterns,
        alpha_pattern=patterns,
        target_modules=list(ranks),
        lora_dropout=0.0,
        bias="none",
    )


class LowRank:
    """Adapters on some matrices of a model, without effect to begin with: a `Trainable`, like `Deltas`."""

    def __init__(self, module: Any, places: Sequence[Place], seed: int):
        self.module = module
        self.places = {place.module: place for place in sorted(places, key=lambda place: len(place.indices))}
        self.ranks = ranks_of(module, places)
        self.layers = _layers(module, self.ranks)
        draw = torch.Generator().manual_seed(seed)
        self.parameters: dict[str, nn.Parameter] = {}
        for path, layer in self.layers.items():
            for kind, part in (("A", layer.lora_A[NAME]), ("B", layer.lora_B[NAME])):
                start = torch.zeros(part.weight.shape)
                if kind == "A":
                    nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=draw)
                part.weight = nn.Parameter(start.to(layer.base_layer.weight.device))
                self.parameters[f"{path}/{kind}"] = part.weight

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, the model computes with the adapters."""
        try:
            for path, layer in self.layers.items():
                self.module.set_submodule(path, layer)
            yield
        finally:
            for path, layer in self.layers.items():
                self.module.set_submodule(path, layer.base_layer)

    def snapshot(self, values: Mapping[str, Tensor] | None = None) -> Adapter:
        """The adapters as they are now, or with these values, on the CPU."""
        known = self.parameters if values is None else values
        copied = {name: value.detach().cpu().clone() for name, value in known.items()}
        return Adapter(
            parts=tuple(
                Factors(
                    module=path,
                    layer=self.places[path].layer,
                    site=self.places[path].site,
                    a=copied[f"{path}/A"],
                    b=copied[f"{path}/B"],
                )
                for path in self.ranks
            )
        )


def _layers(module: Any, ranks: Mapping[str, int]) -> dict[str, Any]:
    """peft's layers around those of the model, which is afterwards as it was."""
    from peft import inject_adapter_in_model

    before = {path: module.get_submodule(path) for path in ranks}
    if any(hasattr(layer.weight, "full_tensor") for layer in before.values()):
        raise ModelError("LoRA of a sharded model is not supported.", "Load the model on one device, or replicate it.")
    trained_before = [weight for weight in module.parameters() if weight.requires_grad]
    try:
        with torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(lora_config(ranks), module, NAME)
        return {path: module.get_submodule(path) for path in ranks}
    finally:
        for path, layer in before.items():
            module.set_submodule(path, layer)
        if hasattr(module, "peft_config"):
            del module.peft_config
        for weight in trained_before:
            weight.requires_grad_(True)
