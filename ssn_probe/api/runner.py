"""Running a recipe: check, load, study, report.

What can be known to be wrong is found before anything is computed: parameters, data, judge and the results folder
first, then the model. From the moment the run folder exists its manifest says how things are, also when they go wrong.
"""

import subprocess
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache as once
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ssn_probe.api.pages import write_finished
from ssn_probe.api.remote_run import confirm_sending, remote_json, watched
from ssn_probe.data.judges import make_judge
from ssn_probe.doctor.proof import require_proof
from ssn_probe.engines.vllm_engine import ending, engine_for
from ssn_probe.errors import SSNProbeError
from ssn_probe.files import disk_errors, write_json, write_text
from ssn_probe.model.asking import asking_of
from ssn_probe.model.early_process import early_process
from ssn_probe.model.fetched import source_of
from ssn_probe.model.known import find_subject, is_open, keep_facts
from ssn_probe.model.row_independence import check_rows_independent
from ssn_probe.model.subject import Subject
from ssn_probe.model.torch_settings import computing_plainly
from ssn_probe.model.worker_places import sharing
from ssn_probe.remote.settings import check_settings
from ssn_probe.report.answer import answer_lines
from ssn_probe.report.certificate import with_certificate
from ssn_probe.report.claims import claims
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.run_report import notes_on_data, notes_on_findings
from ssn_probe.report.terminal.progress_bars import lines_while, tracking
from ssn_probe.runs import environment
from ssn_probe.runs import folder as results
from ssn_probe.runs.cache import Cache
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.manifest import Manifest, write_manifest
from ssn_probe.spec import Prompts, Recipe, Trains
from ssn_probe.spec.node import to_json, walk
from ssn_probe.study.findings import Findings
from ssn_probe.study.host_checks import check_allowed, check_fits
from ssn_probe.study.kept_progress import keeping_progress
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.lm_eval_tasks import check_tasks
from ssn_probe.study.model_notes import notes_on_model, notes_on_texts, notes_on_thoughts
from ssn_probe.study.pipeline import expected_steps, named_sets, run_study, since
from ssn_probe.study.plan import Plan, limited, make_plan
from ssn_probe.study.progress import Note, no_note
from ssn_probe.study.prompt_tokens import length_notes, prompt_lengths
from ssn_probe.study.resolve import measured
from ssn_probe.study.steps import Row, rows_of_steps
from ssn_probe.study.unjudged import (
    check_judged,
    judges_json,
    notes_on_judges,
    notes_on_sending,
    notes_on_unjudged,
    with_spent,
)
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import plain
from ssn_probe.tracing.host_facts import check_host
from ssn_probe.tracing.kept_passes import forgotten

LENGTHS = ("lengths of prompts",)
"""What a bench remembers them under."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings that change no number (but for `limit`, `dtype` and `engine`, which are recorded).

    `batch_size` None: as many prompts as the memory holds; given, it holds for the rows of a training pass, too.
    `gradient_checkpointing`: training computes activations twice rather than keep them. `fresh`: nothing is taken from
    the cache. `remote`: run the model on a host, see `load_subject`; `yes`: without asking before prompts are sent.
    `engine`: what generates responses, which decides their tokens; `transformers`, or `vllm[:OPTION=VALUE,…]`.
    `processes`: how many processes of this machine share the work; None: see `model.worker_places.sharing`.
    `source`: the text of the recipe file, as it was executed.
    """

    out: Path = Path("results")
    batch_size: int | None = None
    gradient_checkpointing: bool = False
    device: str = "auto"
    dtype: str = "auto"
    limit: int | None = None
    fresh: bool = False
    remote: bool | str = False
    yes: bool = True
    engine: str = "transformers"
    processes: int | None = None
    source: str | None = None
    arguments: dict[str, str] = field(default_factory=dict)


