"""How responses in a language begin, and whether the language log-odds tells that language from the others.

The openings of a language are those that the model declares, refusals and answers together. Otherwise they are read off
its greedy responses to *identify* prompts: the commonest beginnings of responses in the language that no response in
another begins with. A gate then asks, on held-out prompts of all languages, whether the log-odds is higher where the
response is in the language (AUROC ≥ .85, ≥ 20 responses each side).
"""

from collections.abc import Mapping
from functools import partial

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.response_language import told
from ssn_probe.model.openings import Openings, overlap, shortest
from ssn_probe.stats import Gate, gate
from ssn_probe.study.measurements import UNCHANGED, log_odds
from ssn_probe.study.refusal_readout import (
    EACH_SIDE,
    MINIMUM_AUROC,
    LanguageGate,
    Readout,
    UntrustedReadoutError,
    common_prefixes,
    declares,
    gates_of,
    observe,
    token_prefixes,
)
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.batching import no_progress

READ = "language readouts"
Beginnings = tuple[tuple[int, ...], ...]
HINT = "Use more prompts (a larger --limit), or leave the language out with Prompts(…, languages=…)."


def language_readouts(bench: Workbench, prompts: PromptSet) -> dict[str, Readout]:
    """The read-out of every language of a prompt set: its own openings (`refusal`) against all others (`compliant`).

    A gate that has too few responses on one side is noted. Raises UntrustedReadoutError for a language without openings
    of its own, or whose log-odds does not tell it from the others.
    """
    return bench.remember((READ, prompts.digest), partial(_readouts, bench, prompts))


def language_gates(bench: Workbench) -> tuple[LanguageGate, ...]:
    """The gates of the language log-odds of every prompt set that has been read so far."""
    read = {key[1]: found for key, found in bench.memory.items() if key[0] == READ}
    return gates_of(bench, read, "language")


def _readouts(bench: Workbench, prompts: PromptSet) -> dict[str, Readout]:
    languages = prompts.languages
    seen = bench.together(partial(observe, bench, prompts, language) for language in languages)
    observed = dict(zip(languages, seen, strict=True))
    own = _openings(bench, prompts, observed)
    tests = pl.concat([_tests(frame) for frame in observed.values()])
    read = bench.together(partial(_readout, bench, prompts, own, tests, language) for language in languages)
    return dict(zip(languages, read, strict=True))


def _tests(observed: pl.DataFrame) -> pl.DataFrame:
    """Some of the held-out prompts of every context."""
    return observed.filter("held_out").filter(pl.int_range(pl.len()).over("context") < EACH_SIDE)


def _openings(bench: Workbench, prompts: PromptSet, observed: Mapping[str, pl.DataFrame]) -> dict[str, Beginnings]:
    """The openings of every language: those that the model declares, else those read off its responses."""
    declared = bench.subject.openings or {}
    found = {one: declared[one].refusal + declared[one].compliant for one in prompts.languages if one in declared}
    if len(found) == len(prompts.languages):
        return found
    is_in, begun = told(prompts), {}
    for language, frame in observed.items():
        shown = frame.filter(~pl.col("held_out") | declares(bench, language))["response"]
        begun[language] = token_prefixes(bench, shown.filter([is_in(text, language) for text in shown]))
    for language in prompts.languages:
        if language not in found:
            others = [ids for other, listed in begun.items() if other != language for ids in listed]
            found[language] = common_prefixes(begun[language], others)
    return found


def _readout(
    bench: Workbench, prompts: PromptSet, own: Mapping[str, Beginnings], tests: pl.DataFrame, language: str
) -> Readout:
    """The language's openings against those of the others, without what several share, and how they separate."""
    others = [ids for other, found in own.items() if other != language for ids in found]
    mine = shortest(ids for ids in own[language] if not any(overlap(ids, other) for other in others))
    theirs = shortest(ids for ids in others if not any(overlap(ids, one) for one in own[language]))
    if not mine or not theirs:
        raise _untrusted(language, "no opening is known that responses in it have, and those in other languages do not")
    is_in, reads = told(prompts), Openings(refusal=mine, compliant=theirs)
    spoken = [is_in(text, language) for text in tests["response"]]
    odds = log_odds(bench, tests, UNCHANGED, reads, no_progress)
    found = gate(
        odds.to_numpy(),
        spoken,
        minimum=MINIMUM_AUROC,
        each_side=EACH_SIDE,
        kinds=("in-language", "other"),
        what="the language log-odds against the language of the response",
    )
    _check(bench, language, found)
    return Readout(reads=reads, origin="declared" if declares(bench, language) else "estimated", gate=found)


def _check(bench: Workbench, language: str, found: Gate) -> None:
    """Too few responses to test it are a note; a log-odds that does not separate them is of no use."""
    if found.passed:
        return
    if found.auroc is not None and found.auroc < MINIMUM_AUROC:
        raise _untrusted(language, found.why)
    bench.warn(f"{language}: the language log-odds is untested: {found.why}")


def _untrusted(language: str, why: str) -> UntrustedReadoutError:
    return UntrustedReadoutError(f"the language log-odds cannot be trusted in {language}: {why}", HINT)
