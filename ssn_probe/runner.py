"""Running a recipe: plan, load, score, select, intervene, summarise, write.

What can be known to be wrong is found before anything is computed: parameters, data, judge and the results folder
first, then the model. From the moment the run folder exists its manifest says how things stand, also when they go
wrong.
"""

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from ssn_probe import results
from ssn_probe.arms import arms_of
from ssn_probe.causal import collect_log_odds, collect_samples
from ssn_probe.cautions import cautions, repeats
from ssn_probe.conclusions import Beside, headlines
from ssn_probe.errors import SSNProbeError
from ssn_probe.judges import make_judge
from ssn_probe.lab import Lab
from ssn_probe.neurons import NEURON, NeuronSet
from ssn_probe.node import to_json
from ssn_probe.openings import Readout
from ssn_probe.plan import Plan, evaluated, limited, make_plan, measured, resolved_key, study_anchor
from ssn_probe.planted import truth_table
from ssn_probe.progress import tracking
from ssn_probe.recipe import Each, Prompts, Recipe, SetExpression
from ssn_probe.report import report
from ssn_probe.results import RunFolder
from ssn_probe.selection import overlap_table
from ssn_probe.sets import evaluate
from ssn_probe.stats import Estimate
from ssn_probe.subject import load_subject
from ssn_probe.summary import against_placebo, summarise
from ssn_probe.trust import Trust, own_sets, trust, with_chance
from ssn_probe.words import answer


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings that change no number (but for `limit` and `dtype`, which are recorded)."""

    out: Path = Path("results")
    batch_size: int = 200
    device: str = "auto"
    dtype: str = "auto"
    limit: int | None = None
    source: Path | None = None
    arguments: dict[str, str] = field(default_factory=dict)


def run_recipe(recipe: Recipe, options: Options, console: Console) -> RunFolder:
    """Runs a recipe and returns its folder. Raises an SSNProbeError for whatever the user can mend."""
    recipe = limited(recipe, options.limit)
    plan = make_plan(recipe)
    _check_judges(plan)
    root = results.prepare(options.out)
    started = time.monotonic()
    subject = load_subject(recipe.model, dtype=options.dtype, device=options.device)
    key = resolved_key(recipe, subject.identity, plan.data)
    run = results.create_run(root, recipe.name, key)
    plan = make_plan(recipe, neurons=subject.n_layers * sum(subject.widths.values()))
    rows = [(stage.label, stage.prompts) for stage in plan.stages]
    manifest = _manifest(recipe, plan, options, subject, key)
    manifest["seconds"] = {"load": _since(started)}
    with _recorded(run, manifest), tracking(console, rows) as tracker:
        results.write_json(run.path / "recipe.json", to_json(recipe))
        if options.source is not None:
            results.write_text(run.path / "recipe.py", options.source.read_text(encoding="utf-8"))
        lab = Lab(
            subject=subject,
            data=plan.data,
            anchor=study_anchor(recipe, plan.data),
            batch_size=options.batch_size,
            cache=root / "cache",
            tracker=tracker,
            warnings=manifest["warnings"],
        )
        _execute(lab, recipe, run, manifest)
    results.point_latest(root, run)
    return run


def _execute(lab: Lab, recipe: Recipe, run: RunFolder, manifest: dict[str, Any]) -> None:
    """Sets first, then arms, then words; each table is written as soon as it is whole."""
    anchor = lab.anchor
    for caution in (line for prompts in lab.data.values() for line in repeats(prompts)):
        lab.warn(caution)
    with _timed(manifest, "identify"):
        expressions = named_sets(recipe)
        sets = {name: evaluate(lab, node) for name, node in expressions.items()}
        manifest["anchor"] = anchor
        manifest["sets"] = {name: _counts(found) for name, found in sets.items()}
    with _timed(manifest, "nulls"):
        trusted = trust(lab, recipe, expressions)
        neurons = _neuron_table(sets, trusted.frequencies)
        overlap = _overlaps(lab, expressions, sets, trusted)
        tables = {"neurons": neurons, "overlap": overlap, "nulls": trusted.nulls, "stability": trusted.jaccard}
        truth = truth_table(lab, recipe.model, expressions, sets)
        for name, table in (tables | {"stability_curve": trusted.curve, "truth": truth}).items():
            if table is not None:
                results.write_table(run.path / f"{name}.parquet", table)
    summary = samples = None
    if recipe.measures:
        arms = arms_of(lab, recipe)
        with _timed(manifest, "generate"):
            samples = _written_as_it_comes(run, "samples", collect_samples(lab, recipe, arms))
        with _timed(manifest, "log_odds"):
            log_odds = _written_as_it_comes(run, "log_odds", collect_log_odds(lab, recipe, arms))
        with _timed(manifest, "summarise"):
            assert samples is not None
            lowers = [arm.name for arm in arms if arm.lowers]
            summary = summarise(
                samples, log_odds, anchor=anchor, primary=recipe.primary, seed=recipe.seed, lowers=lowers
            )
            results.write_table(run.path / "summary.parquet", summary)
            for caution in cautions(summary, samples, anchor):
                lab.warn(caution)
    manifest["gates"] = _gates(lab)
    manifest["evaluated"] = list(evaluated(recipe, lab.data))
    manifest["tokens"] = None if samples is None else int(samples["tokens"].sum())
    beside = Beside(trusted=trusted, placebo=_beyond_placebo(recipe, samples, anchor), truth=truth)
    manifest["answer"] = [*answer(recipe, manifest, neurons, summary, anchor), *headlines(recipe, beside)]
    results.write_text(run.path / "report.md", report(recipe, manifest, neurons, overlap, summary, beside))


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
    """Collects an iterator of frames; what had come is written also when the iterator fails."""
    collected: list[pl.DataFrame] = []
    try:
        collected.extend(frames)
    finally:
        if collected:
            results.write_table(run.path / f"{name}.parquet", pl.concat(collected))
    return pl.concat(collected) if collected else None


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
    lab: Lab, expressions: dict[str, SetExpression], sets: dict[str, NeuronSet], trusted: Trust
) -> pl.DataFrame | None:
    """Overlaps of the sets that languages have of their own, beside what chance gives."""
    several = [name for name in own_sets(expressions) if len(sets[name].languages) > 1]
    frames = [overlap_table(sets[name], lab.widths(), name) for name in several]
    return with_chance(lab, pl.concat(frames), sets, expressions, trusted) if frames else None


def _gates(lab: Lab) -> list[dict[str, Any]]:
    """How the refusal log-odds was read in each language, for the manifest and the report."""
    names = {prompts.digest: prompts.name for prompts in lab.data.values()}
    read = {key[1]: found for key, found in lab.memory.items() if key[0] == "readouts"}
    return [
        {"data": names[data], "language": language} | _gate_json(readout)
        for data, found in read.items()
        for language, readout in found.items()
    ]


def _gate_json(readout: Readout) -> dict[str, Any]:
    gate = readout.gate
    return {"origin": readout.origin, "auroc": gate.auroc, "refused": gate.n_refused, "other": gate.n_other}


def _check_judges(plan: Plan) -> None:
    """A missing or malformed judge is found before the model is loaded."""
    for prompts in measured(plan.recipe, plan.data).values():
        make_judge(prompts.judge, prompts.languages, prompts.name)


def _manifest(recipe: Recipe, plan: Plan, options: Options, subject: Any, key: str) -> dict[str, Any]:
    return {
        "schema_version": results.SCHEMA_VERSION,
        "status": "running",
        "recipe": recipe.name,
        "question": recipe.question,
        "key": key,
        "started": results.now(),
        "ended": None,
        "arguments": options.arguments,
        "options": {"batch_size": options.batch_size, "limit": options.limit, "dtype": options.dtype},
        "seed": recipe.seed,
        "model": dict(subject.identity) | {"name": recipe.model},
        "neurons": {"layers": subject.n_layers, "per_layer": dict(subject.widths)},
        "device": str(subject.device),
        "data": [_data_json(node, prompts) for node, prompts in plan.data.items()],
        "nodes": {name: resolved_key(node, subject.identity, plan.data) for name, node in named_sets(recipe).items()},
        "warnings": [],
        **results.environment(),
    }


def _data_json(node: Prompts, prompts: Any) -> dict[str, Any]:
    counts = prompts.frame.group_by("split", "context", "language").len().sort("split", "context", "language")
    return {
        "source": node.source,
        "harmless": node.harmless,
        "name": prompts.name,
        "anchor": prompts.anchor,
        "license": prompts.license,
        "sha256": prompts.digest,
        "limit": node.limit,
        "prompts": [dict(row) for row in counts.iter_rows(named=True)],
    }


@contextmanager
def _recorded(run: RunFolder, manifest: dict[str, Any]) -> Iterator[None]:
    """Keeps the manifest's status true: running, then done, failed or interrupted."""
    path = run.path / "manifest.json"
    results.write_json(path, manifest)
    trace = ""
    try:
        yield
        manifest |= {"status": "done"}
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        message = error.message if isinstance(error, SSNProbeError) else f"{type(error).__name__}: {error}"
        manifest |= {"status": "interrupted" if interrupted else "failed", "error": message}
        trace = traceback.format_exc()
        raise
    finally:
        manifest |= {"ended": results.now()}
        results.write_json(path, manifest)
        _note(run.path / "run.log", "".join(f"warning: {warning}\n" for warning in manifest["warnings"]) + trace)


def _note(log: Path, text: str) -> None:
    with results.disk_errors(log), log.open("a", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def _timed(manifest: dict[str, Any], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    manifest["seconds"][stage] = _since(started)


def _since(started: float) -> float:
    return round(time.monotonic() - started, 2)
