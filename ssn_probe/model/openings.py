"""How refusal is read off a model: the openings of its responses, which its folder may declare, or a direction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError, first_line
from ssn_probe.model.model_files import read_json

MOST, LONGEST = 1000, 1000
"""Openings of a language, and characters of each: every one of them is forced upon the model for every prompt."""


@dataclass(frozen=True)
class Openings:
    """Token ids that begin a refusal, and that begin a compliant answer: openings of one or more tokens each."""

    refusal: tuple[tuple[int, ...], ...]
    compliant: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Direction:
    """A direction in the space of the final state, after the final norm: r(x) is the prompt's last state times it."""

    vector: tuple[float, ...]


def declared_openings(where: str, tokenizer: Any) -> Mapping[str, Openings] | None:
    """The openings of openings.json, per language, or None where the folder declares none."""
    file = Path(where) / "openings.json"
    if not file.exists():
        return None
    hint = 'It must be {"refusal": {language: [text, …]}, "compliant": {language: [text, …]}}.'
    try:
        raw = read_json(file)
        refusal, compliant = dict(raw["refusal"]), dict(raw["compliant"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} cannot be read: {first_line(error)}", hint) from error
    if set(refusal) != set(compliant):
        raise ModelError(f"{file} names other languages under refusal than under compliant.", hint)
    return {
        language: _apart(
            Openings(
                refusal=_opening_tokens(tokenizer, refusal[language], f"{file}: refusal, {language}"),
                compliant=_opening_tokens(tokenizer, compliant[language], f"{file}: compliant, {language}"),
            ),
            f"{file}: {language}",
            tokenizer,
        )
        for language in refusal
    }


def overlap(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Does one opening begin with the other, so that some responses begin with both?"""
    return one[: len(other)] == other or other[: len(one)] == one


def _apart(openings: Openings, where: str, tokenizer: Any) -> Openings:
    """The openings, whose sides no response may begin with both of. Raises ModelError for others."""
    for refusal in openings.refusal:
        for compliant in openings.compliant:
            if overlap(refusal, compliant):
                refuses, complies = (repr(tokenizer.decode(list(tokens))) for tokens in (refusal, compliant))
                raise ModelError(
                    f"{where}: a response may begin with both {refuses}, a refusal, and {complies}, an answer.",
                    "Make both as long as it takes until they differ, or leave one out.",
                )
    return openings


def _opening_tokens(tokenizer: Any, texts: Any, where: str) -> tuple[tuple[int, ...], ...]:
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ModelError(f"{where} is not a list of texts.", "Give at least one opening per language.")
    if len(texts) > MOST or max(map(len, texts)) > LONGEST:
        raise ModelError(
            f"{where} has {len(texts):,} openings, of up to {max(map(len, texts)):,} characters.",
            f"Give at most {MOST:,} openings of at most {LONGEST:,} characters: the first words of a response.",
        )
    openings = tuple(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    if not all(openings):
        raise ModelError(f"{where} has an opening without a token.", "Leave empty openings out.")
    return shortest(openings)


def shortest(openings: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The openings without those that begin with another one, whose probability that one has already."""
    different = tuple(dict.fromkeys(openings))
    return tuple(
        one for one in different if not any(one != other and one[: len(other)] == other for other in different)
    )
