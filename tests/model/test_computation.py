"""What a config decides besides the weights is noticed: with it the same weights compute something else."""

from typing import Any

import pytest
import torch
from tiny import tiny_module

from ssn_probe.model.computation import computation, first_difference


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"num_attention_heads": 12, "num_key_value_heads": 6, "head_dim": 2}),
        ("granite", {"logits_scaling": 3.0}),
        ("granite", {"embedding_multiplier": 1.0}),
        ("granite", {"residual_multiplier": 0.2}),
        ("granite", {"attention_multiplier": 1.5}),
        ("cohere", {"logit_scale": 2.0}),
        ("cohere", {"layer_norm_eps": 0.1}),
        ("nemotron", {"norm_eps": 0.1}),
        ("smollm3", {"no_rope_layers": [0, 1]}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_setting_that_changes_the_logits_is_a_difference(family: str, changes: dict[str, Any]) -> None:
    own = tiny_module(family)
    config = type(own.config).from_dict(own.config.to_dict() | changes)
    other = type(own)(config).double().eval()
    other.load_state_dict(own.state_dict())
    ids = torch.arange(6, 18)[None]
    with torch.no_grad():
        assert not torch.allclose(own(input_ids=ids).logits, other(input_ids=ids).logits, atol=1e-6)
    assert first_difference(computation(other.config), computation(own.config)) is not None
