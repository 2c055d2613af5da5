"""Shapes and types of expand are checked as its tests run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook
from tiny import FAMILIES, tiny_module

CHECKED = (
    "training.weights.delta",
    "training.weights.adapter",
    "training.weights.lora",
    "training.weights.trainable",
    "training.weights.neuron_weights",
    "training.loop.loss",
    "training.loop.training_steps",
    "training.loop.processes",
    "training.delta_file.file",
    "training.delta_file.comparison",
    "training.export.merging",
    "model.digests",
)

with install_import_hook([f"ssn_probe.{name}" for name in CHECKED], "beartype.beartype"):
    import ssn_probe.training.delta_file.comparison  # noqa: F401
    import ssn_probe.training.export.merging  # noqa: F401
    import ssn_probe.training.loop.train  # noqa: F401


@pytest.fixture(params=FAMILIES)
def double(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """A tiny model of every family in turn, in double precision; Gemma-2's softmax as in the fixture `subject`."""
    if request.param == "gemma2":
        softmax = torch.nn.functional.softmax
        monkeypatch.setattr(torch.nn.functional, "softmax", lambda scores, dim=-1, dtype=None: softmax(scores, dim=dim))
        return tiny_module("gemma2", attn_implementation="eager")
    return tiny_module(request.param)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[[str], Path]) -> None:
    """A folder with all that a command takes; lines are not wrapped."""
    from delta_command_case import prepare

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    prepare(tmp_path, tiny_folder("llama"))