@computing_plainly()
def run_recipe(recipe: Recipe, options: Options, console: Console) -> RunFolder:
    """Runs a recipe and returns its folder. Raises an SSNProbeError for whatever the user can fix.

    A run that was stopped, at whatever moment, continues where it was when the same is run again: every batch that was
    done is in the cache.
    """
    check_settings(options.remote, device=options.device, gradient_checkpointing=options.gradient_checkpointing)
    recipe = limited(recipe, options.limit)
    plan = make_plan(recipe, remote=options.remote, device=options.device, engine=options.engine)
    for prompts in measured(recipe, plan.data).values():
        make_judge(prompts.judge, prompts.languages, prompts.name)  # before the model is loaded: is it well-formed?
    root = results.prepare(options.out)
    check_tasks(recipe)
    with _early(plan, options, root) as early:
        return _run(plan, options, console, root, early)


def _run(
    plan: Plan, options: Options, console: Console, root: Path, early: subprocess.Popen[bytes] | None
) -> RunFolder:
    """Runs a plan that can be; `early`: a process that a worker of the model will have."""
    recipe, started = plan.recipe, time.monotonic()
    what = f"looking at {recipe.model} on its host" if options.remote else f"loading {recipe.model}"
    with lines_while(console, what, on_terminals=bool(options.remote)) as tell:  # a first job may wait for its turn
        subject = found_subject(recipe, options, root, tell)
    check_judged(recipe, plan.data, subject)
    lengths = prompt_lengths(recipe, plan.data, subject)
    confirm_sending(console, subject, plan, root, lengths, fresh=options.fresh, yes=options.yes)
    key = resolved_key(recipe, subject.identity, plan.data)
    engine = engine_for(plan.engine, subject)
    record = Record(manifest_of(recipe, plan, options, subject, key))
    if engine is not None:
        record.note(options={**record.manifest.options, "engine": engine.identity})
    record.note(order=results.next_order(root))
    run = results.create_run(root, recipe.name, key)
    record.note(judges=[with_certificate(judge, root / "cache") for judge in record.manifest.judges or ()])
    record.note(seconds={"load": since(started)})
    cache = _cache(root, options.fresh, subject, record, console)
    bench = Workbench(
        subject=subject,
        data=plan.data,
        anchor=plan.anchor,
        batch_size=options.batch_size,
        gradient_checkpointing=options.gradient_checkpointing,
        cache=cache,
        engine=engine,
        prompt_memory={LENGTHS: lengths},
        warnings=record.warnings,
    )
    rows = rows_of_steps(expected_steps(bench, recipe))
    tracked = [(row.label, row.prompts) for row in rows]
    for note in notes_on_sending(bench, recipe, rows):
        console.print(Text(f"Note: {note}."))
    with (
        _recorded(run, record),
        ending(engine),
        _sharing(bench, plan, options, rows, early) as bench,
        tracking(console, tracked) as shown,
        keeping_progress(shown, tracked, run.path) as tracker,
    ):
        write_json(run.path / "recipe.json", to_json(recipe))
        if options.source is not None:
            write_text(run.path / "recipe.py", options.source)
        try:
            with watched(subject, tracker):
                findings = study(replace(bench, tracker=tracker), recipe, run, record)
        finally:
            record.note(remote=remote_json(subject))
        record.note(cache=dict(cache.counts), judges=with_spent(record.manifest.judges or (), bench, recipe))
        write_json(run.path / "parts.json", {"parts": cache.used})
        record.note(files=results.digests(run))
    results.point_latest(root, run)
    _report(FinishedRun(recipe=recipe, manifest=run.manifest(), findings=findings), run, console)
    return run


def _early(plan: Plan, options: Options, root: Path) -> AbstractContextManager[subprocess.Popen[bytes] | None]:
    """A process for a worker, where the plan is sure to be worth one."""
    if options.remote or _is_alone(plan):
        return nullcontext()
    return early_process(
        plan.recipe.model,
        responses=plan.compared_responses,
        processes=options.processes,
        cache=root / "cache",
        dtype=options.dtype,
        device=options.device,
        asking=asking_of(plan.recipe),
    )


