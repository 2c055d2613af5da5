"""Who judges the responses of a study, and what it cannot do without a judge."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from ssn_probe.data.judges import UNJUDGED, Judge, is_unjudged, make_judge, require_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.model.subject import Subject
from ssn_probe.spec import Prompts, Recipe, Trains
from ssn_probe.spec.node import digest, walk
from ssn_probe.study.arms import ALONE
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.measurements import judge_of
from ssn_probe.study.refusal_trial import SIDES, WITHOUT_GATE, gated_sets, tried_languages, tried_sets
from ssn_probe.study.resolve import choosers, measured, reads_language, reads_log_odds
from ssn_probe.study.steps import Row
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import counted, listing


def check_judged(recipe: Recipe, data: Mapping[Prompts, PromptSet], subject: Subject) -> None:
    """Raises JudgeError where neurons are chosen by openings that only verdicts could tell."""
    for node in choosers(recipe):
        prompts = data[node.prompts]
        unknown = [language for language in prompts.languages if language not in _declared(subject)]
        if node.scored_by.reads_refusal and unknown:
            purpose = (
                f"effect={node.effect} learns from judged responses how the model begins to refuse in "
                f"{', '.join(unknown)}"
            )
            require_judge(prompts.judge, prompts.name, purpose)


def _declared(subject: Subject) -> Mapping[str, Any]:
    return subject.openings or {}


def notes_on_judges(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> Iterator[str]:
    """That responses are unjudged, where they are, and how to judge them later."""
    names = {prompts.name for prompts in measured(recipe, data).values() if is_unjudged(prompts.judge)}
    for name in sorted(names):
        yield (
            f"the responses to {name} are unjudged, as no judge is named: there is no ASR. "
            "`ssn-probe judge RUN --with phrases` judges them without the model"
        )


def sending(judge: Judge, responses: int) -> str:
    """What a reader must know before a judge asks somebody over a network."""
    return (
        f"at most {counted(responses, 'response')} will be sent, each with its request, to "
        f"{judge.identity.get('endpoint', 'a service')}, for {judge.name} to judge; what it judged before is not sent"
    )


def notes_on_sending(bench: Workbench, recipe: Recipe, rows: Iterable[Row]) -> Iterator[str]:
    """How many responses of a run will be sent to whom, for every judge that asks somebody over a network."""
    judges = {}
    for prompts in bench.data.values():
        judge = make_judge(prompts.judge, prompts.languages, prompts.name, asked=False)
        judges[digest(dict(judge.identity))] = judge
    responses = sum(row.prompts for row in rows if row.cost.work == "responses")
    gated = {*gated_sets(recipe, bench.data), *reads_log_odds(recipe, bench.data), *reads_language(recipe, bench.data)}
    for prompts in set(tried_sets(recipe, bench.data)) - gated:
        places = [(language, side) for language in tried_languages(bench, prompts) for side in SIDES]
        responses += sum(min(WITHOUT_GATE, prompts.select("identify", side, name).height) for name, side in places)
    trains = any(isinstance(node, Trains) for node in walk(recipe))
    also = ". Training also sends the rows to learn, and responses to rows that are held out" if trains else ""
    for judge in judges.values():
        if not judge.local:
            yield f"{sending(judge, responses)}{also}"


def notes_on_unjudged(samples: pl.DataFrame | None) -> Iterator[str]:
    """How many responses a judge left without a verdict, of those whose verdicts are counted."""
    if samples is None:
        return
    judged = samples.filter(pl.col("context") != "harmless", pl.col("judge") != UNJUDGED)
    for (judge,), rows in judged.group_by("judge", maintain_order=True):
        lost = rows.filter(verdict="unjudged").height
        if lost:
            yield (
                f"{judge} gave no verdict on {lost:,} of {rows.height:,} responses, which are in no rate: "
                "`ssn-probe results RUN --responses --verdict unjudged` says why"
            )
    yield from _notes_on_lost_sets(samples)


def _notes_on_lost_sets(samples: pl.DataFrame) -> Iterator[str]:
    """Which compared sets have no verdict at all in a language: they are in no average that has the language."""
    harmful = samples.filter(~pl.col("role").is_in(ALONE), pl.col("judge") != UNJUDGED, context="harmful")
    lost = harmful.group_by("arm", "step", "role", "seed", "eval_language", maintain_order=True).agg(
        (pl.col("verdict") == "unjudged").all().alias("lost")
    )
    for (arm, role), rows in lost.filter("lost").group_by("arm", "role", maintain_order=True):
        sets = COMPARISONS[str(role)].counted(count := rows.select("step", "seed").n_unique())
        languages = listing(list(rows["eval_language"].unique(maintain_order=True)))
        yield (
            f"{sets} beside {arm} got no verdict in {languages}, and {'is' if count == 1 else 'are'} not compared with "
            "it there or on the average"
        )


def judges_json(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> list[dict[str, Any]]:
    """What a manifest says of the judges of responses, and which contexts each of them judges."""
    found: dict[str, dict[str, Any]] = {}
    for context, prompts in measured(recipe, data).items():
        judge = make_judge(prompts.judge, prompts.languages, prompts.name, asked=False)
        key = digest(dict(judge.identity))
        found.setdefault(key, {**recorded(judge), "contexts": []})["contexts"].append(context)
    return list(found.values())


def recorded(judge: Judge) -> dict[str, Any]:
    """A judge as a manifest records it: its name, the digest of its identity, and the address of an endpoint."""
    identity = dict(judge.identity)
    return {"name": judge.name, "sha256": digest(identity)} | {
        name: identity[name] for name in ("endpoint",) if name in identity
    }


def with_spent(judges: Sequence[Mapping[str, Any]], bench: Workbench, recipe: Recipe) -> list[dict[str, Any]]:
    """The same with what each has cost in this run."""
    made = [judge_of(bench, prompts) for prompts in measured(recipe, bench.data).values()]
    spent = {digest(dict(judge.identity)): judge.spent() for judge in made if judge.spent()}
    return [dict(one) | ({"spent": spent[one["sha256"]]} if one["sha256"] in spent else {}) for one in judges]
