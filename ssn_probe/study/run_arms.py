"""The causal study: the same prompts under every arm, from the untouched model to random sets of as many neurons."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.neurons import NeuronSet
from ssn_probe.spec import LeaveOneOut, Patch, Recipe, Trains
from ssn_probe.study.arms import CONTROL, UNTOUCHED, Arm, as_placebo, controls_of, is_ranked, is_weakened, weakened
from ssn_probe.study.patch_source import Source
from ssn_probe.study.progress import Advance
from ssn_probe.study.refusal_readout import UntrustedReadoutError, readouts
from ssn_probe.study.resolve import measured, trained_without
from ssn_probe.study.steps import (
    log_odds_label,
    odds_controls,
    placebo_label,
    random_label,
    random_sets,
    source_label,
    training_label,
    weakened_label,
)
from ssn_probe.study.trained_weights import done, trained_bench
from ssn_probe.study.workbench import Change, Workbench, edits_for, log_odds, responses, rows_of
from ssn_probe.tracing.batching import no_progress


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """One arm on some contexts: what is measured together, and the row of progress that it belongs to."""

    arm: Arm
    row: str
    contexts: Mapping[str, PromptSet]


def sample_passes(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[Pass]:
    """Who generates, in order: baseline, tested, less strongest, placebo, then the controls on harmful prompts only."""
    contexts = measured(recipe, bench.data)
    yield Pass(arm=UNTOUCHED, row=UNTOUCHED.name, contexts=contexts)
    for arm in arms:
        yield Pass(arm=arm, row=arm.name, contexts=contexts)
        if is_weakened(arm):
            yield Pass(arm=weakened(arm), row=weakened_label(arm.name), contexts=contexts)
        if arm.placebo is not None:
            yield Pass(arm=as_placebo(arm), row=placebo_label(arm.name), contexts=contexts)
    harmful = {context: prompts for context, prompts in contexts.items() if context == "harmful"}
    for arm in arms if harmful else ():
        for control in controls_of(bench, arm, random_sets(recipe, arm.does), recipe.seed):
            yield Pass(arm=control, row=random_label(arm.name, recipe), contexts=harmful)


def odds_passes(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[Pass]:
    """Whose refusal log-odds are read, in order; the baseline's belong to no row, since the gate has paid for most."""
    contexts = {name: prompts for name, prompts in measured(recipe, bench.data).items() if name == "harmful"}
    if not contexts or not recipe.log_odds_controls or not arms:
        return
    yield Pass(arm=UNTOUCHED, row="", contexts=contexts)
    for arm in arms:
        beside = [weakened(arm)] if is_weakened(arm) else []
        beside += [] if arm.placebo is None else [as_placebo(arm)]
        for one in (arm, *beside, *controls_of(bench, arm, odds_controls(recipe, arm.does), recipe.seed)):
            yield Pass(arm=at_the_prompt(one), row=log_odds_label(arm.name, recipe), contexts=contexts)