def _is_alone(plan: Plan) -> bool:
    """Does one process compute all: is something else measured than the model as it was loaded?"""
    return plan.engine is not None or any(isinstance(node, Trains) for node in walk(plan.recipe))


@contextmanager
def _sharing(
    bench: Workbench, plan: Plan, options: Options, rows: Sequence[Row], early: subprocess.Popen[bytes] | None
) -> Iterator[Workbench]:
    """The bench with the model in several processes."""
    expected = sum(row.prompts * row.cost.passes for row in rows)
    settings = {"expected": expected, "asking": asking_of(plan.recipe), "warn": bench.warn, "early": early}
    with sharing(bench.subject, 1 if _is_alone(plan) else options.processes, **settings) as subject, forgotten(subject):
        if subject.workers is None or bench.cache is None:
            yield bench
            return
        yield replace(bench, subject=subject, cache=replace(bench.cache, pause=subject.workers.turns.pause))


def _report(found: FinishedRun, run: RunFolder, console: Console) -> None:
    """Writes the report of a run that is done, and stays so where its report cannot be drawn or written."""
    try:
        write_finished(run, found)
    except BaseException as error:  # a panic of the library that draws is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        why = error.message if isinstance(error, SSNProbeError) else f"{type(error).__name__}: {error}"
        warning = (
            f"The run is done, but its report could not be written: {plain(why)}. `ssn-probe report {run.name}` does."
        )
        if console.quiet:
            warnings.warn(warning, stacklevel=2)
        console.print(Text(warning, style="bold red"))


def found_subject(recipe: Recipe, options: Options, root: Path, tell: Note = no_note) -> Subject:
    """The recipe's model, fit for it; opened only if the cache below `root` does not know it.

    `tell` is called with how the first job is, where a host runs the model.

    Raises:
        SSNProbeError: it cannot be read, or is not fit.
    """
    subject = find_subject(
        recipe.model,
        cache=root / "cache",
        dtype=options.dtype,
        device=options.device,
        remote=options.remote,
        asking=asking_of(recipe),
    )
    if subject.calls is not None:
        subject.calls.tell = tell
    check_subject(subject, recipe, root)
    keep_facts(subject, options.dtype)
    return subject


def check_subject(subject: Subject, recipe: Recipe, root: Path) -> None:
    """Raises an SSNProbeError where a model, here or on a host, is not fit for a recipe."""
    check_fits(recipe, subject)
    require_proof(subject, root)
    if subject.calls is None:
        if is_open(subject):  # else it is checked when it is opened
            check_rows_independent(subject)
    else:
        check_host(subject)
        check_allowed(recipe, subject)


def _cache(root: Path, fresh: bool, subject: Subject, record: "Record", console: Console) -> Cache:
    """The cache of a results folder, which says what is wrong with it, and why the run waits."""
    told = {"warn": record.warnings.append, "waiting": once(lambda message: console.print(Text(message)))}
    cache = Cache(root=root / "cache", fresh=fresh, **told)
    return cache if subject.calls is None else replace(cache, pause=subject.calls.turns.pause)


@dataclass
class Record:
    """The manifest of a run as far as it has come, and the warnings that are still being made."""

    manifest: Manifest
    warnings: list[str] = field(default_factory=list)

    def note(self, **changes: Any) -> None:
        """Puts what is known now into the manifest."""
        self.manifest = replace(self.manifest, **changes)

    def to_json(self) -> dict[str, Any]:
        return replace(self.manifest, warnings=tuple(self.warnings)).to_json()


