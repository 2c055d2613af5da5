"""The responses that a training learns where its data have none: the untouched model's own, as its judge calls them.

A harmful row learns a refusal, any other an answer. What the model says to the rows of the *train* split is a
measurement like any other: made once, kept in the cache, judged. A response that was cut is learned without an end.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import polars as pl

from ssn_probe.data.judges import JudgedRow
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.training_rows import SPLIT, Example, training_rows
from ssn_probe.errors import DataError
from ssn_probe.spec import Prompts, Trains
from ssn_probe.study.measurements import UNCHANGED, judge_of, response_inputs, responses
from ssn_probe.study.progress import Advance
from ssn_probe.study.resolve import anchor_of
from ssn_probe.study.steps import Step, generating
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import counted, listing
from ssn_probe.tracing.batching import no_progress

FEWEST = 5
"""Rows of a language and context; with fewer, a training learns these few responses by heart."""
COLUMNS = "a set with responses of its own in a column `reference` (docs/data.md)"


class Said(NamedTuple):
    """The model's own response to a row: its text, and whether it ended before it was cut."""

    text: str
    ends: bool


def made_contexts(node: Trains, prompts: PromptSet, anchor: str | None) -> dict[str, str]:
    """The contexts whose responses the model makes, and how: `anchor` or `own`.

    Raises DataError where the anchor's responses are asked for and there is no anchor.
    """
    if node.references == "columns":
        return {}
    rows = prompts.frame.filter(pl.col("reference").fill_null("").str.strip_chars() != "", split=SPLIT)
    have = set() if node.references else set(rows["context"])
    how = node.references or ("anchor" if anchor in prompts.languages else "own")
    if how == "anchor":
        anchor_of(prompts, anchor)
    return {one: how if one == "harmful" else "own" for one in node.contexts if one not in have}


class Asked(NamedTuple):
    """Rows of the train split that the model answers, all of a context and language."""

    prompts: PromptSet
    context: str
    language: str

    @property
    def rows(self) -> pl.DataFrame:
        return self.prompts.select(SPLIT, self.context, self.language)


def asked_for(nodes: Iterable[Trains], data: Mapping[Prompts, PromptSet], anchor: str | None) -> list[Asked]:
    """What the model answers for some trainings, each once."""
    found = [
        Asked(data[node.data], context, language)
        for node in nodes
        for context, how in made_contexts(node, data[node.data], anchor).items()
        for language in ([anchor] if how == "anchor" else node.languages or data[node.data].languages)
        if language is not None
    ]
    return list(dict.fromkeys(found))


def label(prompts: PromptSet) -> str:
    """What the steps are called, of which one answers the rows of a context and language."""
    return f"own responses to learn ({prompts.name})"


def answer_steps(bench: Workbench, nodes: Iterable[Trains]) -> Iterator[Step]:
    """The steps in which the model answers the rows that some trainings learn.

    A run ends with the first language that has too few, and not where they are learned, after all other arms.
    """
    nodes = tuple(nodes)
    made = {
        (bench.data[node.data].name, context): how
        for node in nodes
        for context, how in made_contexts(node, bench.data[node.data], bench.anchor).items()
    }
    for asked in asked_for(nodes, bench.data, bench.anchor):
        how = made[asked.prompts.name, asked.context]
        yield Step(
            label=label(asked.prompts),
            prompts=asked.rows.height,
            cost=generating(asked.prompts.max_new_tokens),
            key=partial(response_inputs, bench, asked.prompts, asked.rows, UNCHANGED),
            is_kept=partial(bench.is_kept, prompts=asked.rows.height),
            run=partial(_enough_answers, bench, asked, how, bench.tracker.advance(label(asked.prompts))),
        )


def _enough_answers(bench: Workbench, asked: Asked, how: str, advance: Advance) -> pl.DataFrame:
    made = _answers(bench, asked, advance)
    if (fit := len(_fitting(asked, made))) < FEWEST:
        per = f"{fit:,} of {made.height:,} in {asked.language}"
        raise _too_few(asked.prompts.name, [asked.language], asked.context, per, how, bench.anchor)
    return made


def _answers(bench: Workbench, asked: Asked, advance: Advance = no_progress) -> pl.DataFrame:
    return responses(bench, asked.prompts, asked.rows, asked.language, UNCHANGED, advance)


def learned_rows(bench: Workbench, node: Trains) -> tuple[Example, ...]:
    """The rows to learn with their responses. Notes how many there are.

    Raises DataError where a language has too few that its judge calls what they must be.
    """
    prompts = bench.data[node.data]
    made = made_contexts(node, prompts, bench.anchor)
    rows = training_rows(prompts, languages=node.languages, contexts=node.contexts, made=made)
    if not made:
        return rows
    said = {
        (asked.context, asked.language, name): response
        for asked in asked_for([node], bench.data, bench.anchor)
        for name, response in _fitting(asked, _answers(bench, asked)).items()
    }
    found = [_with_response(row, made, said, bench.anchor) for row in rows]
    kept = _judged_again(bench, node, [row for row in found if row is not None], made)
    for context in made:
        _check_enough(bench, node, context, made[context], rows, kept)
    return tuple(kept)


