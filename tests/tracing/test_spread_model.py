"""A model whose layers are on several devices measures what a whole one does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model import loading
from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.ranks import check_whole
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.tracing.bodies.local import trace_local_effects
from ssn_probe.tracing.bodies.refusal import trace_log_odds, trace_refusal_effects
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.execution import run_body
from ssn_probe.tracing.generate import greedy_tokens
from ssn_probe.tracing.known_weights import known_weights

ENDS = ("model.embed_tokens", "model.rotary_emb", "lm_head")
"""Tied weights stay together."""
TOKENS = [[5, 6, 7, 8, 9, 10, 11], [20, 21, 22]]
SCORING = {"sequences": 1, "row": [0, 0], "position": [0, 0], "token": [3, 40]} | {
    "opening": [0, 1],
    "refusal": 1,
    "openings": 2,
}


def spread(first: Any, second: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """The organism with every other layer, and the last norm, elsewhere."""
    devices = dict.fromkeys(ENDS, first) | {"model.norm": second}
    devices |= {f"model.layers.{layer}": second if layer % 2 else first for layer in range(4)}
    told = {"device_map": devices, "offload_folder": str(folder)}
    monkeypatch.setattr(loading, "spread_over", lambda: told)
    return load_subject("organism", device="balanced")


def measured(subject: Subject) -> dict[str, Any]:
    places, inputs = places_of(subject), whole_inputs(subject, TOKENS)
    edits = [(layer, "ffn", torch.tensor([1, 300]), "set", torch.tensor([0.3, 0.4])) for layer in range(4)]
    refusal, odds = run_body(subject, trace_refusal_effects, inputs, places, SCORING, 0.5, 0.05)
    return {
        "local": run_body(subject, trace_local_effects, inputs, places, known_weights(subject, places), "mean"),
        "refusal": refusal,
        "odds": odds,
        "edited": run_body(subject, trace_log_odds, inputs, places, edits, SCORING),
    }


def flat(found: Any) -> list[torch.Tensor]:
    parts = found.values() if isinstance(found, dict) else found
    return [found.cpu()] if isinstance(found, torch.Tensor) else [tensor for part in parts for tensor in flat(part)]


def compare(subject: Subject) -> None:
    whole = load_subject("organism", device="cpu")
    assert subject.identity == whole.identity
    for one, two in zip(flat(measured(whole)), flat(measured(subject)), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-5)
    assert greedy_tokens(subject, TOKENS, max_new_tokens=4) == greedy_tokens(whole, TOKENS, max_new_tokens=4)


@pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")
def test_layers_that_stay_on_the_disk_until_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = spread("cpu", "disk", tmp_path, monkeypatch)
    assert (subject.device, subject.place) == ("cpu", "cpu, disk")
    compare(subject)
    with pytest.raises(ModelError, match="needs the whole model on one device"):
        check_whole(subject, "Training")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_layers_on_two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = spread(0, 1, tmp_path, monkeypatch)
    assert (subject.device, subject.place) == ("cuda:0", "cuda:0, cuda:1")
    compare(subject)


def test_where_there_is_one_device_the_model_is_whole() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU beside the processor")
    assert load_subject("organism", device="balanced").place == "cpu"
