"""Edits are sorted, checked, and act on exactly the neurons they name."""

import nnsight
import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.tracing.bodies.site_access import write
from ssn_probe.tracing.edits import NO_EDITS, Edits, amplification, carrying, places_of, prepared, suppression

from . import plain
from .test_effects import PROMPTS, module_of


def logits(subject: Subject, edits: Edits) -> torch.Tensor:
    inputs = pad_left(PROMPTS, subject.pad_id, subject.device)
    places, ready = places_of(subject), prepared(subject, edits)
    with torch.no_grad(), subject.model.trace(**inputs):
        write(subject.model, places, ready)
        found = nnsight.save(subject.model.output.logits)
    return found  # noqa: RET504 (the name is bound when the trace has run)


def test_suppression_is_sorted_in_forward_order_without_repeats() -> None:
    neurons = [(1, "q", 3), (0, "ffn", 2), (0, "q", 5), (0, "q", 1), (0, "q", 5)]
    assert suppression(neurons) == (
        (0, "q", (1, 5), ("set", 0.0)),
        (0, "ffn", (2,), ("set", 0.0)),
        (1, "q", (3,), ("set", 0.0)),
    )
    assert suppression([]) == NO_EDITS


def test_edits_name_what_they_do() -> None:
    assert amplification([(1, "q", 3)], 2.0) == ((1, "q", (3,), ("scale", 2.0)),)
    assert carrying([(1, "q", 3)], "qaa, last") == ((1, "q", (3,), ("carry", "qaa, last")),)


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("site", SITES)
def test_edits_equal_scaled_weights_in_every_logit(subject: Subject, site: Site, factor: float) -> None:
    """Also where a norm on the head follows q and k (Qwen3): it sees the same activations either way."""
    neurons = [(layer, site, index) for layer in range(2) for index in (0, 5)]
    module = module_of(subject)
    found = logits(subject, amplification(neurons, factor) if factor else suppression(neurons))
    with plain.weights_scaled(module, neurons, factor), torch.no_grad():
        for row, prompt in enumerate(PROMPTS):
            wanted = module(torch.tensor([prompt])).logits[0]
            assert torch.allclose(found[row, -len(prompt) :], wanted, atol=1e-5)
    assert not torch.allclose(found, logits(subject, NO_EDITS), atol=1e-4)


@pytest.mark.parametrize(
    ("neuron", "problem"),
    [
        ((2, "q", 0), "layer 2"),
        ((-1, "q", 0), "layer -1"),
        ((0, "k", 12), "neuron 12 at site k"),
        ((0, "ffn", -1), "neuron -1 at site ffn"),
        ((0, "mlp", 1), "no site 'mlp'"),
    ],
)
def test_a_neuron_that_does_not_exist_is_named(llama: Subject, neuron: tuple[int, str, int], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        prepared(llama, suppression([neuron, (0, "q", 1)]))
