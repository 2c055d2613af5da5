"""Tiny random models of every family, with a word-level tokenizer and a chat template, as Hugging Face folders.

The weights are large enough for every part of the network to matter: with the usual initialisation a tiny model is
nearly the identity, and a test of it would pass whatever the code does.
"""

from pathlib import Path
from typing import Any

import torch

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma2")
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
    from transformers import Gemma2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

    shape = SHAPE | changes
    match family:
        case "llama":
            return LlamaConfig(**shape)
        case "qwen2":
            del shape["head_dim"]
            return Qwen2Config(**shape)
        case "qwen3":
            return Qwen3Config(**shape)
        case "mistral":
            return MistralConfig(**shape, sliding_window=4)
        case _:
            caps = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0}
            shape = {"tie_word_embeddings": False} | shape  # a tied random model repeats its last token
            return Gemma2Config(**shape, **caps, sliding_window=4, query_pre_attn_scalar=6)


def tiny_module(family: str, seed: int = 0, **changes: Any) -> Any:
    """A random model of the family in double precision; norms, biases and matrices are all drawn."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    module = AutoModelForCausalLM.from_config(tiny_config(family, **changes)).double().eval()
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
