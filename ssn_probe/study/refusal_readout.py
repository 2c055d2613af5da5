"""How a model begins to refuse and to comply, per language, and whether the refusal log-odds can be trusted there.

A model may declare its openings. Otherwise they are read off its own greedy responses to *identify* prompts: the
prefixes that refused and complied responses begin with, one token at first, longer where both sides share it. A gate
then asks, on held-out prompts, whether the log-odds separates refused from other responses (AUROC ≥ .85, ≥ 20
responses each side).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Direction, Openings, overlap
from ssn_probe.spec.node import digest
from ssn_probe.stats import Gate, gate
from ssn_probe.study.measurements import UNCHANGED, log_odds, reads_json, responses, states, tokens_of
from ssn_probe.study.workbench import METHODS, Workbench
from ssn_probe.tracing.batching import no_progress

HELD_OUT = 4
"""Every fourth identify prompt is left out of the estimate of openings, to test the refusal log-odds on."""
MOST, LONGEST = 8, 5
"""At most so many openings a side, of at most so many tokens."""

MINIMUM_AUROC, EACH_SIDE = 0.85, 20
"""What the gate asks for: separation, and responses on either side."""


class UntrustedReadoutError(ModelError):
    """No read-out of refusal separates refused from other responses in some language."""


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What the refusal effect reads in one language: openings, where they are from, and how well they separate."""

    reads: Openings | Direction
    origin: str
    gate: Gate


@dataclass(frozen=True, kw_only=True)
class LanguageGate:
    """How a log-odds was read in a language, and how well it separates responses there; plain JSON values.

    `refused`: how many responses refused, or were in the language, as the `behaviour` asks; `other`: all others.
    """

    data: str
    language: str
    origin: str
    auroc: float | None
    refused: int
    other: int
    behaviour: str = "refusal"


def gates(bench: Workbench) -> tuple[LanguageGate, ...]:
    """The gates of every prompt set that has been read so far."""
    return gates_of(bench, bench.readouts, "refusal")


def gates_of(bench: Workbench, read: Mapping[str, Mapping[str, Readout]], behaviour: str) -> tuple[LanguageGate, ...]:
    """The gates of read-outs, by digest of the prompt set and by language."""
    names = {prompts.digest: prompts.name for prompts in bench.data.values()}
    return tuple(
        LanguageGate(
            data=names[data],
            language=language,
            origin=found.origin,
            auroc=found.gate.auroc,
            refused=found.gate.n_refused,
            other=found.gate.n_other,
            behaviour=behaviour,
        )
        for data, languages in read.items()
        if data in names
        for language, found in languages.items()
    )


def readouts(bench: Workbench, prompts: PromptSet) -> dict[str, Readout]:
    """The read-out of every language of a prompt set.

    A language that fails the gate with its own openings gets the union with the anchor's, and failing that the
    anchor's refusal direction: both visibly, in the notes and the table of gates. Raises ModelError where none serves.
    """

    if (why := given_up(bench, prompts)) is not None:
        raise why
    with bench.alone(("readouts", id(bench.readouts), prompts.digest)):
        if prompts.digest not in bench.readouts:
            bench.readouts[prompts.digest] = _readouts(bench, prompts)
    return bench.readouts[prompts.digest]


def _readouts(bench: Workbench, prompts: PromptSet) -> dict[str, Readout]:
    languages = prompts.languages
    seen = bench.together(partial(observe, bench, prompts, language) for language in languages)
    observed = dict(zip(languages, seen, strict=True))
    own = {language: _own_openings(bench, language, observed[language]) for language in languages}
    read = bench.together(partial(_readout, bench, observed, own, language) for language in languages)
    return dict(zip(languages, read, strict=True))


def known_readout(bench: Workbench, prompts: PromptSet, language: str) -> Openings | Direction | None:
    """How refusal is read in a language; None where `readouts` has not found it."""
    found = bench.readouts.get(prompts.digest, {})
    return found[language].reads if language in found else None


def give_up(bench: Workbench, prompts: PromptSet, why: UntrustedReadoutError) -> None:
    """From now on nothing is measured to test the refusal log-odds of a prompt set: `readouts` raises `why`."""
    bench.memory[_given_up(prompts)] = why


def given_up(bench: Workbench, prompts: PromptSet) -> UntrustedReadoutError | None:
    """Why nothing is measured to test the refusal log-odds of a prompt set; None where it is."""
    return bench.memory.get(_given_up(prompts))


