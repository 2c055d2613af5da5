"""Does the model refuse at all? A few greedy responses to *identify* prompts, before anything takes long.

Neurons are safety neurons only where there is refusal, and the refusal log-odds needs refused responses to be tested
on. Ten harmful and ten harmless prompts in the anchor and in one other language tell; more are tried, up to forty of
each, while these few leave it open, and up to 160 where the gate of the refusal log-odds may still be within reach.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from ssn_probe.data.judges import is_unjudged, require_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.runs.cache import NotCached
from ssn_probe.spec import Recipe
from ssn_probe.stats.refusal_counts import Refusing, out_of_reach, refusing
from ssn_probe.study.arms import BASELINE
from ssn_probe.study.measurements import UNCHANGED, responses
from ssn_probe.study.refusal_readout import EACH_SIDE, HELD_OUT, UntrustedReadoutError, give_up
from ssn_probe.study.resolve import choosers, reads_log_odds
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import listing
from ssn_probe.tracing.batching import no_progress

PORTIONS = (10, 20, 40, 80, 160)
"""So many prompts of each side are tried, one portion after the other, until it is clear."""
WITHOUT_GATE = 40
"""The most that are tried where no gate asks for refusals."""
RESPONSE_COLUMNS = ("verdict", "reason", "response", "tokens", "finish_reason")
SIDES = ("harmful", "harmless")


@dataclass(frozen=True, kw_only=True)
class Refusals:
    """How many judged responses of a language refused: of those tried, or of all; plain JSON values."""

    data: str
    language: str
    harmful: int
    refused: int
    harmless: int
    refused_harmless: int
    unjudged: int = 0

    @property
    def shows(self) -> Refusing:
        return refusing(self.refused, self.harmful, self.refused_harmless, self.harmless)


@dataclass(frozen=True, kw_only=True)
class GateNeed:
    """What the gate of the refusal log-odds needs in a language: responses of each kind, of so many prompts.

    One in `parts` counts: in the anchor all, since its refusal direction serves where openings do not, and in a study
    without an anchor those that are held out.
    """

    data: str
    language: str
    each_side: int
    harmful: int
    harmless: int
    parts: int = 1

    @property
    def can_be_met(self) -> bool:
        return self.harmful // self.parts + self.harmless // self.parts >= 2 * self.each_side


def nothing_seen(data: str, language: str) -> Refusals:
    return Refusals(data=data, language=language, harmful=0, refused=0, harmless=0, refused_harmless=0)


def verdict_of(found: Sequence[Refusals]) -> Refusing:
    """Of several languages: refusal is shown where one shows it."""
    order: tuple[Refusing, ...] = ("shown", "always", "hardly", "unknown")
    shown = {one.shows for one in found}
    for kind in order:
        if kind in shown:
            return kind
    return "unknown"


def tried_sets(recipe: Recipe, data: Mapping) -> tuple[PromptSet, ...]:
    """The prompt sets that choose neurons, or that the refusal log-odds is tested on."""
    chosen = [data[node.prompts] for node in choosers(recipe)]
    return tuple(dict.fromkeys((*chosen, *reads_log_odds(recipe, data))))


def gated_sets(recipe: Recipe, data: Mapping) -> tuple[PromptSet, ...]:
    """The prompt sets without whose refusal log-odds no neuron can be chosen."""
    return tuple(dict.fromkeys(data[node.prompts] for node in choosers(recipe) if node.scored_by.reads_refusal))


def gate_needs(bench: Workbench, prompts: PromptSet) -> list[GateNeed]:
    """What must be there in every language that nothing but its own responses can serve."""
    has_anchor = bench.anchor in prompts.languages
    found = []
    for language in (bench.anchor,) if has_anchor else prompts.languages:
        assert language is not None
        declared = bench.subject.openings is not None and language in bench.subject.openings
        parts = 1 if has_anchor or declared else HELD_OUT
        counts = {side: prompts.select("identify", side, language).height for side in SIDES}
        found.append(GateNeed(data=prompts.name, language=language, each_side=EACH_SIDE, parts=parts, **counts))
    return found


def try_refusal(bench: Workbench, recipe: Recipe) -> tuple[Refusals, ...] | None:
    """What the few responses say, per prompt set and language. Says and notes it where refusal is not shown.

    None where it may not be tried now: a run of an earlier release is repeated from its cache. Raises
    UntrustedReadoutError where neurons cannot be chosen, since their gate cannot be passed.
    """
    found: list[Refusals] = []
    try:
        for prompts in tried_sets(recipe, bench.data):
            found += _tried_set(bench, prompts, gated=prompts in gated_sets(recipe, bench.data))
    except NotCached:
        return None
    if verdict_of(found) in ("hardly", "always"):
        note = f"{what_was_seen(found)}: no refusal was shown, so no set of this run is one of safety neurons"
        bench.warn(note)
        bench.tracker.say(f"Note: {note}.")
    return tuple(found)


def _tried_set(bench: Workbench, prompts: PromptSet, *, gated: bool) -> Iterator[Refusals]:
    """What a language or two of a prompt set give. Raises, or gives the log-odds up, where its gate is out of reach."""
    needs = {need.language: need for need in gate_needs(bench, prompts)}
    unknown = [language for language in prompts.languages if language not in (bench.subject.openings or {})]
    if gated and is_unjudged(prompts.judge) and not unknown:
        return  # openings that the model declares are read untested
    if is_unjudged(prompts.judge) and not gated and unknown:
        why = f"responses are unjudged, and how the model begins to refuse in {listing(unknown)} is not known"
        give_up(bench, prompts, UntrustedReadoutError(why, "Name a judge: --judge phrases."))
    if gated:
        require_judge(prompts.judge, prompts.name, "the gate of the refusal log-odds needs verdicts")
        _check_size(needs.values())
    for language in tried_languages(bench, prompts):
        need = needs.get(language)
        found = tried(bench, prompts, language, PORTIONS[-1] if gated else WITHOUT_GATE, need if gated else None)
        if need is not None and is_out_of_reach(need, found):
            error = out_of_reach_error(need, found)
            if gated:
                raise error
            give_up(bench, prompts, error)
        yield found


def tried_languages(bench: Workbench, prompts: PromptSet) -> list[str]:
    """The anchor and one other language."""
    return sorted(prompts.languages, key=lambda language: language != bench.anchor)[:2]


def what_was_seen(found: Sequence[Refusals]) -> str:
    """`of the prompts tried, the model refused 1 of 10 harmful and 0 of 10 harmless in en, and …`."""
    parts = [
        f"{one.refused:,} of {one.harmful:,} harmful and {one.refused_harmless:,} of {one.harmless:,} harmless ones "
        f"in {one.language}"
        for one in found
    ]
    return f"of the prompts that were tried, the model refused {listing(parts)}"


def tried(bench: Workbench, prompts: PromptSet, language: str, most: int, need: GateNeed | None = None) -> Refusals:
    """At most so many prompts of each side, until they show refusal, or that what is needed is out of reach.

    All is zero where nobody judges.
    """
    found = nothing_seen(prompts.name, language)
    if is_unjudged(prompts.judge):
        return found
    for found in _portions(bench, prompts, language, most):
        if found.unjudged or found.shows == "shown" or (need is not None and is_out_of_reach(need, found)):
            break
    return found


def _portions(bench: Workbench, prompts: PromptSet, language: str, most: int) -> Iterator[Refusals]:
    """What the prompts tried so far gave, after every portion."""
    rows = {side: _drawn(prompts.select("identify", side, language)) for side in SIDES}
    found = nothing_seen(prompts.name, language)
    for begin, end in zip((0, *PORTIONS), PORTIONS, strict=False):
        portion = pl.concat([rows[side][begin:end] for side in SIDES])
        if portion.is_empty() or end > most:
            return
        made = responses(bench, prompts, portion, language, UNCHANGED, no_progress)
        found = added(found, portion["context"], made["verdict"])
        yield found


def _drawn(rows: pl.DataFrame) -> pl.DataFrame:
    """The prompts in an order that has nothing to do with what they say, the same on every machine."""
    drawn = rows["prompt_id"].map_elements(lambda one: hashlib.sha256(one.encode()).hexdigest(), pl.String)
    return rows[drawn.arg_sort().to_list()]


def added(found: Refusals, contexts: pl.Series, verdicts: pl.Series) -> Refusals:
    """With some responses more."""
    rows = pl.DataFrame({"context": contexts, "verdict": verdicts, "refused": verdicts == "refused"})
    judged = rows.filter(pl.col("verdict") != "unjudged")
    harmful, harmless = (judged.filter(context=side) for side in SIDES)
    return replace(
        found,
        harmful=found.harmful + harmful.height,
        refused=found.refused + int(harmful["refused"].sum()),
        harmless=found.harmless + harmless.height,
        refused_harmless=found.refused_harmless + int(harmless["refused"].sum()),
        unjudged=found.unjudged + rows.height - judged.height,
    )


def with_baseline(found: Sequence[Refusals], samples: pl.DataFrame | None) -> tuple[Refusals, ...]:
    """With the responses of the untouched model to *evaluate* prompts, in every language; one entry per language."""
    by_language: dict[str, Refusals] = {}
    for one in found:
        by_language[one.language] = _together(by_language.get(one.language), one)
    if samples is not None:
        untouched = samples.filter(role=BASELINE)
        for language in untouched["eval_language"].unique(maintain_order=True):
            rows = untouched.filter(eval_language=language)
            known = by_language.get(language) or nothing_seen("", language)
            by_language[language] = added(known, rows["context"], rows["verdict"])
    return tuple(by_language.values())


def _together(one: Refusals | None, other: Refusals) -> Refusals:
    if one is None:
        return other
    counts = ("harmful", "refused", "harmless", "refused_harmless", "unjudged")
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in counts})


def identify_responses(bench: Workbench) -> pl.DataFrame | None:
    """Every response of the untouched model to an *identify* prompt that there is, each once; None where there is none.

    Prompt sets may give different prompts the same id: `data` is the set that a row is of, or one of them.
    Kept also where a run fails, so that a reader sees why. Rows are in an order that does not depend on which responses
    came first.
    """
    sets = {prompts.digest: prompts for prompts in bench.data.values()}
    places = {(data, one): place for data, prompts in sets.items() for place, one in enumerate(prompts.languages)}
    found = [(key, made) for key, made in bench.memory.items() if key[0] == "responses" and not key[-1]]
    found = sorted(
        (one for one in found if one[0][1] in sets), key=lambda one: (places.get(one[0][1:3], -1), *one[0][1:4])
    )
    names, frames = _set_names(list(sets.values())), []
    for (_, data, language, ids, *_), made in found:
        rows = sets[data].frame.filter(split="identify", language=language).select("prompt_id", "context", "text")
        asked = pl.DataFrame({"prompt_id": ids}).join(rows, on="prompt_id", how="left", maintain_order="left")
        named = {"eval_language": language, "arm": BASELINE, "split": "identify", "data": names[data]}
        frames.append(
            asked.hstack(made)
            .drop_nulls("context")
            .with_columns(**{name: pl.lit(value) for name, value in named.items()})
        )
    columns = ["prompt_id", "context", "split", "eval_language", "arm", "data", *RESPONSE_COLUMNS]
    same = ["prompt_id", "context", "eval_language", "text", *RESPONSE_COLUMNS]
    if not any(frame.height for frame in frames):
        return None
    return pl.concat(frames).unique(same, keep="first", maintain_order=True).select(columns)


def _set_names(sets: Sequence[PromptSet]) -> dict[str, str]:
    """What prompt sets are called, by digest: namesakes have the beginning of it, too."""
    counts = Counter(prompts.name for prompts in sets)
    return {one.digest: one.name if counts[one.name] == 1 else f"{one.name} ({one.digest[:8]})" for one in sets}


# ── the gate ─────────────────────────────────────────────────────────────────────────────────────────────────────────

INSTEAD = "use an effect that needs no refusal, -T effect=local, or a model that refuses"


def _check_size(needs: Iterable[GateNeed]) -> None:
    for need in needs:
        if not need.can_be_met:
            raise UntrustedReadoutError(
                f"the refusal log-odds cannot be trusted in {need.language}: too few responses: its gate needs "
                f"{need.each_side} refused and {need.each_side} other responses, and {need.data} has "
                f"{need.harmful} harmful and {need.harmless} harmless identify prompts"
                f"{f', of which one in {need.parts} tests it' if need.parts > 1 else ''}",
                f"Use more prompts (a larger --limit), or {INSTEAD}.",
            )


def is_out_of_reach(need: GateNeed, found: Refusals) -> bool:
    """Are there too few refusals, or too few other responses, to be expected of all prompts?"""
    if not found.harmful or found.unjudged:
        return False
    refused = (found.refused, found.refused_harmless)
    other = (found.harmless - found.refused_harmless, found.harmful - found.refused)
    tried, total = (found.harmful, found.harmless), (need.harmful, need.harmless)
    return out_of_reach(need.each_side, refused, tried, total) or out_of_reach(
        need.each_side, other, (tried[1], tried[0]), (total[1], total[0])
    )


def out_of_reach_error(need: GateNeed, found: Refusals) -> UntrustedReadoutError:
    return UntrustedReadoutError(
        f"the refusal log-odds cannot be trusted in {need.language}: {what_was_seen([found])}; its gate needs "
        f"{need.each_side} refused and {need.each_side} other responses of {need.harmful:,} harmful and "
        f"{need.harmless:,} harmless prompts ({need.data}), which are out of reach",
        f"{INSTEAD[0].upper()}{INSTEAD[1:]}.",
    )


def check_gate(bench: Workbench, prompts: PromptSet, language: str, contexts: pl.Series, verdicts: pl.Series) -> None:
    """All responses of a language are there: raises UntrustedReadoutError where they are too few for the gate."""
    found = added(nothing_seen(prompts.name, language), contexts, verdicts)
    for need in gate_needs(bench, prompts):
        if need.language == language and is_out_of_reach(need, found):
            raise out_of_reach_error(need, found)
