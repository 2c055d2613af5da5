"""What a config decides about the numbers of a model besides its weights: two models of the same weights may differ."""

from collections.abc import Iterator, Mapping
from typing import Any

from ssn_probe.model.text_config import text_config

SETTINGS = (
    "hidden_act",
    "hidden_activation",
    "rms_norm_eps",
    "rope_parameters",
    "sliding_window",
    "layer_types",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "num_attention_heads",
    "num_key_value_heads",
    "layer_norm_eps",  # Cohere's and Nemotron's names for rms_norm_eps
    "norm_eps",
    "logit_scale",
    "logits_scaling",  # Granite's four
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    "no_rope_layers",
    "use_bidirectional_attention",
)


def computation(config: Any) -> dict[str, Any]:
    """The settings of a config that change what its weights compute, as JSON; those that it does not have are left out.

    Rotary parameters stand one by one, since versions of transformers add some to them.
    """
    text = text_config(config)
    found = {name: getattr(text, name) for name in SETTINGS if hasattr(text, name)}
    return dict(_flat(found))


def first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """The name of the first setting that both state, and state differently; None where there is none."""
    return next((name for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]), None)


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", list(value) if isinstance(value, tuple) else value
