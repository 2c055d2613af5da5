"""Families that are not studied, and why: by their name, or by what a config says where the name tells nothing.

A neuron of a site must be one row or column of one matrix, and its effect must follow from what that matrix reads and
writes. Each of these families breaks this somewhere. A family that is neither here nor in the table of families may be
added with `register_family`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ssn_probe.errors import ModelError

_EXPERTS = (
    "its MLP is a mixture of experts: a router sends each token through a few of many MLPs, whose matrices are one "
    "tensor, so a neuron of site ffn has no single place, and acts on some tokens only"
)
_LATENT = (
    "its keys and values (and often its queries) are made of a compressed vector by two matrices in a row, so the rows "
    "of no single matrix are their neurons"
)
_HYBRID = (
    "some or all of its layers carry a state from token to token (linear attention, state space or convolution) in "
    "place of softmax attention, so there are no queries and keys whose effect could be computed"
)
_SINKS = (
    "every head has a learned sink in its softmax beside the tokens, which the closed forms of the effects of q and k "
    "do not know"
)
_OUTPUT_GATE = (
    "what its attention gives is multiplied by a gate that is computed from the input, between the values and o_proj, "
    "which the closed forms of the effects of v, q and k do not know"
)
_BY_HEAD = (
    "one matrix (query_key_value) holds queries, key and value of each head or group of heads in turn, so that a site "
    "is no slice of it, and its MLP has no gate"
)
_ENCODER = "it is an encoder, which reads a text in both directions and was not made to continue a chat"
_DECODER = "it is one half of an encoder–decoder model: its layers also attend to what an encoder read"
_POSITIONS = (
    "it adds positions to the embeddings or the scores in place of rotating queries and keys, has no gate in its MLP, "
    "and names its modules otherwise"
)
_PARALLEL = (
    "it rotates only a part of each head, its MLP has no gate and runs beside the attention on the same input, and its "
    "modules have other names"
)
_SHARED = (
    "some of its layers have no keys and values of their own but use those of an earlier layer, so that a neuron of k "
    "or v acts in several layers"
)
_GEMMA4 = (
    "depending on its size, layers use the keys and values of an earlier layer, so that a neuron of k or v acts in "
    "several layers, or their keys as values; its layers differ in width"
)
_DOUBLE = "its q_proj is twice as wide: each head's rows are its query and a gate on its output"


def _each(names: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


_REFUSED: dict[str, str] = {
    **_each("qwen3_5 qwen3_5_text", f"{_DOUBLE}; and most of its layers have linear attention and no q, k and v"),
    **_each("qwen3_next qwen3_5_moe qwen3_5_moe_text", f"{_DOUBLE}; {_HYBRID}; and {_EXPERTS}"),
    **_each("qwen4_exp qwen4_exp_text", f"{_DOUBLE}; {_HYBRID}; and {_EXPERTS}"),
    **_each("gemma3n gemma3n_text", f"{_SHARED}; each layer also adds an embedding of the token of its own"),
    **_each("gemma4 gemma4_text gemma4_assistant", f"{_GEMMA4}; some sizes also add an embedding to every layer"),
    **_each("gemma4_unified gemma4_unified_text gemma4_unified_assistant", _GEMMA4),
    **_each("mixtral qwen2_moe qwen3_moe olmoe flex_olmo phimoe granitemoe granitemoeshared minimax_m2", _EXPERTS),
    **_each("dbrx jetmoe aria_text cohere2_moe dots1 ernie4_5_moe exaone_moe glm4_moe hunyuan_v1_moe hy_v3", _EXPERTS),
    **_each("llama4 llama4_text mellum kolibri1 minimax_m3_vl_text sarvam_moe solar_open", _EXPERTS),
    **_each("deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 glm4_moe_lite glm_moe_dsa", f"{_EXPERTS}; and {_LATENT}"),
    **_each("axk1 axk2 dots3_note dots3_note_text longcat_flash sarvam_mla hy_v4", f"{_EXPERTS}; and {_LATENT}"),
    **_each("minicpm3 youtu", _LATENT),
    **_each("gpt_oss granitemoe_swa flint mimo_v2_flash", f"{_EXPERTS}; and {_SINKS}"),
    **_each("granite_swa", _SINKS),
    **_each("afmoe beam laguna", f"{_EXPERTS}; and {_OUTPUT_GATE}"),
    **_each("dory", _OUTPUT_GATE),
    **_each("hrm_text", f"it runs the same layers several times for a token; and {_OUTPUT_GATE}"),
    **_each("mamba mamba2 falcon_mamba rwkv xlstm recurrent_gemma bamba falcon_h1 zamba zamba2", _HYBRID),
    **_each("lfm2 lfm3 olmo_hybrid", _HYBRID),
    **_each("jamba granitemoehybrid nemotron_h lfm2_moe minimax kimi_linear", f"{_HYBRID}; and {_EXPERTS}"),
    **_each("bailing_hybrid lara_mini zaya", f"{_HYBRID}; and {_EXPERTS}"),
    **_each("inkling_text inkling2_text inkling2_loop_text", f"{_HYBRID}; and {_EXPERTS}"),
    **_each("gpt2 gpt-sw3 openai-gpt", f"one Conv1D (a transposed matrix) holds q, k and v; and {_POSITIONS}"),
    **_each("gpt_bigcode", f"one matrix holds all queries and (mostly) a single key and value; and {_POSITIONS}"),
    **_each("gpt_neo opt xglm biogpt ctrl", _POSITIONS),
    **_each("cpmant", "it adds a learned bias of the distance to the scores in place of rotating queries and keys"),
    **_each("git", "it is made to describe an image, and adds positions to the embeddings"),
    **_each("mpt", f"one matrix (Wqkv) holds q, k and v, whose values may be clipped; and {_POSITIONS}"),
    **_each("bloom falcon", f"{_BY_HEAD}; a score may get a bias that grows with the distance (ALiBi)"),
    **_each("gpt_neox gpt_neox_japanese persimmon fuyu", f"{_BY_HEAD}; and it rotates only a part of each head"),
    **_each("codegen", f"one matrix holds q, v and k in four blocks; and {_PARALLEL}"),
    **_each("phi gptj", _PARALLEL),
    **_each("stablelm", "it rotates only a part of each head, and its config may put the MLP beside the attention or "
            "give every head a norm of its own"),
    **_each("nanochat", "it normalises queries and keys after their rotation and not before it"),
    **_each("diffllama", "a head's output is the difference of two softmaxes, with learned weights"),
    **_each("doge", "which tokens a head sees is computed from the values by a further matrix"),
    **_each("bitnet", "it is made for weights of three values, and normalises what o_proj and down_proj read: the "
            "columns of these matrices are no longer what a neuron contributes"),
    **_each("blt", "it reads bytes through three transformers in a row, and not tokens"),
    **_each("mllama", "some of its layers attend to an image and have no q, k and v of the text"),
    **_each("moshi", "it continues sound, and its text is a part of that"),
    **_each("reformer", "its attention sees what hashing selects, its layers are reversible, and queries are keys"),
    **_each("xlnet", "its attention has two streams and relative positions, and it predicts tokens in any order"),
    **_each("bert big_bird camembert data2vec-text electra ernie megatron-bert rembert", _ENCODER),
    **_each("roberta roberta-prelayernorm roc_bert roformer xlm xlm-roberta xlm-roberta-xl xmod", _ENCODER),
    **_each("bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp pegasus plbart prophetnet", _DECODER),
    **_each("bert-generation trocr whisper musicgen musicgen_melody", _DECODER),
}  # fmt: skip

_NESTED = ("text_config", "decoder", "generator")
_STATEFUL = re.compile(
    r"mamba|(^|_)ssm(_|$)|^state_size$|conv_kernel|conv_L_cache|^conv1d_width$|^lru_width$|"
    r"^linear_(conv|key|value|num|head)|^time_step_rank$|^rwkv"
)
_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")


def refused() -> Mapping[str, str]:
    """Every family that is refused by its name → why, to be read after a colon."""
    return MappingProxyType(_REFUSED)


def unsupported(name: Any, config: Mapping[str, Any], supported: Iterable[str]) -> ModelError:
    """The error for a family that is not in the table.

    Args:
        name: the `model_type` of config.json.
        config: what is known of config.json, which may be nothing.
        supported: the families of the table.
    """
    known = f"Families that are studied (model_type in config.json): {', '.join(supported)}."
    if not isinstance(name, str) or not name:
        message = f"config.json has the model_type {name!r:.80}, which names no family."
        return ModelError(message, f"Get the model's own config.json. {known}")
    found = next((one for one in [_REFUSED.get(str(name)), *_signs(config)] if one is not None), None)
    if found is not None:
        return ModelError(
            f"Models of the family {name!r} are not studied: {found}.",
            f"{known} `ssn-probe models` lists models of each.",
        )
    return ModelError(
        f"The family {name!r} is not in the table of families.",
        f"{known} If its layers are built like theirs, `register_family` adds it: docs/extend/family.md.",
    )


def _signs(config: Mapping[str, Any]) -> Iterator[str]:
    """What in a config shows a model that no row describes, of the model and then of its text model."""
    for name in _NESTED:
        if isinstance(nested := config.get(name), Mapping):
            if (kind := str(nested.get("model_type"))) in _REFUSED:
                yield f"{_REFUSED[kind]} (its text model is of the family {kind!r})"
            yield from _signs(nested)
    for name, value in config.items():
        if name == "layer_types" and isinstance(value, list | tuple):
            value = ", ".join(sorted(set(map(str, value)) - set(_ATTENTION)))
        if (reason := _reason(name, value)) is not None:
            yield f"{reason} (its config has {name} {value!r:.80})"


def _reason(name: str, value: Any) -> str | None:
    """Why a model whose config has this setting is not studied; None for a setting that says nothing about it."""
    if value is None or value is False or value == 0 or value in ([], {}, ""):
        return None
    if "experts" in name or name.startswith("moe_"):
        return None if value == 1 and name.endswith("experts") else _EXPERTS
    if _STATEFUL.search(name) or name == "layer_types":
        return _HYBRID
    return {
        "kv_lora_rank": _LATENT,
        "num_kv_shared_layers": _SHARED,
        "attention_k_eq_v": "some of its layers use their keys as values",
        "hidden_size_per_layer_input": "each of its layers also adds an embedding of the token of its own",
        "attn_output_gate": _OUTPUT_GATE,
        "alibi": _POSITIONS,
        "is_encoder_decoder": _DECODER,
        "add_cross_attention": _DECODER,
        "cross_attention_layers": "some of its layers attend to something else than the text",
    }.get(name)