def row_totals(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Mapping[str, int]:
    """Row of progress → prompts, now that the arms are known: one may lack a placebo, or scores to be weakened by."""
    totals: Counter[str] = Counter()
    passes = [(one, False) for one in sample_passes(bench, recipe, arms)]
    for one, odds in [*passes, *((one, True) for one in odds_passes(bench, recipe, arms) if one.row)]:
        for context, prompts in one.contexts.items():
            for language in evaluated_in(one.arm, prompts):
                totals[one.row] += rows_of(bench, prompts, context, language).height
            source = source_of_pass(bench, one.arm, prompts, context, log_odds_only=odds)
            if source is not None:
                totals[source.label] += source.rows.height
    return totals


def collect_samples(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[pl.DataFrame]:
    """Judged responses, one frame per pass, as they come.

    Controls are not run in languages that the arm leaves out of its average. An arm that carries over activations is
    not run in the language that they are from.
    """
    for context, prompts in measured(recipe, bench.data).items():
        for language in prompts.languages:
            if prompts.select("evaluate", context, language).is_empty():
                bench.warn(f"{language} has no {context} prompts to evaluate on: averages leave it out there")
    for arm in arms:
        if not is_ranked(arm) and not isinstance(arm.does, Trains):
            bench.warn(f"{arm.title} has no scores, so none of its neurons is known to be the strongest")
    for one in sample_passes(bench, recipe, arms):
        if any(evaluated_in(one.arm, prompts) for prompts in one.contexts.values()):
            yield _samples(bench, one)


def _samples(bench: Workbench, one: Pass) -> pl.DataFrame:
    frames, advance = [], bench.tracker.advance(one.row)
    for context, prompts in one.contexts.items():
        source = source_of_pass(bench, one.arm, prompts, context)
        for language in evaluated_in(one.arm, prompts):
            frames.append(_in_language(bench, one.arm, prompts, context, language, advance, source))
        if source is not None:
            source.close()
    for node, neurons in trainings_of(bench, one):
        done(bench, node, neurons, training_label(one.arm.name))
    return pl.concat(frames).with_columns(error=pl.lit(None, pl.String))


def trainings_of(bench: Workbench, one: Pass) -> list[tuple[Trains, NeuronSet]]:
    """What a pass needs to have trained: one model, or one per language that is left out."""
    languages = dict.fromkeys(it for prompts in one.contexts.values() for it in evaluated_in(one.arm, prompts))
    return list(trained_for(bench, one.arm, tuple(languages)).values())


def trained_for(
    bench: Workbench, arm: Arm, languages: tuple[str, ...]
) -> Mapping[str | None, tuple[Trains, NeuronSet]]:
    """What an arm trains: under None one model for all languages, or under each of them the one that leaves it out."""
    if arm.training is None:
        return {}
    node, neurons = arm.training
    if not isinstance(node.neurons, LeaveOneOut):
        return {None: (node, neurons)}
    return {one: _left_out(bench, node, neurons, one) for one in languages if one not in arm.skipped}


def _left_out(bench: Workbench, node: Trains, neurons: NeuronSet, language: str) -> tuple[Trains, NeuronSet]:
    return trained_without(node, language, bench.data), neurons.of(language)


def bench_of(bench: Workbench, arm: Arm, language: str) -> Workbench:
    """The bench that an arm is measured in while a language is evaluated: with the weights that the arm trains."""
    if arm.training is None:
        return bench
    node, neurons = arm.training
    if isinstance(node.neurons, LeaveOneOut):
        node, neurons = _left_out(bench, node, neurons, language)
    return trained_bench(bench, node, neurons, training_label(arm.name), step=arm.step)


def source_of_pass(
    bench: Workbench, arm: Arm, prompts: PromptSet, context: str, *, log_odds_only: bool = False
) -> Source | None:
    """The run that an arm carries over from; None for one that carries nothing."""
    if not isinstance(arm.does, Patch) or arm.neurons is None:
        return None
    assert arm.source is not None
    return Source(
        bench_of(bench, arm, arm.source),
        prompts,
        context,
        arm.source,
        neurons=arm.neurons,
        languages=evaluated_in(arm, prompts),
        max_new_tokens=prompts.max_new_tokens if arm.does.positions == "response" else 0,
        label=source_label(arm.name, arm.source, log_odds_only),
    )


def change_of(bench: Workbench, arm: Arm, language: str, rows: pl.DataFrame, source: Source | None) -> Change:
    """What an arm changes while these prompts of a language run on its bench."""
    edits = edits_for(bench, arm.neurons, language, arm.does, arm.source)
    carry = None if source is None else source.carry(list(rows["prompt_id"]), edits)
    return Change(edits=edits, does=arm.does, carry=carry)


def _in_language(
    bench: Workbench, arm: Arm, prompts: PromptSet, context: str, language: str, advance: Advance, source: Source | None
) -> pl.DataFrame:
    rows, bench = rows_of(bench, prompts, context, language), bench_of(bench, arm, language)
    made = responses(bench, prompts, rows, language, change_of(bench, arm, language, rows, source), advance)
    judge = prompts.judge or {}
    named = pl.lit(str(judge.get("name", judge.get("kind")))).alias("judge")
    return rows.select("prompt_id", "cluster", "context").hstack(made).with_columns(*_labels(arm, language), named)


def _labels(arm: Arm, language: str) -> list[pl.Expr]:
    applied = None if arm.neurons is None else arm.set_language or language
    return [
        pl.lit(language).alias("eval_language"),
        pl.lit(applied, pl.String).alias("set_language"),
        pl.lit(arm.name).alias("arm"),
        pl.lit(arm.role).alias("role"),
        pl.lit(arm.seed, pl.Int32).alias("seed"),
        pl.lit(arm.step, pl.Int64).alias("step"),
    ]


def collect_log_odds(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[pl.DataFrame]:
    """The refusal log-odds of every harmful evaluate prompt, one frame per pass, labelled as samples are.

    One forward pass a prompt and no generation, so many more random sets can be tried. What is carried over is so at
    the prompt's last position, whatever the arm does while it generates. Where the log-odds cannot be trusted nothing
    is measured, and the run says so.
    """
    for number, one in enumerate(odds_passes(bench, recipe, arms)):
        if number == 0 and not _trusted(bench, one.contexts["harmful"]):
            return
        if evaluated_in(one.arm, one.contexts["harmful"]):
            yield _log_odds(bench, one)


def _trusted(bench: Workbench, prompts: PromptSet) -> bool:
    try:
        readouts(bench, prompts)
    except UntrustedReadoutError as error:
        bench.warn(f"refusal log-odds not measured: {error.message}")
        return False
    return True


def _log_odds(bench: Workbench, one: Pass) -> pl.DataFrame:
    arm, prompts = one.arm, one.contexts["harmful"]
    advance = bench.tracker.advance(one.row) if one.row else no_progress
    found, source = readouts(bench, prompts), source_of_pass(bench, arm, prompts, "harmful", log_odds_only=True)
    frames = []
    for language in evaluated_in(arm, prompts):
        rows, here = rows_of(bench, prompts, "harmful", language), bench_of(bench, arm, language)
        change = change_of(here, arm, language, rows, source)
        values = log_odds(here, rows, change, found[language].reads, advance)
        frame = rows.select("prompt_id", "cluster").with_columns(log_odds=values)
        frames.append(frame.with_columns(*_labels(arm, language)))
    if source is not None:
        source.close()
    return pl.concat(frames)


def at_the_prompt(arm: Arm) -> Arm:
    """The arm as the log-odds sees it: no response token has been generated."""
    return replace(arm, does=replace(arm.does, positions="last")) if isinstance(arm.does, Patch) else arm


def evaluated_in(arm: Arm, prompts: PromptSet) -> list[str]:
    """The languages that an arm is evaluated in: a control skips those left out of the average, too."""
    skipped = (*(arm.left_out if arm.role == CONTROL else ()), *arm.skipped)
    return [language for language in prompts.languages if language not in skipped]
