"""Exact ablations behind what prompts begin with, against those of every prompt by itself."""

from collections.abc import Callable, Sequence

import pytest
import torch
from tiny import EVERY_FAMILY, slow_but_for

from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject
from ssn_probe.model.workers import _sequences
from ssn_probe.neurons import SITES
from ssn_probe.tracing import exact_effects as module
from ssn_probe.tracing.ablations import Neuron
from ssn_probe.tracing.batching import BatchSize, Memory
from ssn_probe.tracing.exact_effects import exact_effects
from ssn_probe.tracing.shared_start import shared_length

SEVERAL = [[1, 3, 9, 11, 4], [1, 3, 7, 12, 13, 20, 4], [1, 3, 9, 4], [1, 3, 7, 14, 4], [1, 3, 7, 4]]
"""Two beginnings of three tokens."""
WITHIN_WINDOWS = [[1, 3, 7, 8], [1, 3, 9]]
OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (13, 16), (17,)))
DIRECTION = Direction(tuple((torch.arange(24) % 5 - 2).tolist()))
NEURONS: list[Neuron] = [(layer, site, index) for layer in (1, 0) for site in SITES[::-1] for index in (5, 0)]
FAMILIES = ("llama", "gemma2")
"""Grouped heads; windows, caps, and norms behind. Others are slow."""
every_family = pytest.mark.parametrize("subject", slow_but_for(FAMILIES, EVERY_FAMILY), indirect=True)


@pytest.fixture(autouse=True)
def always_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.tracing.shared_start.WORTH", 1)


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many tokens of a start, and how many prompts, run together, of every call to the model from now on."""
    found: list[tuple[int, int]] = []
    real = module._resumed

    def noted(*given):
        found.append((given[-1].length, len(given[1])))
        return real(*given)

    monkeypatch.setattr(module, "_resumed", noted)
    return found


def alike(found: torch.Tensor, wanted: torch.Tensor, share: float) -> None:
    """No effect is off by more than a share of the prompt's largest."""
    off = (found - wanted).abs().amax(1) / wanted.abs().amax(1)
    assert float(off.max()) < share, float(off.max())


