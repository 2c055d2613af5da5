"""What a long prompt can exceed, read off config and tokenizer."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import FAMILIES, tiny_config, tiny_tokenizer

from ssn_probe.model.context_length import context_length, limits, silence_reminders, sliding_window


@pytest.mark.parametrize(("rope", "tokens"), [
    ({"rope_type": "default"}, 128),
    ({"rope_type": "linear", "factor": 4.0}, 512),
    ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
    ({"rope_type": "yarn", "factor": 2.0}, 256),
    ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16}, 128),
    (None, 128),
])  # fmt: skip
def test_a_context_is_stretched_as_the_config_says(rope: Any, tokens: int) -> None:
    assert context_length(SimpleNamespace(max_position_embeddings=128, rope_parameters=rope)) == tokens


@pytest.mark.parametrize("stated", [None, 0, -1, "128", True])
def test_a_config_that_states_no_context(stated: Any) -> None:
    assert context_length(SimpleNamespace(max_position_embeddings=stated)) is None
    assert limits(SimpleNamespace(max_position_embeddings=stated), tiny_tokenizer()) == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_sliding_windows(family: str) -> None:
    expected = {"mistral": (4, 2, 2), "gemma2": (4, 1, 2)}
    assert sliding_window(tiny_config(family)) == expected.get(family)


@pytest.mark.parametrize(("stated", "found"), [(100, [128, 100]), (128, [128]), (10**30, [128]), (4096, [128])])
def test_a_tokenizer_may_state_a_lower_limit(stated: int, found: list[int]) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = stated
    assert [limit.tokens for limit in limits(tiny_config("llama"), tokenizer)] == found


def test_reminders_without_a_prompt_are_silent_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 2
    silence_reminders(tokenizer)
    logger, said = logging.getLogger("transformers.generation.stopping_criteria"), []
    # A handler of the logger's own: whether records reach the root's depends on the version.
    monkeypatch.setattr(logger, "handlers", [handler := logging.Handler()])
    monkeypatch.setattr(handler, "emit", lambda record: said.append(record.getMessage()))
    monkeypatch.setattr(logger, "propagate", False)
    tokenizer("w1 w2 w3 w4")
    logger.warning("the call has exceeded the model's predefined maximum length (2)")
    logger.warning("something else")
    assert said == ["something else"]
