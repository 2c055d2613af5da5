"""The effect by ablation, against silencing one neuron at a time; which neurons are candidates."""

import pytest
import torch

from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES
from ssn_probe.spec import Ablation
from ssn_probe.tracing.ablations import Neuron
from ssn_probe.tracing.edits import suppression
from ssn_probe.tracing.effects import decode, mean, refusal_log_odds, score, score_ablation, score_local
from ssn_probe.tracing.kept_values import highest
from tracing.hosted import Host, hosted

PROMPTS = [[1, 3, 7, 8, 9, 20, 4], [1, 3, 10, 11, 12, 13, 14, 15, 30, 31, 4], [1, 3, 9, 4]]
OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (13, 16), (17,)))
"""Two sequences a prompt."""
CANDIDATES: list[Neuron] = [(layer, site, index) for layer in (0, 1) for site in SITES for index in (0, 5)]


def test_it_is_what_silencing_the_neuron_takes_from_the_log_odds(subject: Subject) -> None:
    found = score_ablation(subject, PROMPTS, OPENINGS, candidates=CANDIDATES)
    untouched = refusal_log_odds(subject, PROMPTS, OPENINGS)
    assert found.log_odds is not None
    assert torch.allclose(found.log_odds, untouched, atol=1e-5)
    for layer, site, index in CANDIDATES:
        silent = refusal_log_odds(subject, PROMPTS, OPENINGS, edits=suppression([(layer, site, index)]))
        effects = decode(found, site)[:, layer]
        error = (effects[:, index] - (untouched - silent)).abs() / effects.abs().amax(-1)
        assert error.max() < 2e-3, (layer, site, index)
    for site in SITES:
        others = torch.ones_like(decode(found, site), dtype=torch.bool)
        others[:, :, [0, 5]] = False
        assert not decode(found, site)[others].any()
        assert decode(found, site)[~others].any()


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_how_many_run_together_changes_nothing(llama: Subject, batch_size: int) -> None:
    wanted = score_ablation(llama, PROMPTS, OPENINGS, candidates=CANDIDATES, batch_size=64)
    found = score_ablation(llama, PROMPTS, OPENINGS, candidates=CANDIDATES, batch_size=batch_size)
    for site in SITES:
        assert torch.allclose(decode(found, site), decode(wanted, site), atol=1e-5)


@pytest.mark.parametrize("sandbox", [False, True])
def test_a_host_gives_the_same_for_one_job_a_batch(llama: Subject, sandbox: bool) -> None:
    there = hosted(llama, sandbox=sandbox)
    wanted = score_ablation(llama, PROMPTS, OPENINGS, candidates=CANDIDATES)
    found = score_ablation(there, PROMPTS, OPENINGS, candidates=CANDIDATES, batch_size=200)
    for site in SITES:
        assert torch.allclose(decode(found, site), decode(wanted, site), atol=1e-5)
    assert isinstance(there.calls, Host)
    assert [body for body, _, _ in there.calls.jobs] == ["ablated_log_odds"]


def test_without_a_study_candidates_are_chosen_on_the_prompts_given(llama: Subject) -> None:
    local = score_local(llama, PROMPTS)
    candidates = highest({site: mean(local, site) for site in SITES}, 0.05)
    counts = {site: -(-llama.widths[site] // 20) for site in SITES}  # a twentieth, rounded up
    assert len(candidates) == llama.n_layers * sum(counts.values())
    wanted = score_ablation(llama, PROMPTS, OPENINGS, candidates=candidates)
    found = score(Ablation(), llama, PROMPTS, reads=OPENINGS)
    assert all(torch.equal(found.values[site], wanted.values[site]) for site in SITES)


def test_the_highest_are_in_forward_order_and_never_zero() -> None:
    means = {"ffn": [[0.0, 3.0, 3.0, 9.0]], "q": [[0.0, 0.0]]}
    assert highest(means, 0.5) == [(0, "ffn", 1), (0, "ffn", 3)]
    assert highest(means, 1.0) == [(0, "ffn", index) for index in (1, 2, 3)]
    both = {"ffn": [[1.0], [1.0]], "q": [[1.0], [1.0]]}
    assert highest(both, 0.01) == [(0, "q", 0), (0, "ffn", 0), (1, "q", 0), (1, "ffn", 0)]
