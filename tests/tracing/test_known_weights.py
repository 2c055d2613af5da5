"""What is measured of weights is kept, and never outlives them."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from ssn_probe.model.messages import on_device, packed
from ssn_probe.model.precision import computing_in
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.tracing.bodies import local
from ssn_probe.tracing.bodies.local import measure_weights
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.effects import score_local
from ssn_probe.tracing.known_weights import known_weights
from ssn_probe.tracing.measured_weights import MEASURED, Measured, measured

from .test_effects import module_of

NAMES = {"ffn", "o", "v", "gram", "probes"}
A_COMMAND = """
import atexit, gc
from ssn_probe.model.subject import load_subject
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.measured_weights import measured

atexit.register(gc.freeze)  # as the command line does
def command():
    subject = load_subject("organism")
    measured(subject, places_of(subject))

command()
"""
"""Imports torch after this package's modules, which Python then clears after it."""


@pytest.fixture
def own(tiny_folder: Callable) -> Subject:
    return load_subject(str(tiny_folder("llama")), dtype="bfloat16")


def is_fresh(subject: Subject) -> bool:
    places = places_of(subject)
    known, wanted = measured(subject, places), measure_weights(subject.model, places)
    pairs = [(one[name], other[name]) for one, other in zip(known, wanted, strict=True) for name in NAMES]
    return all(one.dtype == other.dtype and one.equal(other) for one, other in pairs)


def test_weights_are_measured_once(own: Subject) -> None:
    few, every = places_of(own, ["ffn"]), places_of(own)
    first = measured(own, few)
    second, third = measured(own, every), measured(own, every)
    assert set(first[0]) == {"ffn"}
    assert set(second[0]) == NAMES
    assert first[1]["ffn"] is second[1]["ffn"] is third[1]["ffn"]
    assert second[0]["gram"] is third[0]["gram"]


@pytest.mark.parametrize("path", ["layers.1.mlp.down_proj", "layers.0.self_attn.o_proj"])
def test_changed_weights_are_measured_again(own: Subject, path: str) -> None:
    weight = module_of(own).model.get_submodule(path).weight
    assert is_fresh(own)
    with torch.no_grad():
        weight[0, 0] += 1
    assert is_fresh(own)
    for _ in range(4):  # the memory of one may become that of another
        weight.data = weight.data * 2
        assert is_fresh(own)


def test_widened_weights_have_measures_of_their_own(own: Subject) -> None:
    assert is_fresh(own)
    with computing_in(own, "float64") as wide:
        assert is_fresh(wide)
        assert measured(wide, places_of(wide))[0]["ffn"].dtype == torch.float64
        assert is_fresh(own)
        with torch.no_grad():
            module_of(own).model.layers[0].mlp.down_proj.weight.mul_(2)
    assert is_fresh(own)
    assert own in MEASURED


def test_batches_and_measurements_share_what_was_measured(own: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    new: list[int] = []
    measure = local.measure

    def noted(layer: Any, places: Any, known: Any, *wanted: Any) -> Any:
        found = measure(layer, places, known, *wanted)
        new.append(len(found) - len(known))
        return found

    monkeypatch.setattr(local, "measure", noted)
    for _ in range(2):
        score_local(own, [[1, 2, 3], [4, 5], [6, 7]], batch_size=1)
    assert len(new) > 8
    assert sorted(new, reverse=True)[: own.n_layers] == new[: own.n_layers] == [len(NAMES)] * own.n_layers
    assert not any(new[own.n_layers :])


def test_each_process_measures_for_itself(own: Subject) -> None:
    """A worker has the same weights, whose Gram matrices need not travel with every batch."""
    places = places_of(own)
    shared = replace(own, workers=cast("Any", object()))
    given = known_weights(shared, places)
    assert pickle.loads(packed(on_device((given,), "cpu"))) == (Measured(places),)


def test_a_process_that_measured_ends_in_silence() -> None:
    done = subprocess.run([sys.executable, "-c", A_COMMAND], capture_output=True, text=True, check=True)
    assert "StorageWeakRef" not in done.stderr
