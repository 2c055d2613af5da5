"""Prompts that begin alike run behind one start, and the last layer where it is read: the numbers stay the same."""

from dataclasses import replace

import pytest
import torch

from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject
from ssn_probe.tracing import effects
from ssn_probe.tracing.carried import Carried
from ssn_probe.tracing.edits import amplification, carrying, places_of, suppression
from ssn_probe.tracing.shared_start import shared_start

PROMPTS = [[1, 3, 7, 8, 9, 20, 4], [1, 3, 7, 11, 12, 13, 14, 15, 30, 31, 4], [1, 3, 7, 4]]
WITHIN_WINDOWS = [[1, 3, 7, 8], [1, 3, 9]]
OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (13, 16), (17,)))
DIRECTION = Direction(tuple((torch.arange(24) % 5 - 2).tolist()))
NEURONS = [(layer, site, index) for layer in (0, 1) for site in ("q", "k", "v", "o", "ffn") for index in (0, 3)]
EDITS = [suppression(NEURONS), amplification(NEURONS, 1.5)]


def start_of(subject: Subject, prompts: list[list[int]], added: int = 0) -> list[int]:
    return list(shared_start(subject, prompts, added=added).tokens)


@pytest.fixture(autouse=True)
def always_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.tracing.shared_start.WORTH", 1)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch):
    """Switches both savings off."""

    def switch() -> None:
        monkeypatch.setattr("ssn_probe.tracing.shared_start._shared", lambda *_: 0)
        monkeypatch.setattr(effects, "places_reading_last", places_of)

    return switch


def test_log_odds_and_states_are_those_of_whole_prompts(subject: Subject, whole) -> None:
    assert start_of(subject, WITHIN_WINDOWS) == [1, 3]
    assert start_of(subject, PROMPTS, 2) in ([1, 3, 7], [])  # none where the window is shorter

    def all_of_them() -> list[torch.Tensor]:
        odds = [
            effects.refusal_log_odds(subject, prompts, reads, edits=edits, batch_size=2)
            for prompts, reads in ((PROMPTS, OPENINGS), (PROMPTS, DIRECTION), (WITHIN_WINDOWS, DIRECTION))
            for edits in EDITS
        ]
        return [*odds, *(effects.final_states(subject, prompts) for prompts in (PROMPTS, WITHIN_WINDOWS))]

    shared = all_of_them()
    whole()
    assert start_of(subject, PROMPTS) == []
    for found, wanted in zip(shared, all_of_them(), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)  # what is returned is single precision


def test_what_is_carried_over_stays_at_its_token(subject: Subject, whole) -> None:
    edits = carrying(NEURONS, "another run")
    carried = Carried(values=torch.randn(3, 1, len(NEURONS), dtype=torch.float64), steps=torch.ones(3).long())
    shared = effects.refusal_log_odds(subject, PROMPTS, OPENINGS, edits=edits, carried=carried)
    whole()
    wanted = effects.refusal_log_odds(subject, PROMPTS, OPENINGS, edits=edits, carried=carried)
    torch.testing.assert_close(shared, wanted, atol=1e-6, rtol=1e-6)


def test_a_prompts_last_token_is_never_shared(subject: Subject) -> None:
    assert start_of(subject, [[1, 3], [1, 3], [1, 3, 5]]) == [1]
    assert start_of(subject, [[1, 3]]) == start_of(subject, [[1, 3], [2, 3]]) == start_of(subject, [[1], [1, 2]]) == []


def test_few_tokens_are_not_worth_a_pass(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.tracing.shared_start.WORTH", 7)
    assert start_of(subject, WITHIN_WINDOWS[:1] * 4) == [1, 3, 7]
    assert start_of(subject, WITHIN_WINDOWS[:1] * 3) == []


def test_a_family_of_a_users_own_runs_whole(subject: Subject) -> None:
    assert start_of(replace(subject, family=replace(subject.family, name="mine")), PROMPTS) == []


def test_what_does_not_fit_in_a_sliding_window_runs_whole(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    config = subject.model._module.config.get_text_config()
    monkeypatch.setattr(config, "sliding_window", 12, raising=False)
    monkeypatch.setattr(config, "layer_types", ["sliding_attention"] * subject.n_layers, raising=False)
    assert start_of(subject, PROMPTS, 1) == [1, 3, 7]
    assert start_of(subject, PROMPTS, 2) == []
