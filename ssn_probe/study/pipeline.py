"""A whole study: find the sets, ask how robust they are, try them in arms, summarise. It returns findings, no words."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ssn_probe.files import write_table
from ssn_probe.neurons import NEURON, NeuronSet
from ssn_probe.neurons.overlap import overlap_table
from ssn_probe.spec import Each, InLanguage, Recipe, SafetyNeurons, SetExpression
from ssn_probe.study.arm_notes import can_read_language, can_read_log_odds, note_gaps
from ssn_probe.study.arm_steps import (
    arm_steps,
    language_steps,
    odds_steps,
    sample_steps,
    text_steps,
)
from ssn_probe.study.arms import Arm, arms_of, expected_arms
from ssn_probe.study.comparison_table import comparison_table, members_of
from ssn_probe.study.deltas import write_deltas
from ssn_probe.study.dissociation import dissociation
from ssn_probe.study.findings import Findings
from ssn_probe.study.found_again import compared_again
from ssn_probe.study.identify_steps import identify_steps, notes_on_rounding
from ssn_probe.study.importance import chance_errors
from ssn_probe.study.language_readout import language_gates
from ssn_probe.study.language_share import with_language
from ssn_probe.study.lm_eval_steps import lm_eval_steps
from ssn_probe.study.planted_truth import truth_table
from ssn_probe.study.refusal_readout import gates
from ssn_probe.study.refusal_trial import identify_responses, try_refusal, with_baseline
from ssn_probe.study.resolve import evaluated
from ssn_probe.study.robustness import Robustness, own_sets, robustness_of, with_chance
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.steps import Step, rows_of_steps, run_steps
from ssn_probe.study.summary import summarise
from ssn_probe.study.training_curves import comparable_points, curve_differences, curve_table
from ssn_probe.study.verification_table import verification_notes, verification_table, verifying
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.texts import UnknownLogitsError

SELDOM = 10.0
"""Seconds at least between two writings of a table that still grows; a large one is written more seldom."""
Keep = Callable[[str, pl.DataFrame], None]
"""Keeps a table of the run under its name, as soon as it is whole."""


def run_study(bench: Workbench, recipe: Recipe, folder: Path) -> Findings:
    """Runs a recipe. Tables and delta files are written into `folder` as they come, samples also when a later fails.

    Everything that takes long comes through the bench's cache.
    """
    seconds: dict[str, float] = {}

    def keep(name: str, table: pl.DataFrame | None) -> None:
        if table is not None:
            write_table(folder / f"{name}.parquet", table)

    with _timed(seconds, "identify"):
        try:
            tried_first = try_refusal(bench, recipe)
            for _ in run_steps(bench, identify_steps(bench, recipe)):
                pass
        finally:
            keep("responses", identify_responses(bench))
        for note in notes_on_rounding(bench, recipe):
            bench.warn(note)
        verification = verification_table(verifying(bench, recipe))
        keep("verification", verification)
        for note in verification_notes(verification):
            bench.warn(note)
        expressions = named_sets(recipe)
        sets = {name: evaluate(bench, node) for name, node in expressions.items()}
    with _timed(seconds, "nulls"):
        robustness = robustness_of(bench, recipe, expressions)
        tables = {
            "neurons": _with_errors(bench, expressions, _neuron_table(sets, robustness.frequencies)),
            "overlap": _overlaps(bench, expressions, sets, robustness),
            "nulls": robustness.nulls,
            "stability": robustness.jaccard,
            "again": compared_again(bench, expressions, sets),
            "stability_curve": robustness.curve,
            "truth": truth_table(bench, recipe.model, expressions, sets),
        }
        for name, table in tables.items():
            keep(name, table)
    tried = _try_arms(bench, recipe, folder, keep, seconds) if recipe.measures else {}
    assert tables["neurons"] is not None
    return Findings(
        anchor=bench.anchor,
        evaluated=evaluated(recipe, bench.data),
        sets={name: _counts(found) for name, found in sets.items()},
        neurons=tables["neurons"],
        robustness=robustness,
        overlap=tables["overlap"],
        found_again=tables["again"],
        truth=tables["truth"],
        verification=verification,
        gates=(*gates(bench), *language_gates(bench)),
        refusals=None if tried_first is None else with_baseline(tried_first, tried.get("samples")),
        seconds=seconds,
        **tried,
    )


def _try_arms(bench: Workbench, recipe: Recipe, folder: Path, keep: Keep, seconds: dict[str, float]) -> dict:
    """What `Findings` has of arms: samples, summary, trainings and their curves."""
    arms = arms_of(bench, recipe)
    _settle(bench, recipe, arms)
    note_gaps(bench, recipe, arms)
    with _timed(seconds, "log_odds"):  # before responses, with which many of them come
        has_odds = can_read_log_odds(bench, recipe, arms)
    with _timed(seconds, "generate"):
        samples = _kept_as_it_comes(bench, folder, "samples", sample_steps(bench, recipe, arms))
    with _timed(seconds, "log_odds"):
        steps = odds_steps(bench, recipe, arms) if has_odds else iter(())
        log_odds = _kept_as_it_comes(bench, folder, "log_odds", steps)
        steps = language_steps(bench, recipe, arms) if can_read_language(bench, recipe, arms) else iter(())
        language_odds = _kept_as_it_comes(bench, folder, "language_log_odds", steps)
    with _timed(seconds, "kl"):
        text = _harmless_text(bench, recipe, arms, folder)
    with _timed(seconds, "summarise"):
        assert samples is not None
        if any(isinstance(measure, InLanguage) for measure in recipe.measures):
            samples = with_language(bench, recipe, samples)
            keep("samples", samples)
        summary = summary_of(recipe, samples, log_odds, text, bench.anchor, language_odds)
        members = members_of(bench, recipe, arms)
        comparisons = comparison_table(recipe, samples, log_odds, text, members, bench.anchor, language_odds)
        crossed = dissociation(recipe, samples, log_odds, language_odds, bench.anchor)
        tables = {"summary": summary, "compared_sets": members, "comparisons": comparisons}
        tables |= {} if crossed is None else {"dissociation": crossed.contrasts}
        for name, table in tables.items():
            keep(name, table)
        trained = _trained(bench, recipe, arms, folder, keep, samples, summary, comparisons)
    with _timed(seconds, "lm_eval"):
        tasks = _kept_as_it_comes(bench, folder, "lm_eval", lm_eval_steps(bench, recipe, arms))
    found = {"tasks": tasks, "samples": samples, "summary": summary, "comparisons": comparisons}
    return found | {"dissociation": crossed} | trained


def _harmless_text(bench: Workbench, recipe: Recipe, arms: list[Arm], folder: Path) -> pl.DataFrame | None:
    """KL and perplexity; None, with a note, for a model whose logits cannot be made of its final states."""
    try:
        return _kept_as_it_comes(bench, folder, "kl", text_steps(bench, recipe, arms))
    except UnknownLogitsError as error:
        bench.warn(f"KL and perplexity were not measured: {error.message}")
        return None


def expected_steps(bench: Workbench, recipe: Recipe) -> Iterator[Step]:
    """Every step of a run, before the neurons of its arms are known."""
    yield from identify_steps(bench, recipe)
    yield from arm_steps(bench, recipe, expected_arms(bench, recipe))


def _settle(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> None:
    """Corrects the rows of progress of arms, now that they are known: one may have no scores, say."""
    totals = {row.label: row.prompts for row in rows_of_steps(arm_steps(bench, recipe, arms))}
    expected = rows_of_steps(arm_steps(bench, recipe, expected_arms(bench, recipe)))
    bench.tracker.settle({row.label: totals.get(row.label, 0) for row in expected})


def _trained(
    bench: Workbench,
    recipe: Recipe,
    arms: list[Arm],
    folder: Path,
    keep: Keep,
    samples: pl.DataFrame,
    summary: pl.DataFrame,
    comparisons: pl.DataFrame,
) -> dict:
    """What `Findings` has of trainings."""
    trained = write_deltas(bench, recipe, arms, folder, summary, comparisons)
    points, left_out = comparable_points(recipe, trained, summary, bench.anchor)
    found = {"trained": tuple(trained), "curves_left_out": tuple(left_out)}
    if not points:
        return found
    curves = curve_table(summary, points)
    keep("curves", curves)
    return found | {"curves": curves, "differences": tuple(curve_differences(recipe, trained, samples, bench.anchor))}


def summary_of(
    recipe: Recipe,
    samples: pl.DataFrame,
    log_odds: pl.DataFrame | None,
    text: pl.DataFrame | None,
    anchor: str | None,
    language_odds: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The summary table of what a recipe's arms gave, see `summarise`."""
    each = [name for name, node in recipe.arms.items() if isinstance(node.neurons, Each)]
    options = {"anchor": anchor, "primary": recipe.primary}
    return summarise(samples, log_odds, text, language_odds, each=each, **options)