def _given_up(prompts: PromptSet) -> tuple[str, str]:
    return ("no refusal log-odds", prompts.digest)


def observe(bench: Workbench, prompts: PromptSet, language: str) -> pl.DataFrame:
    """Greedy responses to a language's identify prompts, and which of them test the openings.

    Every fourth prompt of a context is held out where openings are estimated; where they are declared, no response had
    a part in choosing them, and all of them test.
    """
    rows = gate_rows(prompts, language)
    made = responses(bench, prompts, rows, language, UNCHANGED, no_progress)
    fourth = pl.int_range(pl.len()).over("context") % HELD_OUT == HELD_OUT - 1
    held_out = pl.lit(True) if declares(bench, language) else fourth
    return rows.hstack(made.select("response", "verdict")).with_columns(held_out=held_out)


def gate_rows(prompts: PromptSet, language: str) -> pl.DataFrame:
    """The prompts whose responses show how a language refuses and complies."""
    return pl.concat([prompts.select("identify", context, language) for context in ("harmful", "harmless")])


def declares(bench: Workbench, language: str) -> bool:
    return bench.subject.openings is not None and language in bench.subject.openings


def _readout(
    bench: Workbench, observed: dict[str, pl.DataFrame], own: dict[str, Openings | None], language: str
) -> Readout:
    """The first of: own openings, own and the anchor's, the anchor's refusal direction, that passes the gate."""
    anchor = bench.anchor if bench.anchor in observed else None
    mine, anchors, here = own[language], None if anchor is None else own[anchor], observed[language]
    origin = "declared" if declares(bench, language) else "estimated"
    if (here["verdict"] == "unjudged").all():
        if mine is None or origin == "estimated":
            raise UntrustedReadoutError(f"responses in {language} are unjudged", "Name a judge: --judge phrases.")
        untested = Gate(auroc=None, n_refused=0, n_other=0, passed=False, why="responses are unjudged")
        return Readout(reads=mine, origin="declared, untested", gate=untested)
    tried = [] if mine is None else [_tried(bench, here, mine, origin)]
    if not _passed(tried) and mine is not None and anchors is not None and language != anchor:
        both = union(mine, anchors)
        tried += [] if both == mine else [_tried(bench, here, both, f"{origin}, with the anchor's")]
    if not _passed(tried):
        direction = None if anchor is None else refusal_direction(bench, observed[anchor], anchors)
        tried += [] if direction is None else [_tried(bench, here, direction, "the anchor's refusal direction")]
        if not tried or not _separates(tried[-1]):
            raise _untrusted(language, tried)
    if len(tried) > 1 or mine is None:
        why = tried[0].gate.why if mine is not None else "no opening separates"
        untested = "" if tried[-1].gate.passed else ", which was not tested there"
        bench.warn(
            f"{language}: its own openings failed the AUROC gate ({why}); "
            f"refusal is read by {tried[-1].origin}{untested}: {tried[-1].gate.why}"
        )
    return tried[-1]


def _passed(tried: list[Readout]) -> bool:
    return bool(tried) and tried[-1].gate.passed


def _separates(readout: Readout) -> bool:
    """The last resort may have few responses to be tested on, but never a poor AUROC."""
    area = readout.gate.auroc
    return isinstance(readout.reads, Direction) and (area is None or area >= MINIMUM_AUROC)


def _untrusted(language: str, tried: list[Readout]) -> UntrustedReadoutError:
    why = tried[-1].gate.why if tried else "no opening separates refusals from answers, and there is no direction"
    return UntrustedReadoutError(
        f"the refusal log-odds cannot be trusted in {language}: {why}",
        "Use more prompts (a larger --limit), leave the language out with Prompts(…, languages=…), or use an effect "
        "without openings: -T effect=local.",
    )


