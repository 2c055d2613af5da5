"""The stages of a run: find the sets, ask how far they may be trusted, try them in arms, summarise, say it in words."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl

from ssn_probe.files import write_table, write_text
from ssn_probe.neurons import NEURON, NeuronSet
from ssn_probe.neurons.selection import overlap_table
from ssn_probe.report.answer import answer
from ssn_probe.report.cautions import cautions, learned_and_measured, repeats
from ssn_probe.report.conclusions import Beside, headlines
from ssn_probe.report.markdown import report
from ssn_probe.report.sections.sets_after_training import found_again_lines
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec import Each, Recipe, SetExpression
from ssn_probe.stats import Estimate
from ssn_probe.study.arms import arms_of, row_of
from ssn_probe.study.deltas import curve_lines, curves, write_deltas
from ssn_probe.study.found_again import compared_again
from ssn_probe.study.planted_truth import truth_table
from ssn_probe.study.refusal_readout import Readout
from ssn_probe.study.resolve import evaluated
from ssn_probe.study.robustness import Trust, own_sets, trust, with_chance
from ssn_probe.study.run_arms import collect_log_odds, collect_samples, row_totals
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.steps import labels_of_arms
from ssn_probe.study.summary import against_placebo, summarise
from ssn_probe.study.workbench import Workbench


def execute(bench: Workbench, recipe: Recipe, run: RunFolder, manifest: dict[str, Any]) -> None:
    """Sets first, then arms, then words; each table is written as soon as it is whole.

    What it finds goes into `manifest`, too. Everything that takes long comes through the bench's cache.
    """
    anchor = bench.anchor
    repeated = [line for prompts in bench.data.values() for line in repeats(prompts)]
    for caution in (*repeated, *learned_and_measured(recipe, bench.data)):
        bench.warn(caution)
    with _timed(manifest, "identify"):
        expressions = named_sets(recipe)
        sets = {name: evaluate(bench, node) for name, node in expressions.items()}
        manifest["anchor"] = anchor
        manifest["sets"] = {name: _counts(found) for name, found in sets.items()}
    with _timed(manifest, "nulls"):
        trusted = trust(bench, recipe, expressions)
        neurons = _neuron_table(sets, trusted.frequencies)
        overlap = _overlaps(bench, expressions, sets, trusted)
        again = compared_again(bench, expressions, sets)
        tables = {"neurons": neurons, "overlap": overlap, "nulls": trusted.nulls, "stability": trusted.jaccard}
        tables["again"] = again
        truth = truth_table(bench, recipe.model, expressions, sets)
        for name, table in (tables | {"stability_curve": trusted.curve, "truth": truth}).items():
            if table is not None:
                write_table(run.path / f"{name}.parquet", table)
    summary = samples = curve = None
    learned: list[str] = []
    if recipe.measures:
        arms = arms_of(bench, recipe)
        totals = row_totals(bench, recipe, arms)
        bench.tracker.settle({label: totals.get(label, 0) for label in labels_of_arms(recipe, bench.data)})
        with _timed(manifest, "generate"):
            samples = _written_as_it_comes(run, "samples", collect_samples(bench, recipe, arms))
        with _timed(manifest, "log_odds"):
            log_odds = _written_as_it_comes(run, "log_odds", collect_log_odds(bench, recipe, arms))
        with _timed(manifest, "summarise"):
            assert samples is not None
            summary = summary_of(recipe, samples, log_odds, anchor)
            write_table(run.path / "summary.parquet", summary)
            for caution in cautions(summary, samples, anchor):
                bench.warn(caution)
            manifest["expanded"] = write_deltas(bench, recipe, arms, run, summary)
            curve = curves(bench, recipe, manifest["expanded"], summary, run)
            if curve is not None:
                learned += curve_lines(recipe, curve, manifest["expanded"], samples, anchor)
    manifest["gates"] = _gates(bench)
    manifest["evaluated"] = list(evaluated(recipe, bench.data))
    manifest["tokens"] = None if samples is None else int(samples["tokens"].sum())
    beside = Beside(trusted=trusted, placebo=_beyond_placebo(recipe, samples, anchor), truth=truth)
    told = answer(recipe, manifest, neurons, summary, anchor)
    manifest["answer"] = [*told, *learned, *found_again_lines(again), *headlines(recipe, beside)]
    text = report(recipe, manifest, neurons, overlap, summary, beside, curve=curve, again=again)
    write_text(run.path / "report.md", text)


def summary_of(
    recipe: Recipe, samples: pl.DataFrame, log_odds: pl.DataFrame | None, anchor: str | None
) -> pl.DataFrame:
    """The summary table of what a recipe's arms gave, see `summarise`."""
    rows = {name: recipe.arms.get(row_of(name)) for name in samples["arm"].unique(maintain_order=True)}
    lowers = [name for name, node in rows.items() if node is not None and node.lowers]
    return summarise(samples, log_odds, anchor=anchor, primary=recipe.primary, seed=recipe.seed, lowers=lowers)