def named_sets(recipe: Recipe) -> dict[str, SetExpression]:
    """The sets that a recipe names, and those its arms are about."""
    arms = {name: arm.neurons for name, arm in recipe.arms.items()}
    return recipe.sets | {name: node.neurons if isinstance(node, Each) else node for name, node in arms.items()}


def _kept_as_it_comes(bench: Workbench, folder: Path, name: str, steps: Iterator[Step]) -> pl.DataFrame | None:
    """Runs steps and collects what belongs to a table; what had come is written also when a step fails.

    It is written now and then in between, too, for whoever follows the run. Returns what a reader of the run will read:
    the summary is made of just that.
    """
    collected: list[pl.DataFrame] = []
    path, due = folder / f"{name}.parquet", time.monotonic() + SELDOM
    try:
        for step, result in run_steps(bench, steps):
            if step.table == name:
                collected.append(result)
                if (began := time.monotonic()) >= due:
                    write_table(path, pl.concat(collected, how="diagonal"))
                    due = time.monotonic() + max(SELDOM, 50 * (time.monotonic() - began))
    finally:
        if collected:
            write_table(path, pl.concat(collected, how="diagonal"))
    return pl.read_parquet(path, glob=False) if collected else None


def _counts(neurons: NeuronSet) -> dict[str, int]:
    """Neurons per language, with the languages that have none."""
    found = dict(neurons.frame.group_by("language").len().iter_rows())
    return {language: found.get(language, 0) for language in neurons.languages}


