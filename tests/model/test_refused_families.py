"""Every causal language model of the installed transformers is studied, or refused with its reason."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from ssn_probe.errors import ModelError
from ssn_probe.model.config_file import check_layer_kinds
from ssn_probe.model.families import FAMILIES, family_of
from ssn_probe.model.refused_families import refused

EXPERTS, STATE, LATENT = "mixture of experts", "carry a state from token to token", "compressed vector"


@pytest.fixture(scope="module")
def configs() -> dict[str, Any]:
    """The `model_type` of every causal language model → what config.json of its default config holds."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # some default configs do not agree with themselves
    found = {name: _default(CONFIG_MAPPING[name]) for name in NAMES}
    logging.disable(before)
    return found


def _default(config: Any) -> dict[str, Any]:
    try:
        return config().to_dict()
    except Exception:  # a class without a valid default, such as that of gemma4_assistant
        return {}


def reason(config: Any) -> ModelError:
    with pytest.raises(ModelError) as error:
        family_of(config)
    return error.value


def test_every_family_of_transformers_is_a_row_or_refused_with_what_to_do(configs: dict[str, Any]) -> None:
    assert len(configs) > 150
    for name, config in configs.items():
        if name in FAMILIES:
            assert family_of(config | {"model_type": name}).name == name
            continue
        error = reason(config | {"model_type": name})
        if name in refused():
            assert error.message == f"Models of the family {name!r} are not studied: {refused()[name]}."
        else:
            assert error.message == f"The family {name!r} is not in the table of families."
            assert "`register_family` adds it" in str(error.hint)
        assert all(row in str(error.hint) for row in FAMILIES)


@pytest.mark.parametrize("name", [None, "", ["llama"], 3])
def test_a_model_type_that_is_no_name(name: Any) -> None:
    assert "which names no family" in reason({"model_type": name}).message


def test_layers_of_a_kind_that_the_family_does_not_have(configs: dict[str, Any]) -> None:
    for name, row in FAMILIES.items():
        check_layer_kinds("here", configs.get(name, {}), row)
    kinds = ["full_attention", "linear_attention"]
    for raw in ({"layer_types": kinds}, {"text_config": {"layer_types": kinds}}):
        with pytest.raises(ModelError, match="layers of the kind 'linear_attention'"):
            check_layer_kinds("here", raw, FAMILIES["gemma3" if "text_config" in raw else "cohere2"])


def test_no_family_is_both_studied_and_refused() -> None:
    assert not refused().keys() & FAMILIES.keys()


NAMED_ALONE = {"dbrx", "rwkv", "xlstm"}
"""Their configs have names of their own for what other families have in common."""


def test_experts_states_and_latents_are_found_without_the_name(configs: dict[str, Any]) -> None:
    """A family that comes after this list is refused by what its config says."""
    for name, why in refused().items():
        known = [one for one in (EXPERTS, STATE, LATENT) if one in why]
        if known and name not in NAMED_ALONE and configs.get(name):
            message = reason(configs[name] | {"model_type": "brand_new"}).message
            assert message.startswith("Models of the family 'brand_new' are not studied: ")
            assert "(its config has " in message or "(its text model is of the family " in message
            assert any(one in message for one in known), name


def test_dense_families_are_not_taken_for_others(configs: dict[str, Any]) -> None:
    for name in FAMILIES.keys() | {"olmo", "starcoder2", "hunyuan_v1_dense", "modernbert-decoder"}:
        message = reason(configs.get(name, {}) | {"model_type": "brand_new"}).message
        assert message == "The family 'brand_new' is not in the table of families."


SIGNS = {
    "the text model": (
        {"text_config": {"model_type": "gemma4_text"}},
        "(its text model is of the family 'gemma4_text')",
    ),
    "experts": ({"num_local_experts": 8}, EXPERTS),
    "experts of the text model": ({"text_config": {"n_routed_experts": 4}}, EXPERTS),
    "a kind of layer": ({"layer_types": ["full_attention", "conv"]}, f"{STATE} (linear"),
    "its name": ({"layer_types": ["full_attention", "conv"]}, "(its config has layer_types 'conv')"),
    "a state space": ({"ssm_cfg": {"d": 1}}, STATE),
    "shared keys": ({"num_kv_shared_layers": 2}, "those of an earlier layer"),
    "cross-attention": ({"add_cross_attention": True}, "encoder–decoder"),
    "an encoder": ({"is_encoder_decoder": True}, "encoder–decoder"),
    "alibi": ({"alibi": True}, "adds positions"),
}
HARMLESS = {
    "one expert": {"num_experts": 1, "moe_topk": 0},
    "none": {"num_local_experts": 0, "num_kv_shared_layers": 0, "n_routed_experts": None, "alibi": False},
    "two kinds of softmax attention": {"layer_types": ["sliding_attention", "full_attention"]},
}


@pytest.mark.parametrize(("config", "why"), SIGNS.values(), ids=SIGNS)
def test_a_sign_in_the_config_is_a_reason(config: dict[str, Any], why: str) -> None:
    assert why in reason({"model_type": "brand_new"} | config).message


@pytest.mark.parametrize("config", HARMLESS.values(), ids=HARMLESS)
def test_what_says_nothing_is_no_reason(config: dict[str, Any]) -> None:
    assert "is not in the table" in reason(SimpleNamespace(model_type="brand_new", **config)).message


def test_families_of_the_paper_after_next_have_their_own_reasons() -> None:
    assert "q_proj is twice as wide" in refused()["qwen3_5"]
    assert "acts in several layers" in refused()["gemma4"]
    assert EXPERTS in refused()["qwen3_moe"]
