"""A family known by name and new in shape: a weight beside those of its row, or a projection of another width."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import tiny_module

from ssn_probe.errors import ModelError
from ssn_probe.model.anatomy import check_anatomy
from ssn_probe.model.families import family_of


def in_every_layer(change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change_all(module: Any) -> None:
        for layer in module.model.layers:
            change(layer)

    return change_all


def linear(path: str, rows: int, columns: int = 24) -> Callable[[Any], None]:
    """A linear layer at this path of every layer, instead of another or as a new one."""
    return in_every_layer(lambda layer: layer.set_submodule(path, torch.nn.Linear(columns, rows, bias=False)))


def sink(layer: Any) -> None:
    layer.self_attn.sinks = torch.nn.Parameter(torch.zeros(4))


def scale(layer: Any) -> None:
    layer.scale = torch.nn.Parameter(torch.ones(24))


NEW_SHAPES = {
    "a gate of the attention": (linear("self_attn.gate_proj", 24), "has the weight self_attn.gate_proj.weight"),
    "an expert": (linear("mlp.shared_expert", 24), "has the weight mlp.shared_expert.weight"),
    "an adapter": (linear("adapter", 24), r"has the weight adapter.weight \(Linear\)"),
    "a norm between the sites": (
        in_every_layer(lambda layer: layer.self_attn.add_module("sub_norm", torch.nn.RMSNorm(24))),
        "has the weight self_attn.sub_norm.weight",
    ),
    "sinks": (in_every_layer(sink), "has the weight self_attn.sinks"),
    "a scaled residual": (in_every_layer(scale), "has the weight scale"),
    "a doubled q_proj": (linear("self_attn.q_proj", 48), "Site q .* has 48 neurons .* 4 heads of 6 channels.* for 24"),
    "a key for each head": (linear("self_attn.k_proj", 24), "Site k .* has 24 neurons .* ask for 12"),
    "wide values": (linear("self_attn.v_proj", 24), "Site v .* has 24 neurons"),
    "a wide o_proj": (linear("self_attn.o_proj", 24, 30), "Site o .* has 30 neurons"),
    "a gate alone": (linear("mlp.gate_proj", 19), "gate_proj .* gives 19 channels, of which mlp.down_proj reads 20"),
    "a narrow reader": (linear("mlp.down_proj", 24, 10), "gives 20 channels, of which mlp.down_proj reads 10"),
}


@pytest.mark.parametrize(("change", "problem"), NEW_SHAPES.values(), ids=NEW_SHAPES)
def test_a_known_name_with_a_new_shape_is_refused(change: Callable[[Any], None], problem: str) -> None:
    module = tiny_module("llama")
    change(module)
    with pytest.raises(ModelError, match=problem) as error:
        check_anatomy(module, family_of(module.config))
    assert "another shape under a known name" in str(error.value.hint)
