"""The table: each site where the table places it, a tiny model of every row, and an error for all others."""

from types import SimpleNamespace

import pytest
from tiny import EVERY_FAMILY, tiny_config, tiny_module

from ssn_probe.errors import ModelError
from ssn_probe.model.families import FAMILIES as TABLE
from ssn_probe.model.families import check_neurons, family_of, known_site
from ssn_probe.neurons import SITES

WIDTHS = {"q": 24, "k": 12, "v": 12, "o": 24, "ffn": 20}


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_row_has_a_tiny_model(family: str) -> None:
    """A row that none of the other tests could run on fails here by its name."""
    module = tiny_module(family)
    row = family_of(module.config)
    assert row.name == family
    assert row.widths(module) == WIDTHS
    assert row.depth(module) == 2
    assert tuple(row.modules) == SITES


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_features_of_a_family_are_those_of_its_modules(family: str) -> None:
    """A head norm or a soft-cap that the table overlooks would make q and k wrong."""
    row, module = TABLE[family], tiny_module(family)
    attention = row.part(row.part(module, row.layers)[0], row.attention)
    assert (row.head_norms is not None) == hasattr(attention, "q_norm")
    assert (row.score_cap is not None) == (getattr(attention, "attn_logit_softcapping", None) is not None)


@pytest.mark.parametrize("config", ["gpt2", SimpleNamespace(model_type="arcee"), SimpleNamespace(), None])
def test_another_family_is_refused_with_the_list(config: object) -> None:
    with pytest.raises(ModelError, match="llama, qwen2, qwen3, mistral, gemma2"):
        family_of(config)


def test_a_config_and_its_model_type_give_the_same() -> None:
    assert family_of(tiny_config("qwen3")) is family_of("qwen3")


@pytest.mark.parametrize(
    ("neuron", "problem"),
    [((2, "q", 0), "layers 0 to 1"), ((0, "v", 12), "from 0 to 11"), ((0, "ff", 1), "Did you mean 'ffn'")],
)
def test_a_neuron_outside_the_model_is_refused_with_what_there_is(neuron: tuple[int, str, int], problem: str) -> None:
    check_neurons([(1, "q", 23), (0, "ffn", 0)], n_layers=2, widths=WIDTHS)
    with pytest.raises(ModelError, match=problem):
        check_neurons([neuron], n_layers=2, widths=WIDTHS)


def test_a_site_is_known_by_its_word() -> None:
    assert [known_site(site) for site in SITES] == list(SITES)
