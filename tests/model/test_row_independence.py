"""A prompt's logits depend neither on its neighbours nor on what ran before: refused where known, measured else."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import write_tiny

from ssn_probe.errors import ModelError
from ssn_probe.model.loading import read_config
from ssn_probe.model.rotation import check_rotation
from ssn_probe.model.row_independence import check_rows_independent
from ssn_probe.model.subject import Subject, load_subject

SHORT, LONG = [1.0, 1.0, 1.0], [1.0, 2.0, 4.0]
LONGROPE = {"short_factor": SHORT, "long_factor": LONG, "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.fixture
def own(tiny_folder: Callable[[str], Path]) -> Subject:
    """A tiny Llama that a test may spoil."""
    return load_subject(str(tiny_folder("llama")))


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("kind_key", ["rope_type", "type"])
@pytest.mark.parametrize(("kind", "more", "words"), [
    ("dynamic", {"factor": 4.0}, "more than 128 tokens, set rope_type to default"),
    ("longrope", LONGROPE, "more than 32 tokens, set long_factor to the values of short_factor"),
])  # fmt: skip
def test_frequencies_that_follow_the_longest_row_are_refused(
    tmp_path: Path, key: str, kind_key: str, kind: str, more: dict[str, Any], words: str
) -> None:
    write_tiny(tmp_path, "llama")
    file = tmp_path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("rope_parameters")
    file.write_text(json.dumps(config | {key: {kind_key: kind} | more, "rope_theta": 10000.0}), encoding="utf-8")
    with pytest.raises(ModelError, match=f"rope_type {kind}") as caught:
        read_config(str(tmp_path))
    assert words in str(caught.value.hint)
    for weights in (True, False):
        with pytest.raises(ModelError, match="depend on its neighbours"):
            load_subject(str(tmp_path), weights=weights)


def test_one_type_of_layer_is_enough_to_be_refused() -> None:
    layers = {"full_attention": {"rope_type": "dynamic", "factor": 2.0}, "sliding_attention": {"rope_type": "default"}}
    config = SimpleNamespace(rope_parameters=layers, max_position_embeddings=64)
    with pytest.raises(ModelError, match=r"rope_parameters\.full_attention"):
        check_rotation(config)


@pytest.mark.parametrize("rope", [
    None,
    {"rope_type": "default", "rope_theta": 1e4},
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "yarn", "factor": 2.0},
    {"rope_type": "longrope"} | LONGROPE | {"long_factor": SHORT},
])  # fmt: skip
def test_frequencies_that_are_the_same_for_every_length_are_not(rope: Any) -> None:
    check_rotation(SimpleNamespace(rope_parameters=rope, max_position_embeddings=64))


def test_every_family_is_independent(subject: Subject) -> None:
    check_rows_independent(subject)


def batch_mean(_module: Any, _inputs: Any, output: Any) -> Any:
    return output - 0.1 * output.mean((0, 1))


def remembering() -> Any:
    seen = [torch.zeros(())]

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        seen[0] = torch.maximum(seen[0], torch.tensor(float(output.shape[1])))
        return output * (1 + 0.01 * seen[0])

    return hook


@pytest.mark.parametrize(("hook", "how"), [(batch_mean, "beside"), (remembering(), "beside")])
def test_a_model_that_mixes_rows_or_remembers_them_is_refused(own: Subject, hook: Any, how: str) -> None:
    own.model._module.get_submodule("model.layers.0").register_forward_hook(hook)
    with pytest.raises(ModelError, match=f"{how} a longer one than for the same prompt alone"):
        check_rows_independent(own)


def test_what_a_longer_prompt_leaves_behind_is_found(own: Subject) -> None:
    seen = [0]

    def after(_module: Any, _inputs: Any, output: Any) -> Any:
        seen[0], scale = seen[0] + 1, 1.0 if seen[0] < 2 else 1.1
        return output * scale

    own.model._module.get_submodule("model.layers.0").register_forward_hook(after)
    with pytest.raises(ModelError, match="after a longer one than for the same prompt alone"):
        check_rows_independent(own)


def test_a_module_in_training_mode_is_refused(own: Subject) -> None:
    own.model._module.get_submodule("model.layers.1.self_attn").train()
    with pytest.raises(ModelError, match=r"model\.layers\.1\.self_attn' is in training mode"):
        check_rows_independent(own)
