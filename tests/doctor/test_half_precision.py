"""The doctor says when half precision, rather than the model, decides which neurons have the largest effects."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ssn_probe.doctor import half_precision
from ssn_probe.doctor.examine import examine_subject
from ssn_probe.doctor.half_precision import check_half_precision
from ssn_probe.model.out_of_memory import OutOfMemory
from ssn_probe.model.subject import Subject, load_subject


@pytest.fixture(scope="module")
def coarse() -> Subject:
    return load_subject("organism", dtype="float16")


def test_the_same_neurons_are_no_reason_to_warn(coarse: Subject) -> None:
    check = check_half_precision(coarse)
    assert check.status == "ok"
    assert re.search(r"the same in float32: \d+% by local effects, \d+% by refusal effects", check.found)


def test_neurons_that_rounding_chooses(coarse: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the organism both dtypes agree, so here the neurons of a layer change places in float32."""
    widened = half_precision.computing_in

    @contextmanager
    def otherwise(subject: Subject, dtype: str) -> Iterator[Subject]:
        with widened(subject, dtype) as wide:
            mlp = wide.model._module.model.layers[1].mlp
            rows = (mlp.up_proj.weight, 0), (mlp.gate_proj.weight, 0), (mlp.down_proj.weight, 1)
            for part, side in rows:
                part.data = part.data.flip(side)
            yield wide
            for part, side in rows:
                part.data = part.data.flip(side)

    monkeypatch.setattr(half_precision, "computing_in", otherwise)
    check = check_half_precision(coarse)
    assert check.status == "warning"
    assert "rounding has chosen" in check.meaning
    assert "-T scoring_dtype=float32" in check.remedy


def test_float32_that_does_not_fit(coarse: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutOfMemory("the memory is full", "use less", 1)

    monkeypatch.setattr(half_precision, "computing_in", full)
    check = check_half_precision(coarse)
    assert (check.status, check.found) == ("warning", "the memory is full")


@pytest.mark.slow
def test_it_is_asked_of_models_in_half_precision(coarse: Subject) -> None:
    assert "half precision" in [check.name for check in examine_subject(coarse)]
