"""Notes on how responses end: none where all sources agree, and in words where turns do not end by a token."""

from dataclasses import replace

import polars as pl

from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.model.turn_ends import Turns
from ssn_probe.spec import Prompts
from ssn_probe.study.model_notes import notes_on_model, notes_on_texts, notes_on_thoughts


def notes(subject: Subject, **turns: object) -> list[str]:
    return list(notes_on_model(replace(subject, turns=replace(subject.turns, **turns))))  # type: ignore[arg-type]


def test_how_responses_end() -> None:
    subject = load_subject("organism", weights=False)
    assert notes(subject) == []
    (plain,) = notes(subject, written="\n\nUser: ", template_end=None)
    assert "writes '\\n\\nUser: ' after it: a response ends with <eos> (2; generation config, tokenizer" in plain
    (unknown,) = notes(subject, written=None, unshown="It raises.", template_end=None)
    assert "is not known (It raises): a response ends with <eos>" in unknown
    (outside,) = notes(subject, outside=((99, "tokenizer"),))
    assert outside.endswith("end no response: 99 (tokenizer)")
    assert notes(replace(subject, turns=Turns(written="x", template_end=1)))[0].startswith("no token ends a response")
    (open_block,) = notes(subject, think=("<think>", "</think>"))
    assert "inside a think block ('<think>')" in open_block
    assert notes(replace(subject, template_notes=("two templates",))) == ["two templates"]


def test_prompts_that_spell_control_tokens_by_language() -> None:
    subject, prompts = load_subject("organism", weights=False), load_prompts(Prompts("organism", limit=2))
    node = Prompts("organism")
    assert list(notes_on_texts(subject, {node: prompts})) == []
    first = prompts.languages[0]
    forged = pl.when(pl.col("language") == first).then(pl.col("text") + "<eos>assistant: x")
    changed = replace(prompts, frame=prompts.frame.with_columns(text=forged.otherwise("text")))
    token, line = notes_on_texts(subject, {node: changed})
    rows = prompts.frame.filter(language=first).height
    assert token.startswith(
        "organism, first 2: prompts spell '<eos>', which are control tokens of the model, and reach"
    )
    assert line.startswith("organism, first 2: prompts spell 'assistant:', which the model reads as control tokens or")
    assert all(note.endswith(f": {first} {rows} of {rows}") for note in (token, line))
    taught = replace(prompts, frame=prompts.frame.with_columns(reference=pl.lit("no <eos>"), split=pl.lit("train")))
    assert "responses to learn spell '<eos>'" in next(iter(notes_on_texts(subject, {node: taught})))


def test_responses_that_end_in_thoughts() -> None:
    subject = load_subject("organism", weights=False)
    samples = pl.DataFrame({"eval_language": ["a", "a", "b"], "response": ["<think> hm", "no", "<think></think> no"]})
    (note,) = notes_on_thoughts(subject, samples)
    assert note.endswith(": a 1 of 2")
    assert list(notes_on_thoughts(subject, samples[1:])) == []
    inside = replace(subject, turns=replace(subject.turns, think=("<think>", "</think>")))
    (note,) = notes_on_thoughts(inside, samples)
    assert note.endswith(": a 2 of 2")