def study(bench: Workbench, recipe: Recipe, run: RunFolder, record: Record) -> Findings:
    """Runs the study and writes its tables; `record` gets what belongs into the manifest, the answer in words, too."""
    judged = notes_on_judges(recipe, bench.data)
    notes = (*judged, *notes_on_model(bench.subject), *notes_on_texts(bench.subject, bench.data, bench.subject.kept))
    for note in (*notes, *notes_on_data(recipe, bench.data), *_notes_on_lengths(bench, recipe)):
        bench.warn(note)
    findings = run_study(bench, recipe, run.path)
    thoughts = notes_on_thoughts(bench.subject, findings.samples)
    for note in (*notes_on_findings(recipe, findings), *thoughts, *notes_on_unjudged(findings.samples)):
        bench.warn(note)
    record.note(
        anchor=findings.anchor,
        sets=findings.sets,
        evaluated=findings.evaluated,
        tokens=findings.tokens,
        gates=[asdict(gate) for gate in findings.gates],
        refusals=None if findings.refusals is None else [asdict(one) for one in findings.refusals],
        exchanged=[asdict(one) for one in findings.robustness.exchangeability],
        apart=list(findings.robustness.apart),
        trained=[asdict(trained) for trained in findings.trained],
        seconds={**record.manifest.seconds, **findings.seconds},
        remote=remote_json(bench.subject),
    )
    made = FinishedRun(recipe=recipe, manifest=record.to_json(), findings=findings)
    record.note(answer=answer_lines(made), claims=[asdict(claim) for claim in claims(made)])
    return findings


def _notes_on_lengths(bench: Workbench, recipe: Recipe) -> Iterator[str]:
    lengths = bench.remember_prompts(LENGTHS, lambda: prompt_lengths(recipe, bench.data, bench.subject))
    return length_notes(lengths, bench.subject)


def manifest_of(recipe: Recipe, plan: Plan, options: Options, subject: Subject, key: str) -> Manifest:
    """How a run is made, before anything has been found."""
    return Manifest(
        recipe=recipe.name,
        question=recipe.question,
        key=key,
        order=0,
        started=environment.now(),
        arguments=options.arguments,
        options={"batch_size": options.batch_size, "limit": options.limit, "dtype": options.dtype},
        seed=recipe.seed,
        model=dict(subject.identity) | {"name": recipe.model} | source_of(subject.path),
        neurons={"layers": subject.n_layers, "per_layer": dict(subject.widths)},
        generation=subject.turns.to_json(),
        device=subject.place,
        data=[_data_json(node, prompts) for node, prompts in plan.data.items()],
        judges=judges_json(recipe, plan.data),
        nodes={name: resolved_key(node, subject.identity, plan.data) for name, node in named_sets(recipe).items()},
        environment=environment.environment(),
    )


def _data_json(node: Prompts, prompts: Any) -> dict[str, Any]:
    counts = prompts.frame.group_by("split", "context", "language").len().sort("split", "context", "language")
    return {
        "source": node.source,
        "harmless": node.harmless,
        "name": prompts.name,
        "anchor": prompts.anchor,
        "license": prompts.license,
        "revision": prompts.revision,
        "harmless_set": prompts.harmless and dict(prompts.harmless),
        "sha256": prompts.digest,
        "limit": node.limit,
        "prompts": [dict(row) for row in counts.iter_rows(named=True)],
    }


@contextmanager
def _recorded(run: RunFolder, record: Record) -> Iterator[None]:
    """Keeps the manifest's status true: running, then done, failed or interrupted."""
    path = run.path / "manifest.json"
    lock = results.hold(run)
    write_manifest(path, record.to_json())
    trace, began = "", time.monotonic()
    try:
        yield
        record.note(status="done")
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        message = error.message if isinstance(error, SSNProbeError) else f"{type(error).__name__}: {error}"
        seconds = {"load": record.manifest.seconds["load"], "until it ended": since(began)}
        record.note(status="interrupted" if interrupted else "failed", error=message, seconds=seconds)
        trace = traceback.format_exc()
        raise
    finally:
        record.note(ended=environment.now())
        results.make_room(run)
        write_manifest(path, record.to_json())
        log = run.path / "run.log"
        with disk_errors(log), log.open("a", encoding="utf-8") as file:
            file.write(log_lines(record.warnings) + trace)
        results.let_go(run, lock)


def log_lines(warnings: Sequence[str]) -> str:
    """What run.log says of a run that is done."""
    return "".join(f"warning: {warning}\n" for warning in warnings)