def union(mine: Openings, anchors: Openings) -> Openings:
    """A language's openings and those of the anchor that have no part in them.

    What begins a refusal in one language may begin an answer in the other: the language's own responses say which it
    is there. And of two openings on one side, one of which begins with the other, the probability would count twice.
    """
    own = (*mine.refusal, *mine.compliant)

    def apart(openings: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        return tuple(one for one in openings if not any(overlap(one, other) for other in own))

    return Openings(refusal=mine.refusal + apart(anchors.refusal), compliant=mine.compliant + apart(anchors.compliant))


def _tried(bench: Workbench, observed: pl.DataFrame, reads: Openings | Direction, origin: str) -> Readout:
    """The gate: does r separate refused from other responses among the held-out prompts?"""
    held_out = observed.filter("held_out")
    odds = log_odds(bench, held_out, UNCHANGED, reads, no_progress)
    refused = (held_out["verdict"] == "refused").to_numpy()
    return Readout(reads=reads, origin=origin, gate=gate(odds.to_numpy(), refused, minimum=MINIMUM_AUROC))


def refusal_direction(bench: Workbench, observed: pl.DataFrame, openings: Openings | None) -> Direction | None:
    """The mean final state of refused less that of complied responses, as a read-out r.

    A difference of means of the final-norm state at the last prompt token (Arditi et al. 2024 use mid-layer ones). It
    is scaled so that r differs between the two means as the anchor's log-odds does, so that languages read either way
    can be averaged; without openings it differs by 1. None where the anchor has fewer than 20 responses of either kind.
    """

    def compute() -> Direction | None:
        sides = [observed.filter(verdict=verdict) for verdict in ("refused", "complied")]
        if min(side.height for side in sides) < EACH_SIDE:
            return None
        shown = [digest(tokens_of(bench, side)) for side in sides]
        reads = None if openings is None else reads_json(openings)
        rests_on = {method: METHODS[method] for method in ("final states", "log odds")}
        inputs = bench.inputs("direction", prompts=shown, reads=reads, rests_on=rests_on)
        found = bench.frames(inputs, ["direction"], lambda: {"direction": _between(bench, sides, openings)})
        return Direction(tuple(found["direction"]["value"]))

    return bench.remember(("direction", tuple(observed["text"]), tuple(observed["verdict"]), openings), compute)


def _between(bench: Workbench, sides: Sequence[pl.DataFrame], openings: Openings | None) -> pl.DataFrame:
    """The direction from the mean state of complied responses to that of refused ones, scaled: a row per channel."""
    refused, complied = (states(bench, side).double().mean(0) for side in sides)
    scale = 1.0
    if openings is not None:
        odds = [float(log_odds(bench, side, UNCHANGED, openings, no_progress).to_numpy().mean()) for side in sides]
        scale = odds[0] - odds[1]
    gap = refused - complied
    return pl.DataFrame({"value": (scale * gap / gap.square().sum()).tolist()})


def _own_openings(bench: Workbench, language: str, observed: pl.DataFrame) -> Openings | None:
    """Those the model declares, else those read off its responses; None where none separates the two sides."""
    declared = bench.subject.openings
    if declared is not None and language in declared:
        return declared[language]
    seen = observed.filter(~pl.col("held_out"))
    sides = [token_prefixes(bench, seen.filter(verdict=side)["response"]) for side in ("refused", "complied")]
    refusal, compliant = estimate_openings(*sides)
    return Openings(refusal=refusal, compliant=compliant) if refusal and compliant else None


def token_prefixes(bench: Workbench, texts: pl.Series) -> list[tuple[int, ...]]:
    subject, some = bench.subject, list(texts)

    def compute() -> list[list[int]]:
        return [subject.tokenizer(text, add_special_tokens=False)["input_ids"][:LONGEST] for text in some]

    return [tuple(ids) for ids in subject.kept.value("beginnings", [LONGEST, some], compute) if ids]


def estimate_openings(
    refused: Sequence[tuple[int, ...]], complied: Sequence[tuple[int, ...]]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """The `common_prefixes` of refusals, and of answers."""
    return common_prefixes(refused, complied), common_prefixes(complied, refused)


def common_prefixes(side: Sequence[tuple[int, ...]], other: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The ≤ 8 commonest prefixes of one side that the other never begins with.

    A shared prefix grows by a token until it separates, and is dropped when it does not within 5 tokens.
    """
    taken = {prefix[:length] for prefix in other for length in range(1, min(len(prefix), LONGEST) + 1)}
    counts: Counter[tuple[int, ...]] = Counter()
    for prefix in side:
        shortest = next((prefix[:n] for n in range(1, min(len(prefix), LONGEST) + 1) if prefix[:n] not in taken), None)
        if shortest is not None:
            counts[shortest] += 1
    return tuple(prefix for prefix, _ in counts.most_common(MOST))
