"""Rows and columns of each site, counted over key-value heads where there are fewer, are the neuron's own weights."""

from typing import Any

import pytest
import torch
from tiny import SHAPE
from training_case import llama, logits

from ssn_probe.errors import ModelError, RecipeError
from ssn_probe.model.families import MODULES
from ssn_probe.neurons import neuron_set
from ssn_probe.spec import SITES, Site
from ssn_probe.training.weights.neuron_weights import places_of, read_rows, rows_of, write_rows
from ssn_probe.training.weights.parameter_counts import fraction
from ssn_probe.training.weights.trainable import Deltas

WIDTHS = {"q": 24, "k": 12, "v": 12, "o": 24, "ffn": 20}
"""Of the tiny Llama: 4 query heads on 2 key-value heads of 6 channels each, 20 FFN channels."""


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_zeroing_the_weights_of_a_neuron_silences_it(site: Site, last: bool) -> None:
    """Where there is no bias, weights of zero are an activation of zero: in any other row or column they are not."""
    module, index = llama(), WIDTHS[site] - 1 if last else 0
    path, side = MODULES[site]
    part = module.get_submodule(f"model.layers.1.{path}")

    def silence(_module: Any, inputs: tuple[torch.Tensor, ...], output: Any = None) -> Any:
        value = (inputs[0] if side == "input" else output).clone()
        value[..., index] = 0
        return (value,) if side == "input" else value

    hook = part.register_forward_pre_hook(silence) if side == "input" else part.register_forward_hook(silence)
    silenced = logits(module)
    hook.remove()
    untouched = logits(module)
    for place in places_of(module, [(1, site, index)]):
        write_rows(module, place, torch.zeros_like(read_rows(module, place)))
    assert torch.allclose(logits(module), silenced, atol=1e-6)
    assert (silenced - untouched).abs().max() > 1e-3


def test_one_place_per_matrix_whatever_the_order_and_repetition() -> None:
    places = places_of(llama(), [(1, "ffn", 9), (0, "k", 3), (1, "ffn", 2), (1, "ffn", 9)])
    assert [(p.module.removeprefix("model.layers."), p.axis, p.indices) for p in places] == [
        ("0.self_attn.k_proj", "row", (3,)),
        ("1.mlp.gate_proj", "row", (2, 9)),
        ("1.mlp.up_proj", "row", (2, 9)),
        ("1.mlp.down_proj", "column", (2, 9)),
    ]


@pytest.mark.parametrize(
    ("neurons", "error", "words"),
    [
        ([], RecipeError, "empty"),
        ([(2, "ffn", 0)], ModelError, "no layer 2"),
        ([(0, "k", 12)], ModelError, "0 to 11"),
        ([(0, "q", 24)], ModelError, "0 to 23"),
        ([(0, "fnn", 0)], ModelError, "'ffn'"),
    ],
)
def test_neurons_that_cannot_be_trained(neurons: list, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        places_of(llama(), neurons)


def test_a_set_per_language_needs_one_language() -> None:
    neurons = neuron_set([("en", 0, "ffn", 1, 0.5), ("bn", 1, "o", 2, None), ("bn", 0, "ffn", 1, None)])
    assert rows_of(neurons, "bn") == [(0, "ffn", 1), (1, "o", 2)]
    assert rows_of(neurons.of("en")) == [(0, "ffn", 1)]
    assert len(rows_of(neurons.union())) == 2
    with pytest.raises(RecipeError, match=r"\.union"):
        rows_of(neurons)
    with pytest.raises(RecipeError, match="no language 'th'"):
        rows_of(neurons, "th")
    with pytest.raises(RecipeError, match="is empty"):
        rows_of(neurons.only(sites=["q"]), "en")


def test_quantised_weights_are_refused() -> None:
    module = llama()
    part = module.model.layers[0].self_attn.q_proj
    part.weight = torch.nn.Parameter(part.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="unquantised"):
        places_of(module, [(0, "q", 0)])


def fraction_of(module: Any, neurons: list) -> Any:
    return fraction(module, Deltas(module, places_of(module, neurons)).snapshot())


def test_the_fraction_counts_parameters_per_site() -> None:
    module = llama(tie_word_embeddings=True)
    table = fraction_of(module, [(0, "ffn", 1), (1, "ffn", 1), (0, "k", 1), (0, "o", 1)]).rows(named=True)
    hidden, everything = SHAPE["hidden_size"], sum(weight.numel() for weight in module.parameters())
    assert [(row["site"], row["neurons"], row["parameters"]) for row in table] == [
        ("k", 1, hidden),
        ("o", 1, hidden),
        ("ffn", 2, 6 * hidden),
        ("all", 4, 8 * hidden),
    ]
    assert table[2]["percent_of_site"] == pytest.approx(100 * 2 / 40)
    assert table[0]["percent_of_site"] == pytest.approx(100 * 1 / 24)
    assert table[-1]["percent"] == pytest.approx(100 * 8 * hidden / everything)
    every = [(layer, site, index) for layer in range(2) for site in SITES for index in range(WIDTHS[site])]
    assert fraction_of(module, every)["percent_of_site"].to_list() == pytest.approx([100.0] * 6)
