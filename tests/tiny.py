"""Tiny random models of every family, with a word-level tokenizer and a chat template, as Hugging Face folders.

The weights are large enough for every part of the network to matter: with the usual initialisation a tiny model is
nearly the identity, and a test of it would pass whatever the code does.
"""

import importlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ssn_probe.model.families import BUILT_IN, family_of

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma2")
EVERY_FAMILY = tuple(row.name for row in BUILT_IN)
"""The rows of the table."""
WORDS = [f"w{number}" for number in range(56)]
SPECIAL = ["<pad>", "<s>", "</s>", "<user>", "<model>", "<unk>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}<user> {{ message['content'] }} "
    "{% else %}<model> {{ message['content'] }} </s> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)
SHAPE = {
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vocab_size": len(SPECIAL) + len(WORDS),
}


def tiny_config(family: str, **changes: Any) -> Any:
    """A config in which every feature of the family is at work: GQA, biases, head norms, sliding windows, soft-caps."""
    transformers: Any = importlib.import_module("transformers")
    shape = SHAPE | changes
    untied = {"tie_word_embeddings": False} | shape  # a tied random model repeats its last token
    sliding = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    match family:
        case "qwen2":
            del shape["head_dim"]
            return transformers.Qwen2Config(**shape)
        case "mistral":
            return transformers.MistralConfig(**shape, sliding_window=4)
        case "gemma2":
            caps = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0}
            return transformers.Gemma2Config(**untied, **caps, sliding_window=4, query_pre_attn_scalar=6)
        case "gemma3" | "gemma3_text":
            bases = {"full_attention": rope, "sliding_attention": rope | {"rope_theta": 100.0}}
            own = {"query_pre_attn_scalar": 6, "final_logit_softcapping": 5.0, "rope_parameters": bases}
            text = transformers.Gemma3TextConfig(**(sliding | untied), **own)
            return (
                text
                if family == "gemma3_text"
                else transformers.Gemma3Config(
                    text_config=text, vision_config=VISION, mm_tokens_per_image=4, tie_word_embeddings=False
                )
            )
        case "olmo2":
            del shape["head_dim"]
            return transformers.Olmo2Config(**shape)
        case "olmo3":
            del shape["head_dim"]
            return transformers.Olmo3Config(**(sliding | shape))
        case "smollm3":
            return transformers.SmolLM3Config(**shape, no_rope_layers=[1, 0], use_sliding_window=False)
        case "granite":
            factors = {"embedding_multiplier": 2.0, "residual_multiplier": 0.7, "attention_multiplier": 0.6}
            return transformers.GraniteConfig(**shape, **factors, logits_scaling=1.5)
        case "cohere":
            return transformers.CohereConfig(**({"use_qk_norm": True} | untied), logit_scale=0.5)
        case "cohere2":
            return transformers.Cohere2Config(**(sliding | untied), logit_scale=0.5)
        case "ministral3" | "mistral3":
            rope |= {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4}
            text = transformers.Ministral3Config(**shape, rope_parameters=rope | {"llama_4_scaling_beta": 0.5})
            return (
                text
                if family == "ministral3"
                else transformers.Mistral3Config(text_config=text, vision_config=PIXTRAL, tie_word_embeddings=False)
            )
        case "exaone4":
            return transformers.Exaone4Config(**(sliding | shape), sliding_window_pattern=2)
        case "phi3" | "glm" | "glm4":
            kinds = {"phi3": transformers.Phi3Config, "glm": transformers.GlmConfig, "glm4": transformers.Glm4Config}
            part = {"partial_rotary_factor": 2 / 3}
            if family == "phi3":
                del shape["head_dim"]
            return kinds[family](**shape, rope_parameters=rope | part, **part)
        case "apertus":
            rope |= {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
            return transformers.ApertusConfig(**shape, rope_parameters=rope | {"original_max_position_embeddings": 32})
        case "nemotron":
            return transformers.NemotronConfig(**shape, rope_parameters=rope | {"partial_rotary_factor": 2 / 3})
        case _:
            return transformers.CONFIG_MAPPING[family](**shape)


VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
PIXTRAL = VISION | {"model_type": "pixtral"}
"""A vision tower, which no prompt without an image reaches."""


def tiny_module(family: str, seed: int = 0, **changes: Any) -> Any:
    """A random model of the family in double precision; norms, biases and matrices are all drawn."""
    import transformers

    torch.manual_seed(seed)
    module = getattr(transformers, family_of(family).loader).from_config(tiny_config(family, **changes)).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
            else:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def tiny_tokenizer() -> Any:
    """One word, one token; `</s>` ends a response."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<model>"],
    )
    fast.chat_template = TEMPLATE
    return fast


def write_tiny(folder: Path, family: str, **changes: Any) -> Path:
    """A model folder as `save_pretrained` writes it."""
    tiny_module(family, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def slow_but_for(quick: Collection[str], families: Sequence[str]) -> list[Any]:
    """Families for `parametrize`: all but the quick ones are slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in families]
