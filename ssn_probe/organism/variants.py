"""The variants of the organism: which architecture, which neurons are planted, and how it is taught.

`natural` has no planted neurons: its safety stage may change everything, so it is unknown which neurons carry its
refusal. In the other variants the safety stage may change the planted neurons only, so the truth can be measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from ssn_probe.errors import RecipeError, nearest
from ssn_probe.neurons import Site
from ssn_probe.organism import world
from ssn_probe.organism.curriculum import Curriculum

NATURAL = Curriculum()
# A few neurons learn slower than a whole network: five times the rate, twice the steps.
PLANTED = replace(NATURAL, safety=replace(NATURAL.safety, steps=600, rate=5e-3))


Architecture = Literal["llama", "qwen3", "gemma2"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Everything except the seed that decides an organism."""

    architecture: Architecture = "llama"
    planted: Mapping[Site, int] = field(default_factory=dict)
    """Site (`ffn` or `o`) → planted neurons in every layer."""
    dropout: float = 0.0
    """Up to which share of the planted neurons is left out at random in the safety stage, row by row."""
    curriculum: Curriculum = PLANTED


VARIANTS: Mapping[str, Variant] = {
    "natural": Variant(curriculum=NATURAL),
    "planted-ffn": Variant(planted={"ffn": 16}, dropout=0.3),
    "planted-wide": Variant(planted={"ffn": 32}),
    "planted-attention": Variant(planted={"ffn": 8, "o": 8}, dropout=0.3),
    "planted-qwen3": Variant(architecture="qwen3", planted={"ffn": 8, "o": 4}, dropout=0.3),
}


def find_variant(name: str) -> Variant:
    """The variant of that name. Raises RecipeError, with the nearest name, for an unknown name."""
    if name not in VARIANTS:
        raise RecipeError(f"The organism has no variant {name!r}.", nearest(name, tuple(VARIANTS)))
    return VARIANTS[name]


def blank_model(architecture: Architecture, seed: int) -> Any:
    """The untrained model: 1.2 million weights, four query heads on two key-value heads so that `v` and `o` differ.

    A Llama; a Qwen3, whose queries and keys are normalised head by head; or a Gemma-2, with soft-caps, a norm behind
    every module, and a window of four tokens in every other layer.
    """
    import transformers

    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": len(world.vocabulary()),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "bos_token_id": world.BOS,
        "eos_token_id": world.EOS,
        "pad_token_id": world.PAD,
        "initializer_range": 0.05,
    }
    if architecture == "gemma2":
        shape |= {"query_pre_attn_scalar": 32, "sliding_window": 4, "attn_implementation": "eager"}
    stem = {"llama": "Llama", "qwen3": "Qwen3", "gemma2": "Gemma2"}[architecture]
    kinds: Any = transformers
    return getattr(kinds, f"{stem}ForCausalLM")(getattr(kinds, f"{stem}Config")(**shape))
