"""Notes on how responses end: none where all sources agree, and in words where turns do not end by a token."""

from dataclasses import replace

from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.model.turn_ends import Turns
from ssn_probe.study.model_notes import notes_on_model


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
    assert notes(replace(subject, template_notes=("two templates",))) == ["two templates"]
