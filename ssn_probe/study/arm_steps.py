"""The causal study as steps: the same prompts under every arm, from the untouched model to compared sets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import polars as pl

from ssn_probe.data.clusters import cluster_columns
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.spec import InLanguage, Patch, Recipe, Trains
from ssn_probe.study.arms import ALONE, UNTOUCHED, Arm, Find, beside, labels, sets_beside
from ssn_probe.study.comparisons import COMPARISONS, sets_generating, sets_reading
from ssn_probe.study.edits_of_arms import edits_for
from ssn_probe.study.harmless_text import reading, reading_inputs, texts_of
from ssn_probe.study.harmless_text import table as text_table
from ssn_probe.study.language_readout import language_readouts
from ssn_probe.study.learned_responses import answer_steps
from ssn_probe.study.lm_eval_steps import lm_eval_steps
from ssn_probe.study.measurements import (
    UNCHANGED,
    Change,
    judge_of,
    log_odds,
    log_odds_inputs,
    response_inputs,
    responses,
    rows_of,
)
from ssn_probe.study.patch_source import Source
from ssn_probe.study.refusal_readout import known_readout, readouts
from ssn_probe.study.resolve import found_again, harmless_text, measured
from ssn_probe.study.steps import READING, Step, generating, reading_text, run_unless_done
from ssn_probe.study.trained_arms import bench_of, trained_for, training_label, training_step
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.batching import no_progress


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmPass:
    """An arm on some contexts: what is measured together, and the row of a plan that it belongs to.

    `with_odds`: do `odds_passes` have it, too, so that its refusal log-odds can come with its responses?
    """

    arm: Arm
    label: str
    contexts: Mapping[str, PromptSet]
    table: Literal["samples", "log_odds", "language_log_odds", "kl"]
    with_odds: bool = False


# ── rows of a plan ───────────────────────────────────────────────────────────────────────────────────────────────────

ANSWERS = "baseline: answers to harmless prompts"


def beside_label(arm: str) -> str:
    return f"{arm}, without its top neuron"


def sets_label(arm: str, comparison: str, count: int) -> str:
    return f"{arm}: {COMPARISONS[comparison].counted(count)}"


def log_odds_label(arm: str) -> str:
    return f"{arm}: log-odds only"


def log_odds_sets_label(arm: str, comparison: str, count: int) -> str:
    return f"{sets_label(arm, comparison, count)}, log-odds only"


def language_label(arm: str) -> str:
    return f"{arm}: language log-odds"


def text_label(arm: str) -> str:
    return f"{arm}: KL and perplexity"


def source_label(arm: str, source: str, log_odds_only: bool) -> str:
    return f"{arm}: activations in {source}{', log-odds only' if log_odds_only else ''}"


# ── passes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def sample_passes(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[ArmPass]:
    """Every arm that generates, in order: baseline, tested, beside them, then compared sets on harmful prompts only."""
    contexts = measured(recipe, bench.data)
    with_odds = bool(recipe.log_odds_label_sets and arms)
    everything = partial(ArmPass, contexts=contexts, table="samples", with_odds=with_odds)
    yield everything(arm=UNTOUCHED, label=UNTOUCHED.name)
    for arm in arms:
        yield everything(arm=arm, label=arm.name)
        yield from (everything(arm=other, label=beside_label(arm.name)) for other in beside(arm))
    harmful = _harmful(contexts)
    for arm in arms if harmful else ():
        for name in arm.compared:
            node, made = recipe.arms[arm.name], partial(ArmPass, contexts=harmful, table="samples")
            count, last = sets_generating(recipe, node, name), sets_reading(recipe, node, name)
            for other in sets_beside(bench, recipe, arm, name, count):
                label = sets_label(arm.name, name, count)
                yield made(arm=other, label=label, with_odds=with_odds and (other.seed or 0) <= last)


def odds_passes(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[ArmPass]:
    """Every arm whose refusal log-odds are read; the baseline's belong to no row, since the gate has read most."""
    harmful = _harmful(measured(recipe, bench.data))
    if not harmful or not recipe.log_odds_label_sets or not arms:
        return
    made = partial(ArmPass, contexts=harmful, table="log_odds")
    yield made(arm=UNTOUCHED, label="")
    for arm in arms:
        for other in (arm, *beside(arm)):
            yield made(arm=_at_the_prompt(other), label=log_odds_label(arm.name))
        for name in arm.compared:
            count = sets_reading(recipe, recipe.arms[arm.name], name)
            for other in sets_beside(bench, recipe, arm, name, count):
                yield made(arm=_at_the_prompt(other), label=log_odds_sets_label(arm.name, name, count))


