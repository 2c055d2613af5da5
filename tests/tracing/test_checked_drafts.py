"""Responses that most prompts keep are checked and not generated: tokens and log-odds stay those of a generation."""

from dataclasses import replace

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject
from ssn_probe.model.turn_ends import up_to_end
from ssn_probe.neurons import SITES
from ssn_probe.tracing import checked_drafts, generate
from ssn_probe.tracing.batching import Memory, gather
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.edits import Edits, amplification, carrying, suppression
from ssn_probe.tracing.generate import greedy_tokens

from .test_effects import DIRECTION, PROMPTS
from .test_generate import SHORT

NEURONS = [(layer, site, index) for layer in range(2) for site in SITES for index in (1, 6)]
LENGTH = 6
EDITS = {"few": suppression(NEURONS[:1]), "many": suppression(NEURONS), "louder": amplification(NEURONS, 2.0)}


def responses(subject: Subject, edits: Edits = (), **options) -> list[list[int]]:
    """Up to and with their ends."""
    found = greedy_tokens(subject, PROMPTS, edits=edits, max_new_tokens=LENGTH, batch_size=2, **options)
    ends = [up_to_end(row, subject.eos_ids) for row in found]
    return [row[: len(before) + ended] for row, (before, ended) in zip(found, ends, strict=True)]


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts are generated, batch by batch."""
    counts, run = [], generate.run_generation
    monkeypatch.setattr(generate, "run_generation", lambda *a, **k: (counts.append(len(a[1])), run(*a, **k))[1])
    return counts


@pytest.mark.parametrize("change", EDITS)
def test_tokens_and_log_odds_are_those_of_a_generation(subject: Subject, change: str, generated: list[int]) -> None:
    edits, asked = EDITS[change], responses(subject)

    def run(**options) -> tuple[list[list[int]], list[torch.Tensor]]:
        kept = [Memory(), Memory()]
        found = responses(subject, edits, readings=list(zip((SHORT, DIRECTION), kept, strict=True)), **options)
        return found, [gather(one.parts(), "log_odds", torch.zeros(len(PROMPTS))) for one in kept]

    wanted, odds = run()
    generated.clear()
    found, read = run(drafts=asked)
    assert found == wanted
    assert sum(generated) == sum(one != other for one, other in zip(asked, wanted, strict=True))
    for one, other in zip(read, odds, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)  # what is kept is single precision


def test_a_wrong_draft_is_generated_whatever_it_is_wrong_in(llama: Subject, generated: list[int]) -> None:
    right = responses(llama)
    for step in range(LENGTH):
        wrong = [[*row[:step], 9 - row[step] % 2, *row[step + 1 :]] if step < len(row) else row for row in right]
        generated.clear()
        assert responses(llama, drafts=wrong) == right
        assert sum(generated) == sum(step < len(row) for row in right)


def test_drafts_of_many_lengths_are_checked_in_groups(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = responses(llama)
    cut = [[*row[:length], llama.eos_ids[0]] for row, length in zip(whole, (1, 4, 2), strict=True)]
    for few in (1, 32):
        monkeypatch.setattr(checked_drafts, "FEW", few)
        assert responses(llama, drafts=cut) == whole
        assert checked_drafts.checked(llama, PROMPTS, whole, [2, 0, 1], [])[0] == [True] * 3
        assert not any(checked_drafts.checked(llama, PROMPTS, cut, [2, 0, 1], [])[0])


def test_a_group_is_of_like_length_and_no_larger_than_twice_the_prompts() -> None:
    lengths = [3] * 40 + [5] * 40
    assert [len(group) for group in checked_drafts._groups(lengths, 8)] == [40, 40]
    assert [len(group) for group in checked_drafts._groups([5, 3, 4], 8)] == [3]
    groups = list(checked_drafts._groups([1, 20, 20, 20], 4))
    assert sorted(row for group in groups for row in group) == [0, 1, 2, 3]
    assert max(len(group) for group in groups) == 1  # 23 tokens each, and 32 at most


def test_what_is_carried_over_and_what_runs_elsewhere_is_generated(llama: Subject, generated: list[int]) -> None:
    right = responses(llama)
    values = capture(llama, PROMPTS, NEURONS, max_new_tokens=LENGTH)
    generated.clear()
    responses(llama, carrying(NEURONS, "run"), carried=values, drafts=right)
    assert sum(generated) == len(PROMPTS)
    generated.clear()
    mine = replace(llama, family=replace(llama.family, name="mine"))
    assert responses(mine, drafts=right) == right
    assert sum(generated) == len(PROMPTS)


def test_a_state_that_is_not_finite_is_never_the_drafts(llama: Subject) -> None:
    with pytest.raises(ModelError, match=r"NaN|Inf|finite"):
        responses(llama, amplification(NEURONS, float("inf")), drafts=responses(llama))
