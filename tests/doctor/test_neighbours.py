"""A prompt's numbers depend neither on its batch nor on what ran before; where they do, the doctor says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssn_probe.doctor.loaded_model import describe_subject
from ssn_probe.doctor.neighbours import check_neighbours
from ssn_probe.model.subject import Subject, load_subject


@pytest.fixture
def own(tiny_folder: Callable[[str], Path]) -> Callable[[str], Subject]:
    """A tiny model that a test may spoil."""
    return lambda family: load_subject(str(tiny_folder(family)))


def test_lengths_cross_a_sliding_window(own: Callable[[str], Subject]) -> None:
    subject, widths = own("mistral"), set()
    subject.model._module.model.register_forward_pre_hook(
        lambda _module, _inputs, named: widths.add(named["input_ids"].shape[1]), with_kwargs=True
    )
    assert check_neighbours(subject).status == "ok"
    assert {2, 5, 6} <= widths
    assert "sliding window of 4 tokens" in describe_subject(subject).found


def leaking(_module: Any, _inputs: Any, output: Any) -> Any:
    return output - 0.1 * output.mean((0, 1))


def test_a_neighbour_that_reaches_the_computation(own: Callable[[str], Subject]) -> None:
    subject = own("llama")
    subject.model._module.model.layers[0].register_forward_hook(leaking)
    found = check_neighbours(subject)
    assert found.status == "failed"
    assert "beside" in found.found


def test_frequencies_that_stay_stretched_after_a_longer_prompt(own: Callable[[str], Subject]) -> None:
    subject = own("llama")
    rotary = subject.model._module.model.rotary_emb

    def stretch(_module: Any, inputs: Any, named: Any) -> None:
        if int(named.get("position_ids", inputs[-1]).max()) > 20:
            rotary.inv_freq = rotary.inv_freq * 0.9

    rotary.register_forward_pre_hook(stretch, with_kwargs=True)
    found = check_neighbours(subject)
    assert found.status == "failed"
    assert "longer one (9 and 33 tokens)" in found.found


def test_a_buffer_that_moves_without_changing_a_number(own: Callable[[str], Subject]) -> None:
    module = own("llama")
    layer = module.model._module.model.layers[0]
    layer.register_buffer("passes", torch.zeros(()), persistent=False)
    layer.register_forward_hook(lambda *_: layer.passes.add_(1) and None)
    found = check_neighbours(module)
    assert found.status == "warning"
    assert "changes the buffer model.layers.0.passes" in found.found