def _beyond_placebo(recipe: Recipe, samples: pl.DataFrame | None, anchor: str | None) -> Estimate | None:
    """How much more the primary arm does than its placebo; None where nothing was measured or there is none."""
    if samples is None or recipe.primary is None:
        return None
    return against_placebo(samples, recipe.primary, anchor, recipe.seed)


def named_sets(recipe: Recipe) -> dict[str, SetExpression]:
    """The sets that a recipe names, and those its arms silence."""
    arms = {name: arm.neurons for name, arm in recipe.arms.items()}
    return recipe.sets | {name: node.neurons if isinstance(node, Each) else node for name, node in arms.items()}


def _written_as_it_comes(run: RunFolder, name: str, frames: Iterator[pl.DataFrame]) -> pl.DataFrame | None:
    """Collects an iterator of frames; what had come is written also when the iterator fails.

    Returns what a reader of the run will read: the summary is made of just that.
    """
    collected: list[pl.DataFrame] = []
    try:
        collected.extend(frames)
    finally:
        if collected:
            write_table(run.path / f"{name}.parquet", pl.concat(collected))
    return run.table(name) if collected else None


def _counts(neurons: NeuronSet) -> dict[str, int]:
    """Neurons per language, with the languages that have none."""
    found = dict(neurons.frame.group_by("language").len().iter_rows())
    return {language: found.get(language, 0) for language in neurons.languages}


def _neuron_table(sets: dict[str, NeuronSet], frequencies: pl.DataFrame | None) -> pl.DataFrame:
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


def _overlaps(
    bench: Workbench, expressions: dict[str, SetExpression], sets: dict[str, NeuronSet], trusted: Trust
) -> pl.DataFrame | None:
    """Overlaps of the sets that languages have of their own, beside what chance gives."""
    several = [name for name in own_sets(expressions) if len(sets[name].languages) > 1]
    frames = [overlap_table(sets[name], bench.widths(), name) for name in several]
    return with_chance(bench, pl.concat(frames), sets, expressions, trusted) if frames else None


def _gates(bench: Workbench) -> list[dict[str, Any]]:
    """How the refusal log-odds was read in each language, for the manifest and the report."""
    names = {prompts.digest: prompts.name for prompts in bench.data.values()}
    read = {key[1]: found for key, found in bench.memory.items() if key[0] == "readouts" and key[1] in names}
    return [
        {"data": names[data], "language": language} | _gate_json(readout)
        for data, found in read.items()
        for language, readout in found.items()
    ]


def _gate_json(readout: Readout) -> dict[str, Any]:
    gate = readout.gate
    return {"origin": readout.origin, "auroc": gate.auroc, "refused": gate.n_refused, "other": gate.n_other}


@contextmanager
def _timed(manifest: dict[str, Any], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    manifest["seconds"][stage] = since(started)


def since(started: float) -> float:
    """Seconds since a time of the monotonic clock, which no change of the clock on the wall touches."""
    return round(time.monotonic() - started, 2)
