"""Shapes and types of expand are checked as its tests run."""

import pytest
import torch
from jaxtyping import install_import_hook
from tiny import FAMILIES, tiny_module

CHECKED = (
    "delta",
    "adapter",
    "lora",
    "trainable",
    "places",
    "loss",
    "merge",
    "file",
    "diff",
    "digest",
    "steps",
    "team",
)

with install_import_hook([f"ssn_probe.expand.{name}" for name in CHECKED], "beartype.beartype"):
    import ssn_probe.expand.diff
    import ssn_probe.expand.merge
    import ssn_probe.expand.train  # noqa: F401


@pytest.fixture(params=FAMILIES)
def double(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """A tiny model of every family in turn, in double precision; Gemma-2's softmax as in the fixture `subject`."""
    if request.param == "gemma2":
        softmax = torch.nn.functional.softmax
        monkeypatch.setattr(torch.nn.functional, "softmax", lambda scores, dim=-1, dtype=None: softmax(scores, dim=dim))
        return tiny_module("gemma2", attn_implementation="eager")
    return tiny_module(request.param)
