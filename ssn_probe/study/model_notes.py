"""What a reader must know of how a model is asked and how its responses end: notes for run, report and plan."""

from collections.abc import Iterator

from ssn_probe.model.subject import Subject
from ssn_probe.model.turn_ends import Turns


def notes_on_model(subject: Subject) -> Iterator[str]:
    """What can be known before a prompt is run."""
    yield from subject.template_notes
    yield from _ends(subject.turns)


def _ends(turns: Turns) -> Iterator[str]:
    """How a response ends, where that is not by the token that ends a turn of the chat template."""
    ends = f"a response ends with {'; '.join(map(str, turns.ends))} or" if turns.ends else "a response ends only"
    if turns.outside:
        outside = ", ".join(f"{one} ({source})" for one, source in turns.outside)
        yield f"end tokens that are outside the model's vocabulary end no response: {outside}"
    if turns.written is None:
        why = turns.unshown.rstrip(".")
        yield f"what ends an answer in the chat template is not known ({why}): {ends} after max_new_tokens"
    elif turns.template_end is None:
        written = f"{turns.written[:60]!r}" if turns.written.strip() else "nothing"
        yield (
            f"the chat template ends an answer by no token of its own, but writes {written} after it: {ends} after "
            "max_new_tokens, and a turn that the model goes on with is judged as part of its answer"
        )
    elif not turns.ends:
        yield "no token ends a response: every response has max_new_tokens tokens"