def language_passes(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[ArmPass]:
    """Every arm whose language log-odds are read, where a recipe asks for it: those that generate."""
    harmful = _harmful(measured(recipe, bench.data))
    if not any(isinstance(measure, InLanguage) for measure in recipe.measures) or not arms:
        return
    made = partial(ArmPass, contexts=harmful, table="language_log_odds")
    yield made(arm=UNTOUCHED, label=language_label(UNTOUCHED.name))
    for arm in arms:
        for other in (arm, *beside(arm), *_side_effects(bench, recipe, arm)):
            yield made(arm=_at_the_prompt(other), label=language_label(arm.name))


def text_passes(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[ArmPass]:
    """Every arm that reads harmless text: those that generate, and the sets of some comparisons."""
    prompts = harmless_text(recipe, bench.data)
    if prompts is None:
        return
    made = partial(ArmPass, contexts={"harmless": prompts}, table="kl")
    yield made(arm=UNTOUCHED, label=text_label(UNTOUCHED.name))
    for arm in arms:
        for other in (arm, *beside(arm), *_side_effects(bench, recipe, arm)):
            yield made(arm=other, label=text_label(arm.name))


def _side_effects(bench: Workbench, recipe: Recipe, arm: Arm) -> Iterator[Arm]:
    """The compared sets of which is measured, too, what else they do."""
    for name in arm.compared:
        if COMPARISONS[name].side_effects:
            count = sets_generating(recipe, recipe.arms[arm.name], name)
            yield from sets_beside(bench, recipe, arm, name, count)


def _harmful(contexts: Mapping[str, PromptSet]) -> dict[str, PromptSet]:
    return {context: prompts for context, prompts in contexts.items() if context == "harmful"}


def _at_the_prompt(arm: Arm) -> Arm:
    """The arm as the log-odds sees it: no response token has been generated."""
    return replace(arm, does=replace(arm.does, positions="last")) if isinstance(arm.does, Patch) else arm


def evaluated_in(arm: Arm, prompts: PromptSet) -> list[str]:
    """The languages that an arm is evaluated in: compared sets skip those left out of the average, too."""
    skipped = (*(() if arm.role in ALONE else arm.left_out), *arm.skipped)
    return [language for language in prompts.languages if language not in skipped]


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sample_steps(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[Step]:
    """Judged responses, and the trainings that they need.

    Compared sets are not run in languages that the arm leaves out of its average. An arm that carries over activations
    is not run in the language that they are from.
    """
    trained = [arm.training[0] for arm in arms if arm.training is not None]
    yield from answer_steps(bench, [node for node in trained if node not in found_again(recipe)])
    begun: set[tuple] = set()
    for arm_pass in sample_passes(bench, recipe, arms):
        users = list(_pass_steps(bench, arm_pass))
        for without, training in _trainings(bench, arm_pass).items():
            identity = (
                arm_pass.arm.name,
                arm_pass.arm.seed if isinstance(arm_pass.arm.does, Trains) else None,
                without,
            )
            if identity not in begun:
                begun.add(identity)
                yield training_step(bench, training_label(arm_pass.arm.name), training, users)
        yield from users


def odds_steps(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[Step]:
    """The refusal log-odds of every harmful evaluate prompt, labelled as samples are.

    A forward pass a prompt and no generation, so many more sets can be tried. What is carried over is so at the
    prompt's last position, whatever the arm does while it generates.
    """
    for arm_pass in odds_passes(bench, recipe, arms):
        yield from _pass_steps(bench, arm_pass)


def language_steps(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[Step]:
    """The language log-odds of every harmful evaluate prompt, read as the refusal log-odds is."""
    for arm_pass in language_passes(bench, recipe, arms):
        yield from _pass_steps(bench, arm_pass)


def text_steps(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[Step]:
    """KL from the untouched model and perplexity, on harmless evaluate prompts; a forward pass a prompt.

    Trainings have their steps among those of samples, and so have the untouched model's answers, where harmless
    prompts are judged.
    """
    prompts = harmless_text(recipe, bench.data)
    if prompts is not None and measured(recipe, bench.data).get("harmless") is not prompts:
        yield from (_answers_step(bench, prompts, language) for language in prompts.languages)
    for arm_pass in text_passes(bench, recipe, arms):
        yield from _pass_steps(bench, arm_pass)


def _answers_step(bench: Workbench, prompts: PromptSet, language: str) -> Step:
    """The untouched model's answers to harmless prompts."""
    rows, label = rows_of(bench, prompts, "harmless", language), ANSWERS
    return Step(
        label=label,
        prompts=rows.height,
        cost=generating(prompts.max_new_tokens),
        key=lambda: response_inputs(bench, prompts, rows, UNCHANGED),
        is_kept=partial(bench.is_kept, prompts=rows.height),
        run=lambda: texts_of(bench, prompts, rows, bench.tracker.advance(label)),
    )


def arm_steps(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[Step]:
    """All steps of a recipe's arms; none where it measures nothing."""
    if recipe.measures:
        yield from sample_steps(bench, recipe, arms)
        yield from odds_steps(bench, recipe, arms)
        yield from language_steps(bench, recipe, arms)
        yield from text_steps(bench, recipe, arms)
        yield from lm_eval_steps(bench, recipe, arms)


def _pass_steps(bench: Workbench, arm_pass: ArmPass) -> Iterator[Step]:
    """The measurements of a pass, one per context and language; before those of a Patch, the run it carries from."""
    for context, prompts in arm_pass.contexts.items():
        source = _source(bench, arm_pass, prompts, context)
        users = [
            _measurement(bench, arm_pass, prompts, context, language, source)
            for language in evaluated_in(arm_pass.arm, prompts)
        ]
        if source is not None:
            yield _source_step(bench, source, users)
        yield from users


def _measurement(
    bench: Workbench, arm_pass: ArmPass, prompts: PromptSet, context: str, language: str, source: Source | None
) -> Step:
    arm, rows = arm_pass.arm, rows_of(bench, prompts, context, language)

    def change(here: Workbench) -> Change:
        edits = edits_for(here, arm.neurons, arm.does, language, arm.source)
        carry = None if source is None else source.carry(list(rows["prompt_id"]), edits)
        return Change(edits=edits, does=arm.does, carry=carry)

    def advance():
        return bench.tracker.advance(arm_pass.label) if arm_pass.label else no_progress

    def sample_key() -> Mapping:
        here = bench_of(bench, arm, language)
        return response_inputs(here, prompts, rows, change(here))

    def sample() -> pl.DataFrame:
        here = bench_of(bench, arm, language)
        reads = known_readout(bench, prompts, language) if arm_pass.with_odds and context == "harmful" else None
        found = responses(here, prompts, rows, language, change(here), advance(), reads)
        named = pl.lit(judge_of(bench, prompts).name).alias("judge")
        frame = rows[["prompt_id", *cluster_columns(rows), "context"]].hstack(found)
        return frame.with_columns(*labels(arm, language), named, pl.lit(None, pl.String).alias("error"))

    read = language_readouts if arm_pass.table == "language_log_odds" else readouts

    def odds_key() -> Mapping:
        here = bench_of(bench, arm, language)
        return log_odds_inputs(here, rows, change(here), read(bench, prompts)[language].reads)

    def odds() -> pl.DataFrame:
        here, reads = bench_of(bench, arm, language), read(bench, prompts)[language].reads
        values = log_odds(here, rows, change(here), reads, advance())
        return rows[["prompt_id", *cluster_columns(rows)]].with_columns(
            values.alias("log_odds"), *labels(arm, language)
        )

    def text_key() -> Mapping:
        here = bench_of(bench, arm, language)
        return reading_inputs(here, texts_of(bench, prompts, rows), change(here))

    def text() -> pl.DataFrame:
        texts, here = texts_of(bench, prompts, rows), bench_of(bench, arm, language)
        found = reading(bench, here, texts, change(here), advance())
        return text_table(rows, texts, found, bench.subject.vocabulary).with_columns(*labels(arm, language))

    key, run, cost = {
        "samples": (sample_key, sample, generating(prompts.max_new_tokens)),
        "log_odds": (odds_key, odds, READING),
        "language_log_odds": (odds_key, odds, READING),
        "kl": (text_key, text, reading_text(prompts.max_new_tokens)),
    }[arm_pass.table]
    kept = partial(bench.is_kept, prompts=rows.height)
    return Step(
        label=arm_pass.label,
        prompts=rows.height,
        cost=cost,
        key=key,
        is_kept=kept,
        run=run,
        table=arm_pass.table,
        trusts=partial(read, bench, prompts) if arm_pass.table in ("log_odds", "language_log_odds") else None,
    )


def _source(bench: Workbench, arm_pass: ArmPass, prompts: PromptSet, context: str) -> Source | None:
    """The run that an arm carries over from; None for an arm that carries nothing."""
    arm = arm_pass.arm
    if not isinstance(arm.does, Patch) or arm.find is None:
        return None
    assert arm.source is not None
    find = arm.find
    return Source(
        partial(bench_of, bench, arm, arm.source),
        rows_of(bench, prompts, context, arm.source),
        neurons=find,
        languages=evaluated_in(arm, prompts),
        max_new_tokens=prompts.max_new_tokens if arm.does.positions == "response" else 0,
        label=source_label(arm.name, arm.source, arm_pass.table in ("log_odds", "language_log_odds")),
    )


def _source_step(bench: Workbench, source: Source, users: list[Step]) -> Step:
    """A source need not run where all that takes values from it is known."""
    count = source.rows.height
    return Step(
        label=source.label,
        prompts=count,
        cost=generating(source.max_new_tokens) if source.max_new_tokens else READING,
        key=lambda: source.inputs,
        is_kept=lambda inputs: all(user.is_done() for user in users) or bench.is_kept(inputs, count),
        run=lambda: run_unless_done(users, source.run, source.complete_row),
        trusts=users[0].trusts if users else None,
    )


def _trainings(bench: Workbench, arm_pass: ArmPass) -> dict[str | None, tuple[Trains, Find]]:
    languages = [language for prompts in arm_pass.contexts.values() for language in evaluated_in(arm_pass.arm, prompts)]
    return trained_for(bench, arm_pass.arm, tuple(dict.fromkeys(languages)))
