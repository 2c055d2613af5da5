"""Activations of another run, captured and put in place, against plain hooks without cache, batch or padding."""

from collections.abc import Callable
from itertools import product

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.carried import Carried
from ssn_probe.tracing.edits import amplification, carried_neurons, carrying
from ssn_probe.tracing.effects import refusal_log_odds
from ssn_probe.tracing.generate import generate

from . import plain
from .test_effects import OPENINGS, PROMPTS, module_of

LENGTH = 8
SOURCES = [[1, 3, 40, 12, 33, 9, 4], [1, 3, 21, 50, 4], [1, 3, 7, 30, 28, 61, 17, 44, 4]]
SOME = carrying([(layer, site, index) for layer in range(2) for site in SITES for index in (1, 6)], "other")


def every(subject: Subject, layer: int, *sites: Site) -> tuple:
    return carrying([(layer, site, index) for site in sites for index in range(subject.widths[site])], "other")


def texts(subject: Subject, rows: list[list[int]]) -> list[str]:
    return subject.tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def made(subject: Subject, *args, **options) -> list[str]:
    return [one.text for one in generate(subject, *args, max_new_tokens=LENGTH, **options)]


# ── capture ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_captured_steps_are_those_of_a_run_without_cache_or_padding(subject: Subject) -> None:
    neurons, module = carried_neurons(SOME), module_of(subject)
    found = capture(subject, SOURCES, neurons, max_new_tokens=LENGTH)
    for row, source in enumerate(SOURCES):
        own = plain.greedy(module, source, LENGTH)
        wanted = plain.activations(module, [*source, *own[:-1]], neurons)[len(source) - 1 :]
        assert found.steps[row] == len(own) == len(wanted)
        assert torch.allclose(found.values[row, : len(own)], wanted, atol=1e-5)


def test_the_last_position_is_the_first_step(subject: Subject) -> None:
    neurons = carried_neurons(SOME)
    last, steps = capture(subject, SOURCES, neurons), capture(subject, SOURCES, neurons, max_new_tokens=LENGTH)
    assert last.values.shape == (3, 1, len(neurons))
    assert last.steps.eq(1).all()
    assert torch.allclose(last.values[:, 0], steps.values[:, 0], atol=1e-6)


def test_capture_does_not_depend_on_the_batch(llama: Subject) -> None:
    neurons, done = carried_neurons(SOME), []
    together = capture(llama, SOURCES, neurons, max_new_tokens=LENGTH)
    singly = capture(llama, SOURCES[::-1], neurons, max_new_tokens=LENGTH, batch_size=1, advance=done.append)
    assert done == [1, 1, 1]
    assert torch.equal(together.steps, singly.steps.flip(0))
    alive = torch.arange(LENGTH) < together.steps[:, None]
    assert torch.allclose(together.values[alive], singly.values.flip(0)[alive], atol=1e-6)


# ── patched responses ────────────────────────────────────────────────────────────────────────────────────────────────

CASES = list(product(["some of each", "the last layer's ffn", "the first layer's attention"], ["response", "last"]))


@pytest.mark.parametrize(
    ("which", "positions"), [CASES[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in CASES[1:])]
)
def test_patched_responses_are_those_of_plain_hooks(subject: Subject, which: str, positions: str) -> None:
    edits = {
        "some of each": SOME,
        "the last layer's ffn": every(subject, 1, "ffn"),
        "the first layer's attention": every(subject, 0, "q", "k", "v", "o"),
    }[which]
    neurons, steps = carried_neurons(edits), LENGTH if positions == "response" else 0
    carried = capture(subject, SOURCES, neurons, max_new_tokens=steps)
    wanted = plain.patched_responses(module_of(subject), PROMPTS, SOURCES, neurons, LENGTH, max(1, steps))
    found = made(subject, PROMPTS, edits=edits, carried=carried)
    assert found == texts(subject, wanted)
    few = (which, positions) == ("the last layer's ffn", "last")  # one token's MLP may change no word
    assert found != made(subject, PROMPTS) or few
    assert made(subject, PROMPTS, edits=edits, carried=carried, batch_size=2) == found


def test_values_follow_their_prompt_into_a_batch_by_length(llama: Subject) -> None:
    carried = capture(llama, SOURCES, carried_neurons(SOME), max_new_tokens=LENGTH)
    turned = carried.select([2, 0, 1], range(carried.values.shape[2]))
    found = made(llama, PROMPTS, edits=SOME, carried=carried)
    prompts = [PROMPTS[2], PROMPTS[0], PROMPTS[1]]
    assert made(llama, prompts, edits=SOME, carried=turned, batch_size=1) == [found[2], found[0], found[1]]
    assert made(llama, PROMPTS, edits=SOME, carried=turned) != found


