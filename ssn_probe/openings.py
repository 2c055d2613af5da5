"""How a model begins to refuse and to comply, per language, and whether the refusal log-odds can be trusted there.

A model may declare its openings. Otherwise they are read off its own greedy responses to *identify* prompts: the
prefixes that refused and complied responses begin with, one token at first, longer where both sides share it. A gate
then asks, on held-out prompts, whether the log-odds separates refused from other responses (AUROC ≥ .85, ≥ 20
responses each side).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ssn_probe.errors import ModelError
from ssn_probe.lab import Lab, responses, tokens_of
from ssn_probe.plan import HELD_OUT, gate_label
from ssn_probe.prompts import PromptSet
from ssn_probe.stats import Gate, gate
from ssn_probe.subject import Openings
from ssn_probe.tracing.edits import NO_EDITS
from ssn_probe.tracing.score import refusal_log_odds

MOST, LONGEST = 8, 5
"""At most so many openings a side, of at most so many tokens."""


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What the refusal effect reads in one language: openings, where they are from, and how well they separate."""

    openings: Openings
    origin: str
    gate: Gate


def readouts(lab: Lab, prompts: PromptSet, anchor: str) -> dict[str, Readout]:
    """The read-out of every language of a prompt set.

    A language that fails the gate with its own openings gets the union with the anchor's, visibly.
    Raises ModelError for a language that fails with both.
    """

    def compute() -> dict[str, Readout]:
        observed = {language: _observe(lab, prompts, language) for language in prompts.languages}
        own = {language: _own_openings(lab, language, observed[language]) for language in prompts.languages}
        return {one: _readout(lab, observed[one], own, one, anchor) for one in prompts.languages}

    return lab.remember(("readouts", prompts.digest, anchor), compute)


def _observe(lab: Lab, prompts: PromptSet, language: str) -> pl.DataFrame:
    """Greedy responses to a language's identify prompts, and which of them test the openings.

    Every fourth prompt of a context is held out where openings are estimated; where they are declared, no response had
    a part in choosing them, and all of them test.
    """
    rows = pl.concat([prompts.select("identify", context, language) for context in ("harmful", "harmless")])
    made = responses(lab, prompts, rows, language, NO_EDITS, lab.tracker.advance(gate_label(prompts)))
    fourth = pl.int_range(pl.len()).over("context") % HELD_OUT == HELD_OUT - 1
    held_out = pl.lit(True) if _declares(lab, language) else fourth
    return rows.hstack(made.select("response", "verdict")).with_columns(held_out=held_out)


def _declares(lab: Lab, language: str) -> bool:
    return lab.subject.openings is not None and language in lab.subject.openings


def _readout(lab: Lab, observed: pl.DataFrame, own: dict[str, Openings], language: str, anchor: str) -> Readout:
    declared = "declared" if _declares(lab, language) else "estimated"
    first = _tried(lab, observed, own[language], declared)
    if first.gate.passed or language == anchor:
        return first if first.gate.passed else _refuse(language, first)
    both = Openings(
        refusal=tuple(dict.fromkeys(own[language].refusal + own[anchor].refusal)),
        compliant=tuple(dict.fromkeys(own[language].compliant + own[anchor].compliant)),
    )
    second = _tried(lab, observed, both, f"{declared}, with the anchor's")
    if not second.gate.passed:
        return _refuse(language, second)
    lab.warn(f"{language}: its own openings fail the gate ({first.gate.why}); the anchor's were added")
    return second


def _refuse(language: str, tried: Readout) -> Readout:
    raise ModelError(
        f"the refusal log-odds cannot be trusted in {language}: {tried.gate.why}",
        "Leave the language out with Prompts(…, languages=…), or use an effect without openings: -T effect=local.",
    )


def _tried(lab: Lab, observed: pl.DataFrame, openings: Openings, origin: str) -> Readout:
    """The gate: does r separate refused from other responses among the held-out prompts?"""
    held_out = observed.filter("held_out")
    log_odds = refusal_log_odds(lab.subject, tokens_of(lab, held_out), openings, batch_size=lab.batch_size)
    refused = (held_out["verdict"] == "refused").to_numpy()
    return Readout(openings=openings, origin=origin, gate=gate(log_odds.numpy(), refused))


def _own_openings(lab: Lab, language: str, observed: pl.DataFrame) -> Openings:
    declared = lab.subject.openings
    if declared is not None and language in declared:
        return declared[language]
    seen = observed.filter(~pl.col("held_out"))
    sides = [_token_prefixes(lab, seen.filter(verdict=side)["response"]) for side in ("refused", "complied")]
    refusal, compliant = estimate_openings(*sides)
    if not refusal or not compliant:
        raise ModelError(
            f"no openings that separate refusals from answers were found in {language} "
            f"({len(sides[0])} refused, {len(sides[1])} complied among {seen.height} responses)",
            "Use an effect without openings (-T effect=local), or leave the language out.",
        )
    return Openings(refusal=refusal, compliant=compliant)


def _token_prefixes(lab: Lab, texts: pl.Series) -> list[tuple[int, ...]]:
    encoded = [lab.subject.tokenizer(text, add_special_tokens=False)["input_ids"][:LONGEST] for text in texts]
    return [tuple(ids) for ids in encoded if ids]


def estimate_openings(
    refused: Sequence[tuple[int, ...]], complied: Sequence[tuple[int, ...]]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """The ≤ 8 commonest prefixes of each side that the other side never begins with; a shared prefix grows by a token
    until it separates, and is dropped when it does not within 5 tokens."""
    return _prefixes(refused, complied), _prefixes(complied, refused)


def _prefixes(side: Sequence[tuple[int, ...]], other: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    taken = {prefix[:length] for prefix in other for length in range(1, len(prefix) + 1)}
    counts: Counter[tuple[int, ...]] = Counter()
    for prefix in side:
        shortest = next((prefix[:n] for n in range(1, len(prefix) + 1) if prefix[:n] not in taken), None)
        if shortest is not None:
            counts[shortest] += 1
    return tuple(prefix for prefix, _ in counts.most_common(MOST))
