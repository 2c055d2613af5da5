"""Prompts that begin alike run behind one start, and the last layer where it is read: the numbers stay the same."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import EVERY_FAMILY, slow_but_for

from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject
from ssn_probe.model.turn_ends import End, Turns
from ssn_probe.neurons import SITES, Site
from ssn_probe.tracing import effects, generate
from ssn_probe.tracing.batching import Memory
from ssn_probe.tracing.bodies import stepwise
from ssn_probe.tracing.carried import Carried
from ssn_probe.tracing.divergence import Reading, read_texts
from ssn_probe.tracing.edits import Edits, amplification, carrying, places_of, suppression
from ssn_probe.tracing.shared_start import shared_length, shared_start
from ssn_probe.tracing.texts import Text

PROMPTS = [[1, 3, 7, 8, 9, 20, 4], [1, 3, 7, 11, 12, 13, 14, 15, 30, 31, 4], [1, 3, 7, 4]]
WITHIN_WINDOWS = [[1, 3, 7, 8], [1, 3, 9]]
SEVERAL = [[1, 3, 9, 11, 4], [1, 3, 7, 12, 13, 4], [1, 3, 9, 4], [1, 3, 7, 14, 4], [1, 3, 7, 4]]
"""Two beginnings of three tokens."""
OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (13, 16), (17,)))
DIRECTION = Direction(tuple((torch.arange(24) % 5 - 2).tolist()))
NEURONS = [(layer, site, index) for layer in (0, 1) for site in ("q", "k", "v", "o", "ffn") for index in (0, 3)]
EDITS = [suppression(NEURONS), amplification(NEURONS, 1.5)]
FAMILIES = ("llama", "gemma2", "cohere2", "phi3")
"""Grouped heads; windows, caps and norms behind; layers without a rotation; joined projections. Others are slow."""
every_family = pytest.mark.parametrize("subject", slow_but_for(FAMILIES, EVERY_FAMILY), indirect=True)


def start_of(subject: Subject, prompts: list[list[int]], added: int = 0) -> list[int]:
    return prompts[0][: shared_start(subject, prompts, 64, added=added).length]


@pytest.fixture(autouse=True)
def always_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.tracing.shared_start.WORTH", 1)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch):
    """Switches both savings off; transformers generates then."""

    def switch() -> None:
        monkeypatch.setattr("ssn_probe.tracing.shared_start.shared_length", lambda *_: 0)
        monkeypatch.setattr(effects, "places_reading_last", places_of)
        monkeypatch.setattr(generate, "places_reading_last", places_of)

    return switch


@every_family
def test_log_odds_and_states_are_those_of_whole_prompts(subject: Subject, whole) -> None:
    assert start_of(subject, WITHIN_WINDOWS) == [1, 3]
    assert start_of(subject, PROMPTS, 2) in ([1, 3, 7], [])  # none where the window is shorter

    def all_of_them() -> list[torch.Tensor]:
        odds = [
            effects.refusal_log_odds(subject, prompts, reads, edits=edits, batch_size=2)
            for prompts, reads in ((PROMPTS, OPENINGS), (SEVERAL, DIRECTION), (WITHIN_WINDOWS, DIRECTION))
            for edits in EDITS
        ]
        return [*odds, *(effects.final_states(subject, prompts) for prompts in (PROMPTS, SEVERAL, WITHIN_WINDOWS))]

    shared = all_of_them()
    whole()
    assert start_of(subject, PROMPTS) == []
    for found, wanted in zip(shared, all_of_them(), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)  # what is returned is single precision


@every_family
def test_what_is_carried_over_stays_at_its_token(subject: Subject, whole) -> None:
    edits = carrying(NEURONS, "another run")
    carried = Carried(values=torch.randn(3, 1, len(NEURONS), dtype=torch.float64), steps=torch.ones(3).long())
    shared = effects.refusal_log_odds(subject, PROMPTS, OPENINGS, edits=edits, carried=carried)
    whole()
    wanted = effects.refusal_log_odds(subject, PROMPTS, OPENINGS, edits=edits, carried=carried)
    torch.testing.assert_close(shared, wanted, atol=1e-6, rtol=1e-6)


@every_family
def test_a_prompts_last_token_is_never_shared(subject: Subject) -> None:
    assert start_of(subject, [[1, 3], [1, 3], [1, 3, 5]]) == [1]
    assert start_of(subject, [[1, 3]]) == start_of(subject, [[1, 3], [2, 3]]) == start_of(subject, [[1], [1, 2]]) == []


def changed(subject: Subject) -> list[tuple[Edits, Carried | None]]:
    """Every way to change neurons, with two steps of another run where that gives the values."""
    values = torch.randn(5, 2, len(NEURONS), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means: dict[Site, torch.Tensor] = {
        site: torch.full((subject.n_layers, subject.widths[site]), 0.3) for site in SITES
    }
    given = Carried(values=values, steps=torch.tensor([2, 1, 2, 0, 2]))
    return [*((edits, None) for edits in (*EDITS, suppression(NEURONS, means))), (carrying(NEURONS, "other"), given)]


@every_family
def test_responses_and_their_log_odds_are_those_of_whole_prompts(subject: Subject, whole) -> None:
    def all_of_them() -> list:
        found = []
        for edits, carried in changed(subject):
            kept = Memory()
            found += generate.greedy_tokens(
                subject,
                SEVERAL,
                edits=edits,
                carried=carried,
                max_new_tokens=3,
                batch_size=4,
                readings=[(DIRECTION, kept)],
            )
            found += [part.get("log_odds") for part in kept.parts()]
        return found

    assert shared_start(subject, SEVERAL, 4, added=3).length in (2, 0)  # none where a window cuts them
    shared = all_of_them()
    whole()
    torch.testing.assert_close(shared, all_of_them(), atol=1e-6, rtol=1e-6)


def ending_with(subject: Subject, ends: set[int]) -> Subject:
    turns = Turns(ends=tuple(End(id=one, text="", sources=()) for one in sorted(ends)), pad_id=subject.pad_id)
    return replace(subject, turns=turns)


@every_family
def test_rows_that_end_leave_the_batch(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends some of them is what others said first; the rest goes on with its own neurons and values."""
    left: list[int] = []
    expected: list[bool] = []

    def counted(run: Any) -> Any:
        return lambda *given: (left.append(len(given[1]["input_ids"])), run(*given))[1]

    for name in ("begin", "plain_step", "changed_step"):
        monkeypatch.setattr(stepwise, name, counted(getattr(stepwise, name)))
    for edits, carried in changed(subject):
        options = {"edits": edits, "carried": carried, "max_new_tokens": 5}
        said = generate.greedy_tokens(ending_with(subject, {0}), SEVERAL, **options)
        early = [token for row in said for token in row[:4]]
        found = [one for one in early if not all(one in row for row in said)]  # some families say the same everywhere
        some = ending_with(subject, set((found or early)[:1]))
        expected.append(bool(found))
        shared = generate.greedy_tokens(some, SEVERAL, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ssn_probe.tracing.shared_start.shared_length", lambda *_: 0)
            patch.setattr(generate, "places_reading_last", places_of)  # transformers generates
            assert shared == generate.greedy_tokens(some, SEVERAL, **options)
    assert (min(left) < max(left) == len(SEVERAL)) == any(expected)


@every_family
def test_texts_are_read_as_whole_ones(subject: Subject, whole) -> None:
    """Of words of the prompt that a start predicts, too, and with what is carried over along an answer."""
    texts = [Text(prompt=tuple(row), answer=(20, 21, 22)[: 1 + row[2] % 3], own=(2, len(row) - 1)) for row in SEVERAL]

    def all_of_them() -> list[Reading]:
        untouched = read_texts(subject, texts, batch_size=3)
        return [untouched] + [
            read_texts(subject, texts, before=untouched.states, edits=edits, carried=carried, batch_size=3)
            for edits, carried in changed(subject)
        ]

    shared = all_of_them()
    whole()
    for found, wanted in zip(shared, all_of_them(), strict=True):
        for name, values in vars(wanted).items():
            torch.testing.assert_close(getattr(found, name), values, atol=1e-6, rtol=1e-6, equal_nan=True)


def test_a_start_is_as_long_as_saves_most() -> None:
    template, many = [[1, 3, word, 9] for word in range(8)], [[1, 3, word % 2, word, 9] for word in range(8)]
    assert shared_length(template, 8) == 2  # 7 × 2 tokens, and none with eight starts
    assert shared_length(many, 8) == 3  # 6 × 3 tokens and not 7 × 2
    assert shared_length(many, 4) == 2  # two batches with two starts each save 4 × 3, with one 6 × 2
    assert shared_length([[1, 3, 5]] * 8, 8) == 2


@every_family
def test_few_tokens_are_not_worth_a_pass(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.tracing.shared_start.WORTH", 9)
    assert start_of(subject, WITHIN_WINDOWS[:1] * 4) == [1, 3, 7]
    assert start_of(subject, WITHIN_WINDOWS[:1] * 3) == []
    assert shared_length(WITHIN_WINDOWS[:1] * 8, 4) == 3
    assert shared_length(WITHIN_WINDOWS[:1] * 8, 3) == 0  # of each batch


@every_family
def test_a_family_of_a_users_own_runs_whole(subject: Subject) -> None:
    assert start_of(replace(subject, family=replace(subject.family, name="mine")), PROMPTS) == []


@every_family
def test_what_does_not_fit_in_a_sliding_window_runs_whole(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    config = subject.model._module.config.get_text_config()
    monkeypatch.setattr(config, "sliding_window", 12, raising=False)
    monkeypatch.setattr(config, "layer_types", ["sliding_attention"] * subject.n_layers, raising=False)
    assert start_of(subject, PROMPTS, 1) == [1, 3, 7]
    assert start_of(subject, PROMPTS, 2) == []
