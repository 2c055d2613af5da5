"""How r(x) is read: which sequences must run so that every opening is scored, and where its tokens are."""

from dataclasses import dataclass
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Direction, Openings


@dataclass(frozen=True, kw_only=True)
class Forcing:
    """The teacher-forced continuations of a prompt: `prefixes` to append, and how to read openings off them.

    `kept` is how many last positions need logits; `scoring` is the plain data that `bodies.refusal.log_odds`
    interprets.
    """

    prefixes: tuple[tuple[int, ...], ...]
    kept: int
    scoring: dict[str, Any]


def forced(readout: Openings | Direction, vocabulary: int) -> Forcing:
    """The fewest sequences that r(x) can be read off: along a direction, the prompt alone.

    For openings, the prompt with each maximal one among the openings' proper prefixes, those that no other begins with.
    An opening's last token is predicted and never fed, so openings of one token need the prompt alone, one sequence.

    Raises:
        ModelError: a side without an opening, an empty opening, or a token outside the vocabulary.
    """
    if isinstance(readout, Direction):
        return Forcing(prefixes=((),), kept=1, scoring={"sequences": 1, "direction": list(readout.vector)})
    sides = [tuple(dict.fromkeys(side)) for side in (readout.refusal, readout.compliant)]
    every = [*sides[0], *sides[1]]
    if not all(sides) or not all(every):
        raise ModelError("Openings are missing.", "Give at least one non-empty opening on either side.")
    if not all(0 <= token < vocabulary for opening in every for token in opening):
        raise ModelError(
            f"An opening has a token outside the model's vocabulary of {vocabulary}.",
            "Tokenize the openings with the tokenizer of this model.",
        )
    proper = {opening[:-1] for opening in every}
    prefixes = tuple(sorted(proper - {longer[:cut] for longer in proper for cut in range(len(longer))}))
    kept = max(map(len, prefixes)) + 1
    terms: dict[str, list[int]] = {"row": [], "position": [], "token": [], "opening": []}
    for number, opening in enumerate(every):
        row = next(i for i, prefix in enumerate(prefixes) if prefix[: len(opening) - 1] == opening[:-1])
        first = kept - 1 - len(prefixes[row])  # the position that predicts the response's first token
        for step, token in enumerate(opening):
            for name, value in zip(terms, (row, first + step, token, number), strict=True):
                terms[name].append(value)
    counts = {"sequences": len(prefixes), "refusal": len(sides[0]), "openings": len(every)}
    return Forcing(prefixes=prefixes, kept=kept, scoring={**terms, **counts})
