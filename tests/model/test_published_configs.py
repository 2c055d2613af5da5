"""Configs in the forms in which models are published, with fields of several years, are read and fit their rows.

Of these models nothing but the shape is built, on the meta device.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from ssn_probe.model.context_length import context_length, sliding_window
from ssn_probe.model.families import family_of
from ssn_probe.model.loading import read_config, read_outline

SIGLIP = {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model"}
SIGLIP |= {"num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False}
PIXTRAL = {"head_dim": 64, "hidden_size": 1024, "image_size": 1540, "intermediate_size": 4096, "model_type": "pixtral"}
PIXTRAL |= {"num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "rope_theta": 10000.0}
CAUSAL = {"attention_bias": False, "attention_dropout": 0.0, "torch_dtype": "bfloat16", "use_cache": True}
YARN = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0, "llama_4_scaling_beta": 0.1, "mscale": 1.0}
YARN |= {"mscale_all_dim": 1.0, "original_max_position_embeddings": 16384, "rope_theta": 1e6, "rope_type": "yarn"}
LLAMA3 = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3"}


def shaped(layers: int, hidden: int, inner: int, heads: int, keys: int, vocabulary: int) -> dict[str, Any]:
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": inner, "vocab_size": vocabulary}
    return sizes | {"num_attention_heads": heads, "num_key_value_heads": keys}


PUBLISHED: dict[str, tuple[dict[str, Any], int, tuple[int, int, int] | None, dict[str, int]]] = {
    "gemma3": (
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "text_config": {
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "model_type": "gemma3_text",
                "num_hidden_layers": 34,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                "sliding_window": 1024,
            },
            "torch_dtype": "bfloat16",
            "vision_config": SIGLIP,
        },
        131072,
        (1024, 29, 34),
        {"q": 2048, "k": 1024, "ffn": 10240},
    ),
    "mistral3": (
        {
            "architectures": ["Mistral3ForConditionalGeneration"],
            "dtype": "bfloat16",
            "model_type": "mistral3",
            "text_config": shaped(34, 4096, 14336, 32, 8, 131072)
            | {"head_dim": 128, "model_type": "ministral3", "rope_parameters": YARN, "max_position_embeddings": 262144},
            "vision_config": PIXTRAL,
        },
        262144,
        None,
        {"q": 4096, "k": 1024, "ffn": 14336},
    ),
    "mistral3 with a Mistral": (
        {
            "architectures": ["Mistral3ForConditionalGeneration"],
            "model_type": "mistral3",
            "text_config": shaped(40, 5120, 32768, 32, 8, 131072)
            | {"head_dim": 128, "model_type": "mistral", "rope_theta": 1e9, "max_position_embeddings": 131072}
            | {"sliding_window": None},
            "torch_dtype": "bfloat16",
            "vision_config": PIXTRAL,
        },
        131072,
        None,
        {"q": 4096, "o": 4096, "ffn": 32768},
    ),
    "phi3": (
        shaped(32, 3072, 8192, 32, 32, 32064)
        | CAUSAL
        | {
            "architectures": ["Phi3ForCausalLM"],
            "auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
            "max_position_embeddings": 4096,
            "model_type": "phi3",
            "original_max_position_embeddings": 4096,
            "pad_token_id": 32000,
            "rope_scaling": None,
            "sliding_window": 2047,
        },
        4096,
        (2047, 32, 32),
        {"q": 3072, "k": 3072, "ffn": 8192},
    ),
    "cohere2": (
        shaped(32, 4096, 14336, 32, 8, 256000)
        | CAUSAL
        | {
            "architectures": ["Cohere2ForCausalLM"],
            "head_dim": 128,
            "max_position_embeddings": 8192,
            "model_type": "cohere2",
            "sliding_window": 4096,
            "sliding_window_pattern": 4,
        },
        8192,
        (4096, 24, 32),
        {"q": 4096, "v": 1024, "ffn": 14336},
    ),
    "llama": (
        shaped(32, 4096, 14336, 32, 8, 128256)
        | CAUSAL
        | {
            "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 131072,
            "model_type": "llama",
            "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192},
            "rope_theta": 500000.0,
        },
        131072,
        None,
        {"q": 4096, "k": 1024, "ffn": 14336},
    ),
}


@pytest.mark.parametrize(("content", "context", "window", "widths"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_config_is_read_and_fits_its_row(
    content: dict[str, Any], context: int, window: object, widths: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    config = read_config(str(tmp_path))
    family = family_of(config)
    module = read_outline(str(tmp_path), config, family, "auto", "cpu")
    assert (context_length(config), sliding_window(config), str(module.dtype)) == (context, window, "torch.bfloat16")
    found = family.widths(module)
    assert {site: found[site] for site in found if site in widths} == widths
