"""Exact ablations that begin at the neuron's layer, against silencing one neuron in a whole pass."""

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing.ablations import Neuron
from ssn_probe.tracing.edits import suppression
from ssn_probe.tracing.effects import final_states, refusal_log_odds
from ssn_probe.tracing.exact_effects import exact_effects
from tracing.hosted import hosted

PROMPTS = [[1, 3, 7, 8, 9, 20, 4], [1, 3, 10, 11, 12, 13, 14, 15, 30, 31, 4], [1]]
OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (13, 16), (17,)))
"""Two sequences a prompt."""
NEURONS: list[Neuron] = [(layer, site, index) for layer in (1, 0) for site in SITES[::-1] for index in (5, 0)]


def test_the_log_odds_lose_what_silencing_the_neuron_takes(subject: Subject) -> None:
    found = exact_effects(subject, PROMPTS, NEURONS, OPENINGS)
    untouched = refusal_log_odds(subject, PROMPTS, OPENINGS)
    for column, neuron in enumerate(NEURONS):
        silent = refusal_log_odds(subject, PROMPTS, OPENINGS, edits=suppression([neuron]))
        assert torch.allclose(found[:, column].float(), untouched - silent, atol=2e-5), neuron
    assert (found.abs().amax(0) > 1e-4).double().mean() > 0.8


def test_resumed_passes_equal_whole_ones(subject: Subject) -> None:
    wanted = exact_effects(subject, PROMPTS, NEURONS, resumed=False)
    found = exact_effects(subject, PROMPTS, NEURONS)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.max()))
    assert (wanted.amax(0) > 1e-4).double().mean() > 0.8


def test_along_a_direction(llama: Subject) -> None:
    direction = Direction(vector=tuple(float(number % 5 - 2) for number in range(24)))
    found = exact_effects(llama, PROMPTS, NEURONS, direction)
    untouched = final_states(llama, PROMPTS) @ torch.tensor(direction.vector)
    read = refusal_log_odds(llama, PROMPTS, direction)
    assert torch.allclose(read, untouched, atol=1e-4)
    silent = refusal_log_odds(llama, PROMPTS, direction, edits=suppression([NEURONS[3]]))
    assert torch.allclose(found[:, 3].float(), read - silent, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 200])
def test_how_many_run_together_changes_nothing(llama: Subject, batch_size: int) -> None:
    wanted = exact_effects(llama, PROMPTS, NEURONS)
    found = exact_effects(llama, PROMPTS[::-1], NEURONS, batch_size=batch_size)
    assert torch.allclose(found.flip(0), wanted, atol=1e-5)


@pytest.mark.parametrize("sandbox", [False, True])
@pytest.mark.parametrize("read", [None, OPENINGS])
def test_a_host_runs_whole_passes(llama: Subject, sandbox: bool, read: Openings | None) -> None:
    found = exact_effects(hosted(llama, sandbox=sandbox), PROMPTS, NEURONS, read)
    assert torch.allclose(found, exact_effects(llama, PROMPTS, NEURONS, read), atol=1e-5)


def test_no_neurons_and_unknown_ones(llama: Subject) -> None:
    assert exact_effects(llama, PROMPTS, []).shape == (3, 0)
    with pytest.raises(ModelError, match="no neuron 999 at site ffn of layer 0"):
        exact_effects(llama, PROMPTS, [(0, "ffn", 999)])
