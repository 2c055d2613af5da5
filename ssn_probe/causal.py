"""The causal study: the same prompts under every arm, from the untouched model to random sets of as many neurons."""

from collections.abc import Iterator, Mapping

import polars as pl

from ssn_probe.arms import CONTROL, UNTOUCHED, Arm, controls_of, is_ranked, weakened
from ssn_probe.lab import Lab, edits_for, responses, rows_of, tokens_of
from ssn_probe.openings import UntrustedReadoutError, readouts
from ssn_probe.plan import log_odds_label, measured, random_label, weakened_label
from ssn_probe.progress import Advance
from ssn_probe.prompts import PromptSet
from ssn_probe.recipe import Recipe
from ssn_probe.tracing.score import refusal_log_odds


def collect_samples(lab: Lab, recipe: Recipe, arms: list[Arm]) -> Iterator[pl.DataFrame]:
    """Judged responses, one frame per arm, as they come: baseline, tested, less strongest, then the random controls.

    Controls generate on harmful prompts only, and not in languages that the arm leaves out of its average.
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
    harmful = {context: prompts for context, prompts in contexts.items() if context == "harmful"}
    for arm in arms if harmful else ():
        for control in controls_of(lab, arm, recipe.controls, recipe.seed):
            yield _samples(lab, control, harmful, lab.tracker.advance(random_label(arm.row, recipe)))


def _samples(lab: Lab, arm: Arm, contexts: Mapping[str, PromptSet], advance: Advance) -> pl.DataFrame:
    frames = [
        _in_language(lab, arm, prompts, context, language, advance)
        for context, prompts in contexts.items()
        for language in evaluated_in(arm, prompts)
    ]
    return pl.concat(frames).with_columns(error=pl.lit(None, pl.String))


def _in_language(lab: Lab, arm: Arm, prompts: PromptSet, context: str, language: str, advance: Advance) -> pl.DataFrame:
    rows = rows_of(lab, prompts, context, language)
    made = responses(lab, prompts, rows, language, edits_for(lab, arm.neurons, language, arm.to), advance)
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

    One forward pass a prompt and no generation, so many more random sets can be tried. Where the log-odds cannot be
    trusted nothing is measured, and the run says so.
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
        weaker = [weakened(arm)] if is_ranked(arm) else []
        for one in (arm, *weaker, *controls_of(lab, arm, recipe.log_odds_controls, recipe.seed)):
            yield _log_odds(lab, one, prompts, advance)


def _log_odds(lab: Lab, arm: Arm, prompts: PromptSet, advance: Advance) -> pl.DataFrame:
    found = readouts(lab, prompts)
    frames = []
    for language in evaluated_in(arm, prompts):
        rows = rows_of(lab, prompts, "harmful", language)
        values = refusal_log_odds(
            lab.subject,
            tokens_of(lab, rows),
            found[language].reads,
            edits=edits_for(lab, arm.neurons, language, arm.to),
            batch_size=lab.batch_size,
            advance=advance,
        )
        frame = rows.select("prompt_id", "cluster").with_columns(log_odds=pl.Series(values.numpy()))
        frames.append(frame.with_columns(*_labels(arm, language)))
    return pl.concat(frames)


def evaluated_in(arm: Arm, prompts: PromptSet) -> list[str]:
    """The languages that an arm is evaluated in: a random control skips those left out of the average."""
    skipped = arm.left_out if arm.role == CONTROL else ()
    return [language for language in prompts.languages if language not in skipped]