def test_nothing_is_carried_over_past_the_end(llama: Subject) -> None:
    """With one step of each, values of later steps are as good as absent, whatever they are."""
    neurons = carried_neurons(SOME)
    last, whole = capture(llama, SOURCES, neurons), capture(llama, SOURCES, neurons, max_new_tokens=LENGTH)
    ended = Carried(values=whole.values.clone(), steps=torch.ones_like(whole.steps))
    ended.values[:, 1:] = 1e6
    expected = made(llama, PROMPTS, edits=SOME, carried=last)
    assert made(llama, PROMPTS, edits=SOME, carried=ended) == expected
    assert made(llama, PROMPTS, edits=SOME, carried=whole) != expected


@pytest.mark.parametrize("steps", [0, LENGTH])
def test_a_prompt_with_its_own_values_is_unchanged(subject: Subject, steps: int) -> None:
    """Identity: in the responses exactly, in the log-odds to rounding."""
    carried = capture(subject, PROMPTS, carried_neurons(SOME), max_new_tokens=steps)
    assert made(subject, PROMPTS, edits=SOME, carried=carried) == made(subject, PROMPTS)
    found = refusal_log_odds(subject, PROMPTS, OPENINGS, edits=SOME, carried=carried)
    assert torch.allclose(found, refusal_log_odds(subject, PROMPTS, OPENINGS), atol=1e-5)


# ── log-odds ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("steps", [0, LENGTH])
def test_log_odds_are_patched_at_the_prompts_last_position_alone(subject: Subject, steps: int) -> None:
    """Openings of up to three tokens: the position is the prompt's last, not the sequence's, whatever was captured."""
    openings = Openings(refusal=((7,), (8, 9, 10)), compliant=((11, 12), (13,)))
    neurons, module = carried_neurons(SOME), module_of(subject)
    carried = capture(subject, SOURCES, neurons, max_new_tokens=steps)
    found = refusal_log_odds(subject, PROMPTS, openings, edits=SOME, carried=carried, batch_size=4)
    for row, (prompt, source) in enumerate(zip(PROMPTS, SOURCES, strict=True)):
        with plain.placed(module, neurons, plain.activations(module, source, neurons)[-1:], len(prompt) - 1):
            wanted = plain.log_odds(module, prompt, openings.refusal, openings.compliant)
        assert found[row].item() == pytest.approx(wanted.item(), abs=1e-4)
    assert not torch.allclose(found, refusal_log_odds(subject, PROMPTS, openings), atol=1e-2)


# ── what cannot be ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("missing", ["everything", "a prompt", "a neuron"])
def test_values_that_are_missing_are_an_error(llama: Subject, missing: str) -> None:
    carried = capture(llama, SOURCES, carried_neurons(SOME))
    given = {
        "everything": None,
        "a prompt": carried.select([0, 1], range(20)),
        "a neuron": carried.select([0, 1, 2], range(19)),
    }[missing]
    with pytest.raises(ModelError, match="20 neurons of 3 prompts are to be carried over"):
        made(llama, PROMPTS, edits=SOME, carried=given)
    with pytest.raises(ModelError, match="carried over"):
        refusal_log_odds(llama, PROMPTS, OPENINGS, edits=SOME, carried=given)


def test_neurons_out_of_order_are_an_error(llama: Subject) -> None:
    with pytest.raises(ModelError, match="forward order"):
        capture(llama, SOURCES, [(1, "q", 0), (0, "q", 0)])
    with pytest.raises(ModelError, match="neuron 99 at site q"):
        capture(llama, SOURCES, [(1, "q", 99)])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_an_error(llama: Subject, value: float) -> None:
    carried = capture(llama, SOURCES, carried_neurons(SOME))
    carried.values[1, 0, 3] = value
    with pytest.raises(ModelError, match="NaN or Inf"):
        made(llama, PROMPTS, edits=SOME, carried=carried)
    with pytest.raises(ModelError, match="NaN or Inf"):
        refusal_log_odds(llama, PROMPTS, OPENINGS, edits=SOME, carried=carried)


def test_an_amplification_that_overflows_is_an_error(tiny_folder: Callable) -> None:
    half = load_subject(str(tiny_folder("llama")), dtype="float16")
    edits = amplification([(0, "ffn", index) for index in range(half.widths["ffn"])], 1e6)
    with pytest.raises(ModelError, match="NaN or Inf at site ffn of layer 0"):
        generate(half, PROMPTS, edits=edits, max_new_tokens=2)