def _fitting(asked: Asked, made: pl.DataFrame) -> Mapping[str, Said]:
    """The responses that the judge calls what the context asks for, by id of the prompt."""
    wanted = "refused" if asked.context == "harmful" else "complied"
    fit = asked.rows.select("prompt_id").hstack(made).filter(verdict=wanted)
    columns = fit.select("prompt_id", "response", "finish_reason").iter_rows()
    return {name: Said(text, reason != "length") for name, text, reason in columns}


def _with_response(
    row: Example, made: Mapping[str, str], said: Mapping[tuple[str, str, str], Said], anchor: str | None
) -> Example | None:
    """A row with the response that was made for it; None where none fits."""
    if row.context not in made:
        return row
    language = anchor if made[row.context] == "anchor" else row.language
    found = said.get((row.context, language or "", row.prompt_id))
    return None if found is None else replace(row, target=found.text, ends=found.ends)


def _judged_again(
    bench: Workbench, node: Trains, rows: Sequence[Example], made: Mapping[str, str]
) -> Sequence[Example]:
    """Without what is no refusal of the request in another language than it was made for."""
    moved = [row for row in rows if made.get(row.context) == "anchor" and row.language != bench.anchor]
    judge = judge_of(bench, bench.data[node.data], node.languages)
    verdicts = judge.judge([JudgedRow(row.language, row.text, row.target) for row in moved])
    wrong = {row for row, found in zip(moved, verdicts, strict=True) if found.verdict != row.wanted}
    return [row for row in rows if row not in wrong]


def _check_enough(
    bench: Workbench, node: Trains, context: str, how: str, rows: Sequence[Example], kept: Sequence[Example]
) -> None:
    """Every language has rows to learn; says how many of them the model gave a response to."""
    asked, got = ([row for row in some if row.context == context] for some in (rows, kept))
    counts = {
        language: (sum(row.language == language for row in got), sum(row.language == language for row in asked))
        for language in dict.fromkeys(row.language for row in asked)
    }
    name, whose = bench.data[node.data].name, _whose(context, how, bench.anchor)
    each = [f"{number:,} of {total:,} in {language}" for language, (number, total) in counts.items()]
    [alike, *others] = dict.fromkeys(f"{number:,} of {total:,} in every language" for number, total in counts.values())
    per = listing(each) if others or len(counts) == 1 else alike
    few = [language for language, (number, _) in counts.items() if number < FEWEST]
    if few:
        raise _too_few(name, few, context, per, how, bench.anchor)
    cut = sum(not row.ends for row in got)
    most = bench.data[node.data].max_new_tokens
    ended = f"; {counted(cut, 'response')} cut at {most} tokens (-T max_new_tokens) teach no end" if cut else ""
    bench.warn(f"{name}: {context} rows learn {whose}: {per}{ended}")


def _whose(context: str, how: str, anchor: str | None) -> str:
    did = "refused" if context == "harmful" else "answered"
    return f"the untouched model's own responses{f' in {anchor}' if how == 'anchor' else ''}, judged {did}"


def _too_few(name: str, languages: Sequence[str], context: str, per: str, how: str, anchor: str | None) -> DataError:
    return DataError(
        f"{name}: too few responses to learn in {', '.join(languages)}: of the {context} train prompts, {per} have one "
        f"({_whose(context, how, anchor)}), and {FEWEST} are the least",
        _remedy(context, how),
    )


def check_rows_to_answer(prompts: PromptSet, rows: Sequence[Example], made: Iterable[str]) -> None:
    """Raises DataError where a language has too few rows, even if the model gives each a response to learn."""
    for context in made:
        counts = Counter(row.language for row in rows if row.context == context)
        if few := {language: number for language, number in counts.items() if number < FEWEST}:
            each = listing([f"{number:,} in {language}" for language, number in few.items()])
            raise DataError(
                f"{prompts.name}: too few {context} train prompts, whose responses to learn the model makes: "
                f"{each}, and {FEWEST} are the least",
                f"Give more prompts to train on, with a larger set or --limit, or {COLUMNS}.",
            )


def _remedy(context: str, how: str) -> str:
    if context != "harmful":
        return f"Leave {context} rows out (-T answers=false, or contexts=('harmful',)), or give {COLUMNS}."
    if how == "own":
        return f"Take the refusals of the anchor for all languages (references='anchor'), more prompts, or {COLUMNS}."
    return (
        "Give more prompts, a model that refuses more of them in the anchor, or "
        f"{COLUMNS}. Where the prompts of the languages are no translations of each other, take references='own'."
    )
