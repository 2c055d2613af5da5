"""The causal study: the same prompts under every arm, from the untouched model to random sets of as many neurons."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import polars as pl

from ssn_probe.arms import CONTROL, UNTOUCHED, Arm, as_placebo, controls_of, is_ranked, weakened
from ssn_probe.lab import Lab, Values, edits_for, log_odds, responses, rows_of
from ssn_probe.openings import UntrustedReadoutError, readouts
from ssn_probe.plan import log_odds_label, measured, placebo_label, random_label, source_label, weakened_label
from ssn_probe.progress import Advance
from ssn_probe.prompts import PromptSet
from ssn_probe.recipe import Patch, Recipe
from ssn_probe.source import Source
from ssn_probe.tracing.edits import Edits


def collect_samples(lab: Lab, recipe: Recipe, arms: list[Arm]) -> Iterator[pl.DataFrame]:
    """Judged responses, one frame per arm, as they come: baseline, tested, less strongest, placebo, then the controls.

    Controls generate on harmful prompts only, and not in languages that the arm leaves out of its average. An arm that
    carries over activations is not run in the language that they are from.
    """
    contexts = measured(recipe, lab.data)
    for context, prompts in contexts.items():
        for language in prompts.languages:
            if prompts.select("evaluate", context, language).is_empty():
                lab.warn(f"{language} has no {context} prompts to evaluate on: averages leave it out there")
    yield _samples(lab, UNTOUCHED, contexts, lab.tracker.advance(UNTOUCHED.row))
    for arm in arms:
        yield _samples(lab, arm, contexts, lab.tracker.advance(arm.row))
        if is_ranked(arm):
            yield _samples(lab, weakened(arm), contexts, lab.tracker.advance(weakened_label(arm.row)))
        else:
            lab.warn(f"{arm.name} has no scores, so none of its neurons is known to be the strongest")
        if arm.placebo is not None:
            yield _samples(lab, as_placebo(arm), contexts, lab.tracker.advance(placebo_label(arm.row)))
    harmful = {context: prompts for context, prompts in contexts.items() if context == "harmful"}
    for arm in arms if harmful else ():
        for control in controls_of(lab, arm, recipe.controls, recipe.seed):
            yield _samples(lab, control, harmful, lab.tracker.advance(random_label(arm.row, recipe)))


def _samples(lab: Lab, arm: Arm, contexts: Mapping[str, PromptSet], advance: Advance) -> pl.DataFrame:
    frames = []
    for context, prompts in contexts.items():
        source = _source(lab, arm, prompts, context)
        for language in evaluated_in(arm, prompts):
            frames.append(_in_language(lab, arm, prompts, context, language, advance, source))
        if source is not None:
            source.close()
    return pl.concat(frames).with_columns(error=pl.lit(None, pl.String))


def _source(lab: Lab, arm: Arm, prompts: PromptSet, context: str, *, log_odds_only: bool = False) -> Source | None:
    """The run that an arm carries over from; None for one that carries nothing."""
    if not isinstance(arm.does, Patch) or arm.neurons is None:
        return None
    assert arm.source is not None
    return Source(
        lab,
        prompts,
        context,
        arm.source,
        neurons=arm.neurons,
        languages=evaluated_in(arm, prompts),
        max_new_tokens=prompts.max_new_tokens if arm.does.positions == "response" else 0,
        advance=lab.tracker.advance(source_label(arm.row, arm.source, log_odds_only)),
    )


def _values(source: Source | None, rows: pl.DataFrame, edits: Edits) -> Values | None:
    return None if source is None else partial(source.values, list(rows["prompt_id"]), edits)


def _in_language(
    lab: Lab, arm: Arm, prompts: PromptSet, context: str, language: str, advance: Advance, source: Source | None
) -> pl.DataFrame:
    rows = rows_of(lab, prompts, context, language)
    edits = edits_for(lab, arm.neurons, language, arm.does, arm.source)
    made = responses(lab, prompts, rows, language, edits, advance, _values(source, rows, edits))
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
    ]


def collect_log_odds(lab: Lab, recipe: Recipe, arms: list[Arm]) -> Iterator[pl.DataFrame]:
    """The refusal log-odds of every harmful evaluate prompt, one frame per arm, labelled as samples are.

    One forward pass a prompt and no generation, so many more random sets can be tried. What is carried over is so at
    the prompt's last position, whatever the arm does while it generates. Where the log-odds cannot be trusted nothing
    is measured, and the run says so.
    """
    contexts = measured(recipe, lab.data)
    if "harmful" not in contexts or not recipe.log_odds_controls or not arms:
        return
    prompts = contexts["harmful"]
    try:
        readouts(lab, prompts)
    except UntrustedReadoutError as error:
        lab.warn(f"refusal log-odds not measured: {error.message}")
        return
    yield _log_odds(lab, UNTOUCHED, prompts, lambda _done: None)
    for arm in arms:
        advance = lab.tracker.advance(log_odds_label(arm.row, recipe))
        beside = [weakened(arm)] if is_ranked(arm) else []
        beside += [] if arm.placebo is None else [as_placebo(arm)]
        for one in (arm, *beside, *controls_of(lab, arm, recipe.log_odds_controls, recipe.seed)):
            yield _log_odds(lab, one, prompts, advance)


def _log_odds(lab: Lab, arm: Arm, prompts: PromptSet, advance: Advance) -> pl.DataFrame:
    found, arm = readouts(lab, prompts), _at_the_prompt(arm)
    source = _source(lab, arm, prompts, "harmful", log_odds_only=True)
    frames = []
    for language in evaluated_in(arm, prompts):
        rows = rows_of(lab, prompts, "harmful", language)
        edits, reads = edits_for(lab, arm.neurons, language, arm.does, arm.source), found[language].reads
        carried = _values(source, rows, edits)
        values = log_odds(lab, prompts, rows, language, edits, advance, reads=reads, carried=carried)
        frame = rows.select("prompt_id", "cluster").with_columns(log_odds=values)
        frames.append(frame.with_columns(*_labels(arm, language)))
    if source is not None:
        source.close()
    return pl.concat(frames)


def _at_the_prompt(arm: Arm) -> Arm:
    """The arm as the log-odds sees it: no response token has been generated."""
    return replace(arm, does=replace(arm.does, positions="last")) if isinstance(arm.does, Patch) else arm


def evaluated_in(arm: Arm, prompts: PromptSet) -> list[str]:
    """The languages that an arm is evaluated in: a control skips those left out of the average, a Patch its source."""
    skipped = (*(arm.left_out if arm.role == CONTROL else ()), arm.source)
    return [language for language in prompts.languages if language not in skipped]
