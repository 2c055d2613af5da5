"""Greedy responses equal those of plain `generate`, with neurons changed by scaling their weights."""

from dataclasses import replace

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject
from ssn_probe.model.turn_ends import End, Turns
from ssn_probe.neurons import SITES
from ssn_probe.tracing.batching import Memory, gather
from ssn_probe.tracing.bodies.refusal import trace_log_odds
from ssn_probe.tracing.bodies.stepwise import likeliest
from ssn_probe.tracing.edits import amplification, places_of, places_reading_last, prepared, suppression
from ssn_probe.tracing.effects import refusal_log_odds
from ssn_probe.tracing.execution import run_body
from ssn_probe.tracing.generate import generate, run_generation
from ssn_probe.tracing.readout import forced, forced_inputs, read_at_prompt

from . import plain
from .test_effects import DIRECTION, OPENINGS, PROMPTS, module_of

NEURONS = [(layer, site, index) for layer in range(2) for site in SITES for index in (1, 6)]
LENGTH = 12
SHORT = Openings(refusal=((10,), (12,)), compliant=((13,), (17,)))


def plain_responses(subject: Subject) -> list[list[int]]:
    """New tokens of `transformers` itself, one prompt at a time."""
    found = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = module_of(subject).generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=LENGTH, do_sample=False
            )
        found.append(out[0, len(prompt) :].tolist())
    return found


def assert_same(subject: Subject, found: list, wanted: list[list[int]]) -> None:
    texts = subject.tokenizer.batch_decode(wanted, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert [generation.text for generation in found] == texts
    assert [generation.tokens for generation in found] == [len(row) for row in wanted]
    ends = ["stop" if row[-1] == 2 else "length" for row in wanted]
    assert [generation.finish_reason for generation in found] == ends


def test_a_padded_batch_equals_plain_generation_prompt_by_prompt(subject: Subject) -> None:
    assert_same(subject, generate(subject, PROMPTS, max_new_tokens=LENGTH), plain_responses(subject))


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_edits_equal_scaled_weights(subject: Subject, factor: float) -> None:
    edits = amplification(NEURONS, factor) if factor else suppression(NEURONS)
    found = generate(subject, PROMPTS, edits=edits, max_new_tokens=LENGTH)
    with plain.weights_scaled(module_of(subject), NEURONS, factor):
        assert_same(subject, found, plain_responses(subject))
    assert found != generate(subject, PROMPTS, max_new_tokens=LENGTH)


def test_the_pass_over_the_prompts_gives_the_log_odds(subject: Subject) -> None:
    """In one padded batch, the last layer where it is read: to rounding those that are measured by themselves."""
    readouts, edits = (SHORT, DIRECTION), prepared(subject, suppression(NEURONS))
    scorings = [forced(readout, subject.vocabulary).scoring for readout in readouts]
    places = places_of(subject)
    ids, _, found = run_generation(subject, PROMPTS, places_reading_last(subject), 3, edits=edits, scorings=scorings)
    assert ids.equal(run_generation(subject, PROMPTS, places, 3, edits=edits)[0])
    for readout, scoring, odds in zip(readouts, scorings, found, strict=True):
        inputs = forced_inputs(subject, PROMPTS, forced(readout, subject.vocabulary))
        wanted = run_body(subject, trace_log_odds, inputs, places, edits, scoring)
        assert odds.dtype == torch.float64
        assert torch.allclose(odds, wanted, rtol=1e-10, atol=1e-10)


def test_log_odds_are_put_where_they_are_asked_for_batch_by_batch(llama: Subject) -> None:
    short, along = Memory(), Memory()
    readings = [(SHORT, short), (DIRECTION, along)]
    generate(llama, PROMPTS, max_new_tokens=2, edits=suppression(NEURONS), readings=readings, batch_size=2)
    for readout, kept in readings:
        assert sorted(len(part.rows) for part in kept.parts()) == [1, 2]
        wanted = refusal_log_odds(llama, PROMPTS, readout, edits=suppression(NEURONS))
        assert torch.allclose(gather(kept.parts(), "log_odds", torch.zeros(len(PROMPTS))), wanted)


def test_longer_openings_cannot_be_read_off_the_prompt(llama: Subject) -> None:
    assert read_at_prompt(llama, SHORT)
    assert read_at_prompt(llama, DIRECTION)
    assert not read_at_prompt(llama, OPENINGS)


def test_order_and_batch_size_do_not_matter(llama: Subject) -> None:
    together = generate(llama, PROMPTS, max_new_tokens=5)
    assert generate(llama, PROMPTS, max_new_tokens=5, batch_size=1) == together
    assert generate(llama, PROMPTS[::-1], max_new_tokens=5, batch_size=2) == together[::-1]
    assert generate(llama, [], max_new_tokens=5) == []


def test_a_response_ends_with_its_end_token(llama: Subject) -> None:
    """The third token of the response is made an end token: what follows is not part of the response."""
    whole = plain_responses(llama)[0]
    end = whole[2]
    turns = Turns(ends=tuple(End(id=one, text="", sources=()) for one in (2, end)), pad_id=llama.pad_id)
    module = module_of(llama)
    kept = module.generation_config.eos_token_id
    module.generation_config.eos_token_id = [2, end]
    try:
        found = generate(replace(llama, turns=turns), PROMPTS, max_new_tokens=LENGTH)[0]
    finally:
        module.generation_config.eos_token_id = kept
    assert found.finish_reason == "stop"
    assert found.tokens == whole.index(end) + 1


def test_progress_counts_prompts(llama: Subject) -> None:
    done: list[int] = []
    generate(llama, PROMPTS, max_new_tokens=2, batch_size=2, advance=done.append)
    assert done == [2, 1]


def test_zero_tokens_are_refused(llama: Subject) -> None:
    with pytest.raises(ModelError, match="max_new_tokens is 0"):
        generate(llama, PROMPTS, max_new_tokens=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_likeliest_word_is_torchs_the_first_of_equal_ones_and_nan_before_all(dtype: torch.dtype) -> None:
    logits = torch.randint(0, 40, (50, 300)).to(dtype)  # each row has its largest value several times
    logits[3, 7] = logits[4, 0] = float("nan")
    logits[5, 9] = float("inf")
    assert likeliest(logits).equal(logits.float().argmax(-1))
