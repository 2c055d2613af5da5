"""What is measured of weights is kept, and never outlives them."""

from collections.abc import Callable

import pytest
import torch

from ssn_probe.model.precision import computing_in
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.tracing.bodies.local import measure_weights
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.known_weights import MEASURED, known_weights

from .test_effects import module_of

NAMES = {"ffn", "o", "v", "gram", "probes"}


@pytest.fixture
def own(tiny_folder: Callable) -> Subject:
    return load_subject(str(tiny_folder("llama")), dtype="bfloat16")


def is_fresh(subject: Subject) -> bool:
    places = places_of(subject)
    known, wanted = known_weights(subject, places), measure_weights(subject.model, places)
    pairs = [(one[name], other[name]) for one, other in zip(known, wanted, strict=True) for name in NAMES]
    return all(one.dtype == other.dtype and one.equal(other) for one, other in pairs)


def test_weights_are_measured_once(own: Subject) -> None:
    few, every = places_of(own, ["ffn"]), places_of(own)
    first = known_weights(own, few)
    second, third = known_weights(own, every), known_weights(own, every)
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
        assert known_weights(wide, places_of(wide))[0]["ffn"].dtype == torch.float64
        assert is_fresh(own)
        with torch.no_grad():
            module_of(own).model.layers[0].mlp.down_proj.weight.mul_(2)
    assert is_fresh(own)
    assert own in MEASURED
