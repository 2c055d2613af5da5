"""Greedy generation wherever the model is: on a host the checkpoint's own generation config is in force."""

from typing import Any

from ssn_probe.model.subject import Subject
from ssn_probe.model.turn_ends import NEUTRAL, requests
from ssn_probe.tracing.host_facts import host_facts

PLAIN = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "use_cache": True,
    "return_dict_in_generate": False,
    "output_attentions": False,
    "output_hidden_states": False,
}


def greedy_settings(subject: Subject) -> dict[str, Any]:
    """What overrides every request of the checkpoint's generation config, as this machine or the host has read it."""
    there = host_facts(subject).generation if subject.calls is not None else None
    asked = {**dict(requests(there or {})), **subject.turns.overridden}
    return {
        **{name: _neutral(name, value) for name, value in asked.items() if _is_known(name)},
        **PLAIN,
        "eos_token_id": list(subject.eos_ids) or None,
        "pad_token_id": subject.pad_id,
    }


def _neutral(name: str, value: Any) -> Any:
    return NEUTRAL.get(name, False if isinstance(value, bool) else None)


def _is_known(name: str) -> bool:
    """Is it a setting of transformers? It takes others from a checkpoint, does nothing with them, and refuses them."""
    from transformers import GenerationConfig

    return hasattr(GenerationConfig(), name)
