"""The causal study: the same prompts under every arm, from the untouched model to random sets of as many neurons.

An arm applies language λ's own neurons while λ is evaluated. Each tested set also runs without its strongest member,
since one neuron can break a refusal alone; beside it run random sets, matched per language, layer and site and
disjoint from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from ssn_probe.errors import ModelError
from ssn_probe.lab import Lab, edits_for, responses, tokens_of
from ssn_probe.neurons import NeuronSet
from ssn_probe.openings import readouts
from ssn_probe.plan import anchor_of, evaluated, left_out, log_odds_label, measured, random_label
from ssn_probe.progress import Advance
from ssn_probe.prompts import PromptSet
from ssn_probe.recipe import Each, MeanOf, Of, Recipe, SetExpression
from ssn_probe.selection import random_like
from ssn_probe.sets import evaluate
from ssn_probe.tracing.score import refusal_log_odds

BASELINE, TESTED, WEAKENED, CONTROL = "baseline", "tested", "less strongest", "control"


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """One condition. `set_language` is the language whose neurons apply everywhere, None where each has its own.

    `left_out`: languages that are not part of the arm's average (the anchor of a shared set, whose SS is its whole MS).
    """

    name: str
    role: str
    neurons: NeuronSet | None
    set_language: str | None = None
    seed: int | None = None
    left_out: tuple[str, ...] = ()
    to: MeanOf | int = 0


def arms_of(lab: Lab, recipe: Recipe) -> list[Arm]:
    """The arms that the recipe names, with their sets evaluated; `Each` becomes one arm per language."""
    arms = []
    for name, node in recipe.arms.items():
        expression = node.neurons
        if isinstance(expression, Each):
            for language in evaluate(lab, expression.neurons).languages:
                arms.append(_tested(lab, f"{name}.of({language})", expression.neurons.of(language), node.to))
        else:
            arms.append(_tested(lab, name, expression, node.to))
    return arms


def _tested(lab: Lab, name: str, expression: SetExpression, to: MeanOf | int) -> Arm:
    neurons = evaluate(lab, expression)
    set_language = expression.language if isinstance(expression, Of) else "*" if neurons.language_free else None
    return Arm(
        name=name,
        role=TESTED,
        neurons=neurons,
        set_language=set_language,
        left_out=left_out(expression, lab.data),
        to=to,
    )


def controls_of(lab: Lab, arm: Arm, count: int, seed: int) -> Iterator[Arm]:
    """`count` random sets like an arm's; the same seeds give the same sets, however many are asked for."""
    assert arm.neurons is not None
    for draw in range(count):
        neurons = random_like(arm.neurons, lab.widths(), seed * 10_000 + draw)
        yield replace(arm, role=CONTROL, neurons=neurons, seed=draw)


def weakened(arm: Arm) -> Arm:
    """The arm without its strongest neuron in every language."""
    assert arm.neurons is not None
    return replace(arm, role=WEAKENED, neurons=arm.neurons.without_strongest())


def collect_samples(lab: Lab, recipe: Recipe, arms: list[Arm]) -> Iterator[pl.DataFrame]:
    """Judged responses, one frame per arm, as they come: baseline, tested, less strongest, then the random controls.

    Controls generate on harmful prompts only, and not in languages that the arm's average leaves out.
    """
    contexts = measured(recipe, lab.data)
    yield _samples(lab, Arm(name=BASELINE, role=BASELINE, neurons=None), contexts, lab.tracker.advance(BASELINE))
    for arm in arms:
        row = recipe_arm(arm)
        yield _samples(lab, arm, contexts, lab.tracker.advance(row))
        yield _samples(lab, weakened(arm), contexts, lab.tracker.advance(f"{row} less strongest"))
    harmful = {context: prompts for context, prompts in contexts.items() if context == "harmful"}
    if not harmful:
        return
    for arm in arms:
        label = random_label(recipe_arm(arm), recipe)
        for control in controls_of(lab, arm, recipe.controls, recipe.seed):
            advance = lab.tracker.advance(label)
            yield _samples(lab, control, harmful, advance)


def recipe_arm(arm: Arm) -> str:
    """The name under which the recipe knows the arm: `ms` for `ms.of(qab)`."""
    return arm.name.partition(".of(")[0]


def _samples(lab: Lab, arm: Arm, contexts: dict[str, PromptSet], advance: Advance) -> pl.DataFrame:
    frames = []
    for context, prompts in contexts.items():
        for language in prompts.languages:
            if arm.role == CONTROL and language in arm.left_out:
                continue
            rows = prompts.select("evaluate", context, language)
            if rows.is_empty():
                continue
            made = responses(lab, prompts, rows, language, edits_for(lab, arm.neurons, language, arm.to), advance)
            frames.append(
                rows.select("prompt_id", "cluster", "context").hstack(made).with_columns(*_labels(arm, language))
            )
    return pl.concat(frames).with_columns(judge=pl.lit(_judge_name(contexts)), error=pl.lit(None, pl.String))


def _labels(arm: Arm, language: str) -> list[pl.Expr]:
    applied = None if arm.neurons is None else arm.set_language or language
    return [
        pl.lit(language).alias("eval_language"),
        pl.lit(applied, pl.String).alias("set_language"),
        pl.lit(arm.name).alias("arm"),
        pl.lit(arm.role).alias("role"),
        pl.lit(arm.seed, pl.Int32).alias("seed"),
    ]


def _judge_name(contexts: dict[str, PromptSet]) -> str:
    declared = next(iter(contexts.values())).judge or {}
    return str(declared.get("name", declared.get("kind", "")))


def collect_log_odds(lab: Lab, recipe: Recipe, arms: list[Arm]) -> Iterator[pl.DataFrame]:
    """The refusal log-odds of every harmful evaluate prompt, one frame per arm, labelled as samples are.

    One forward pass a prompt and no generation, so many more random sets can be tried. Where the log-odds cannot be
    trusted nothing is measured, and the run says so.
    """
    contexts = measured(recipe, lab.data)
    if "harmful" not in contexts or not recipe.log_odds_controls:
        return
    prompts = contexts["harmful"]
    try:
        readouts(lab, prompts, anchor_of(prompts))
    except ModelError as error:
        lab.warn(f"refusal log-odds not measured: {error.message}")
        return
    yield _log_odds(lab, Arm(name=BASELINE, role=BASELINE, neurons=None), prompts, lambda _done: None)
    for arm in arms:
        label = log_odds_label(recipe_arm(arm), recipe)
        advance = lab.tracker.advance(label)
        for one in (arm, weakened(arm), *controls_of(lab, arm, recipe.log_odds_controls, recipe.seed)):
            yield _log_odds(lab, one, prompts, advance)


def _log_odds(lab: Lab, arm: Arm, prompts: PromptSet, advance: Advance) -> pl.DataFrame:
    found = readouts(lab, prompts, anchor_of(prompts))
    frames = []
    for language in evaluated_in(arm, prompts):
        rows = prompts.select("evaluate", "harmful", language)
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


def check_languages(recipe: Recipe, lab: Lab, arms: list[Arm]) -> None:
    """Every arm must know every evaluated language, before anything is generated."""
    for arm in arms:
        assert arm.neurons is not None
        for language in evaluated(recipe, lab.data):
            arm.neurons.neurons(language)