@every_family
def test_effects_are_those_of_prompts_by_themselves(subject: Subject, lengths: list) -> None:
    """Of every site and read-out, and of some prompts as of all."""
    for prompts, readout in ((SEVERAL, OPENINGS), (SEVERAL, None), (WITHIN_WINDOWS, DIRECTION)):
        wanted = exact_effects(subject, prompts, NEURONS, readout, shared=False)
        assert (wanted.abs().amax(0) > 1e-4).double().mean() > 0.8
        alike(exact_effects(subject, prompts, NEURONS, readout), wanted, 1e-9)
    for readout in (None, DIRECTION):  # and of neurons that are not in the last layer
        low = exact_effects(subject, WITHIN_WINDOWS, NEURONS[-3:], readout, shared=False)
        alike(exact_effects(subject, WITHIN_WINDOWS, NEURONS[-3:], readout), low, 1e-9)
    wanted = exact_effects(subject, WITHIN_WINDOWS, NEURONS)
    alike(exact_effects(subject, WITHIN_WINDOWS[1:], NEURONS, among=WITHIN_WINDOWS), wanted[1:], 1e-9)
    assert lengths.count((2, 2)) == 4  # of prompts within windows every family's


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_how_many_run_together_changes_nothing(llama: Subject, batch_size: int) -> None:
    for readout in (None, OPENINGS):
        found = exact_effects(llama, SEVERAL[::-1], NEURONS, readout, batch_size=batch_size)
        alike(found.flip(0), exact_effects(llama, SEVERAL, NEURONS, readout), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_single_precision(single: Callable[[str], Subject], family: str) -> None:
    """The bound of the docstring, also to whole passes."""
    subject = single(family)
    for prompts, readout in ((SEVERAL, None), (SEVERAL, DIRECTION), (WITHIN_WINDOWS, None)):
        found = exact_effects(subject, prompts, NEURONS, readout)
        alike(found, exact_effects(subject, prompts, NEURONS, readout, shared=False), 2e-5)
        alike(found, exact_effects(subject, prompts, NEURONS, readout, resumed=False), 2e-5)


def prompts_run(llama: Subject, monkeypatch: pytest.MonkeyPatch, **options) -> list[tuple[int, int, int]]:
    """Rows of starts, rows and tokens of prompts of every batch of resumed passes."""
    found: list[tuple[int, int, int]] = []
    real = module.run_body

    def noted(subject: Subject, body: Callable, *given):
        if body.__name__ == "trace_resumed":
            batches, runs = given[0], len(given[3]) + 1
            starts = len(batches[0]["start"][1]["input_ids"]) if "start" in batches[0] else 0
            rows, width = (sum(len(one["input_ids"]) for one in batches), batches[0]["input_ids"].shape[1])
            assert all(len(one["input_ids"]) * runs <= max(runs, options["batch_size"] + 1) for one in batches)
            found.append((starts * runs, rows * runs, width))
        return real(subject, body, *given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_body", noted)
        exact_effects(llama, SEVERAL, [(0, "ffn", 1), (0, "ffn", 2), (1, "q", 2)], **options)
    return found


def test_a_start_runs_once_for_every_neuron(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole: seven tokens at most; behind starts of three tokens: four. A batch has no more rows than was asked for."""
    assert prompts_run(llama, monkeypatch, batch_size=64) == [(6, 15, 4), (4, 10, 4)]
    few = prompts_run(llama, monkeypatch, batch_size=3)  # two blocks, which save most with starts of two tokens
    assert few == [(3, 9, 5), (2, 6, 5), (3, 6, 2), (2, 4, 2)]
    alone = prompts_run(llama, monkeypatch, batch_size=64, shared=False)
    assert [(starts, rows) for starts, rows, _ in alone] == [(0, 3), (0, 2)] * 5


def test_the_tokens_that_ran_are_kept(llama: Subject) -> None:
    """Two starts of three tokens and ten more, of 25; with openings each prompt has six more: a tree, or two branches
    of two and one. By itself every prompt runs whole."""
    for readout, shared, wanted in (
        (None, True, (6 + 10) / 25),
        (OPENINGS, True, (6 + 10 + 15) / (25 + 15)),
        (None, False, 1),
    ):
        kept = Memory()
        exact_effects(llama, SEVERAL, NEURONS, readout, shelf=kept, shared=shared)
        shares = torch.cat([part.get("ran") for part in kept.parts()])
        assert torch.allclose(shares, torch.full((5,), float(wanted), dtype=torch.float64))


def test_few_tokens_are_not_worth_a_start(llama: Subject, lengths: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two saved tokens of each of three runs, of two prompts: six in all."""
    neurons: Sequence[Neuron] = [(0, "ffn", 1), (0, "ffn", 2)]
    for worth, wanted in ((6, [(2, 2)]), (7, [(0, 1), (0, 1)])):
        monkeypatch.setattr("ssn_probe.tracing.shared_start.WORTH", worth)
        lengths.clear()
        exact_effects(llama, WITHIN_WINDOWS, neurons)
        assert lengths == wanted
    assert shared_length(WITHIN_WINDOWS, 2, times=3) == 0


def test_the_start_is_that_of_all_prompts(llama: Subject, lengths: list) -> None:
    """Two of them begin alike with three tokens, and all of them with two."""
    exact_effects(llama, SEVERAL[:2], NEURONS)
    exact_effects(llama, [SEVERAL[0], SEVERAL[2]], NEURONS)
    exact_effects(llama, [SEVERAL[0], SEVERAL[2]], NEURONS, among=[*SEVERAL, [1, 3, 4]])
    assert lengths == [(2, 2), (3, 2), (2, 2)]


def test_a_run_that_was_killed_goes_on(llama: Subject, lengths: list) -> None:
    """Blocks that are there are not computed again, and the numbers are the same."""
    wanted, first = exact_effects(llama, SEVERAL, NEURONS), Memory()
    lengths.clear()

    def killed(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exact_effects(llama, SEVERAL, NEURONS, batch_size=2, shelf=first, advance=killed)
    assert [set(part.rows) for part in first.parts()] == [{0, 1}]
    found = exact_effects(llama, SEVERAL, NEURONS, batch_size=2, shelf=first)
    assert [count for _, count in lengths] == [2, 2, 1]
    alike(found, wanted, 1e-9)


def test_where_the_memory_runs_out_fewer_run_together(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, rows = exact_effects(llama, SEVERAL, NEURONS), []
    real = module.run_body

    def small(subject: Subject, body: Callable, *given):
        if body.__name__ == "trace_resumed":
            rows.append(max(len(one["input_ids"]) for one in given[0]) * (len(given[3]) + 1))
            if rows[-1] > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return real(subject, body, *given)

    monkeypatch.setattr(module, "run_body", small)
    size = BatchSize(16, auto=True)
    alike(exact_effects(llama, SEVERAL, NEURONS, batch_size=size), wanted, 1e-9)
    assert size.size < 4 < max(rows)


def test_processes_know_how_many_sequences_ran(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two neurons and the untouched run of five prompts; one of the last layer."""
    counts: list[int] = []
    real = module.run_body

    def noted(subject: Subject, body: Callable, *given):
        counts.append(_sequences(given))
        return real(subject, body, *given)

    monkeypatch.setattr(module, "run_body", noted)
    exact_effects(llama, SEVERAL, [(0, "ffn", 1), (0, "ffn", 2), (1, "q", 2)], batch_size=5)
    assert counts == [5, 15, 10]