def _neuron_table(sets: Mapping[str, NeuronSet], frequencies: pl.DataFrame | None) -> pl.DataFrame:
    """Every set's neurons, ranked, with the share of half-samples that take each where there were half-samples."""
    frames = [
        neurons.frame.with_columns(
            pl.lit(name).alias("set"),
            pl.col("score").rank("ordinal", descending=True).over("language").cast(pl.Int32).alias("rank"),
        )
        for name, neurons in sets.items()
    ]
    table = pl.concat(frames).select("set", "language", *NEURON, "score", "rank")
    if frequencies is None:
        return table.with_columns(frequency=pl.lit(None, pl.Float64))
    halved = set(frequencies.select("set").unique().to_series())
    joined = table.join(frequencies, on=["set", "language", *NEURON], how="left", maintain_order="left")
    taken = pl.when(pl.col("set").is_in(sorted(halved))).then(pl.col("frequency").fill_null(0.0))
    return joined.with_columns(frequency=taken)


def _with_errors(bench: Workbench, expressions: Mapping[str, SetExpression], table: pl.DataFrame) -> pl.DataFrame:
    """The table with `score_error` where an effect is estimated by chance, see `importance.chance_errors`.

    Of sets that languages have of their own; null in others.
    """
    found = [
        errors.with_columns(pl.lit(name).alias("set"))
        for name, node in expressions.items()
        if isinstance(node, SafetyNeurons) and (errors := chance_errors(bench, node)) is not None
    ]
    keys = ["set", "language", *NEURON]
    return table.join(pl.concat(found), on=keys, how="left", maintain_order="left") if found else table


def _overlaps(
    bench: Workbench, expressions: dict[str, SetExpression], sets: dict[str, NeuronSet], robustness: Robustness
) -> pl.DataFrame | None:
    """Overlaps of the sets that languages have of their own, beside what chance gives."""
    several = [name for name in own_sets(expressions) if len(sets[name].languages) > 1]
    frames = [overlap_table(sets[name], bench.widths(), name) for name in several]
    return with_chance(pl.concat(frames), robustness) if frames else None


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = round(seconds.get(stage, 0) + since(started), 2)


def since(started: float) -> float:
    """Seconds since a time of the monotonic clock, which no change of the clock on the wall touches."""
    return round(time.monotonic() - started, 2)
