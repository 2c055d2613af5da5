"""`ssn-probe delta train`: from a neuron file, a model and data to a delta file, in one process or in several.

Everything that can be wrong without the model is looked at before it is loaded. What was trained lies in a checkpoint
until the file is written, so that the same command goes on wherever it was stopped.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.data.training_rows import SafetyData, safety_data
from ssn_probe.errors import ModelError, RecipeError, ResultError, nearest
from ssn_probe.files import disk_errors
from ssn_probe.model.families import family_of
from ssn_probe.model.loading import locate, read_config, read_tokenizer, read_weights, settle_generation
from ssn_probe.model.subject import DTYPES
from ssn_probe.neurons import read_neurons
from ssn_probe.report.terminal.progress_bars import tracking
from ssn_probe.spec import Prompts
from ssn_probe.spec.training_settings import Schedule, Training, held_out
from ssn_probe.study.progress import Tracker
from ssn_probe.text import plain
from ssn_probe.training.delta_file.file import DeltaFile, delta_file, write_delta
from ssn_probe.training.loop.compliance_probe import held_out_probe
from ssn_probe.training.loop.frozen_model import fitting
from ssn_probe.training.loop.processes import Team, gather_team, one_voice, own_device, sharded
from ssn_probe.training.loop.resuming import FILE, Step
from ssn_probe.training.loop.step_figures import FIGURES, figures, share
from ssn_probe.training.loop.train import Trained, train
from ssn_probe.training.weights.neuron_weights import Neuron, rows_of

LABEL = "training"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train on what and how, and where the delta goes: the options of the command.

    `neurons`: a neuron file; of a set per language the neurons of `language`, or with `union` those of any.
    `micro_batch`: rows per pass and process; None: all of a step's, and half as many whenever that does not fit.
    `checkpoints`: a folder that is kept; None: one beside `out`, which goes when `out` is written. `shard`: split the
    frozen base over the processes, each of which reads all of it into the memory of the machine before.
    """

    neurons: Path
    model: str
    data: str
    out: Path
    language: str | None = None
    union: bool = False
    contexts: tuple[str, ...] = ("harmful", "harmless")
    languages: tuple[str, ...] | None = None
    training: Training
    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    checkpoints: Path | None = None
    checkpoint_every: int = 50
    overwrite: bool = False
    device: str = "auto"
    dtype: str = "auto"
    shard: bool = False

    @property
    def folder(self) -> Path:
        """Where the checkpoint lies."""
        return self.checkpoints or self.out.with_name(f"{self.out.name}.checkpoints")

    @property
    def has_checkpoint(self) -> bool:
        """Does the same command go on, rather than begin anew?"""
        return (self.folder / FILE).exists()


@dataclass(frozen=True, kw_only=True, eq=False)
class Base:
    """The model to train beside, with what training and probe have to know of it; `revision`: on the hub."""

    module: Any
    tokenizer: Any
    eos_ids: tuple[int, ...]
    revision: str | None


def train_delta(job: Job, screen: Console) -> DeltaFile:
    """Trains and writes the delta file. The first process alone writes, shows progress and says what came out.

    Raises:
        RecipeError: no neuron, a set per language of which none was chosen, or settings that make no sense.
        DataError: a neuron file or a prompt set that cannot be used, or responses that do not fit their request.
        ModelError: a model or a device that cannot be used, neurons of another model, a loss that is not finite, or
            (`OutOfMemory`) not even one row at a time fits.
        ResultError: a file that is there already, a disk that cannot be written, or the checkpoint of another training.
    """
    with one_voice():
        team = gather_team(own_device(job.device))
        screen = screen if team.leads else Console(quiet=True)
        _check_out(job)
        neurons, said = chosen_neurons(job)
        prompts = load_prompts(Prompts(job.data))
        data = safety_data(prompts, languages=job.languages, contexts=job.contexts)
        base = _load(job, team)
        probe = held_out_probe(
            base.tokenizer, data, job.training, max_new_tokens=prompts.max_new_tokens, eos_ids=base.eos_ids
        )
        if job.has_checkpoint:
            screen.print(Text(plain(f"Going on from {job.folder / FILE}.")), soft_wrap=True)
        rows = _rows_to_train(data, job.training)
        with tracking(screen, [(LABEL, rows)]) as tracker:
            trained = _train(job, team, base, neurons, data, probe, _watch(tracker, job.training.batch, rows))
            if trained.stopped_early:  # the row is complete all the same
                tracker.settle({LABEL: min(trained.history[-1].step * job.training.batch, rows)})
                tracker.advance(LABEL)(0)
        file = delta_file(trained, model=job.model, revision=base.revision, neurons=said)
        team.wait()  # until every process has read the checkpoint that goes now
        if team.leads:
            write_delta(job.out, file)
            _remove_checkpoint(job)
        _tell(screen, job, trained, file)
    return file


def _check_out(job: Job) -> None:
    with disk_errors(job.out):
        if job.out.is_dir():
            raise ResultError(f"{job.out} is a folder.", "Name a file, such as delta.safetensors.")
        if job.out.exists() and not job.overwrite:
            raise ResultError(f"{job.out} is there already.", "Choose another file, or give --overwrite.")
        _make_folder(job.out.parent)
    try:
        if job.checkpoints or job.folder.exists():  # beside the file, it is made with the first checkpoint
            _make_folder(job.folder)
    except OSError as error:
        hint = "Name another folder for the checkpoint: --checkpoints FOLDER."
        raise ResultError(f"cannot write {job.folder}: {error.strerror}", hint) from error


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "Permission denied")


def chosen_neurons(job: Job) -> tuple[list[Neuron], str]:
    """The neurons to train, (layer, site, index), and what a delta file says of where they come from.

    Raises:
        DataError: a file that cannot be read.
        RecipeError: a language that the set lacks, or none chosen where the set has several.
    """
    found, name = read_neurons(job.neurons), job.neurons.name
    if job.union and job.language is not None:
        raise RecipeError("both --language and --union are given", "One language's neurons, or those of any: choose.")
    if job.union:
        return rows_of(found.union()), f"{name}, those of any language"
    if found.language_free:
        return rows_of(found), name
    first, *others = found.languages
    if job.language is None and others:
        raise RecipeError(
            f"{job.neurons} has neurons for each of {', '.join(found.languages)}, and training changes one model",
            "Take one language's, --language CODE, or those of any language, --union.",
        )
    language = first if job.language is None else job.language
    if language not in found.languages:
        raise RecipeError(f"{job.neurons} has no language {language!r}", nearest(language, found.languages))
    return rows_of(found, language), f"{name}, those of {language}"


def _load(job: Job, team: Team) -> Base:
    """A sharded base is loaded into the memory of the machine, and moves to the devices layer by layer."""
    if job.dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {job.dtype!r}.", nearest(job.dtype, DTYPES))
    shard = job.shard or (team.size > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true")
    where = locate(job.model)
    config, tokenizer = read_config(where), read_tokenizer(where)
    module = read_weights(where, config, family_of(config), job.dtype, "cpu" if shard else str(team.device))
    eos_ids, _pad_id = settle_generation(module, tokenizer)
    revision = None if Path(where).is_dir() else getattr(config, "_commit_hash", None)
    module = sharded(module, team) if shard else module
    return Base(module=module, tokenizer=tokenizer, eos_ids=eos_ids, revision=revision)


def _rows_to_train(data: SafetyData, settings: Training) -> int:
    """Rows that the training sees, every epoch anew, if it does not stop early."""
    kept = held_out([(row.context, row.cluster) for row in data.examples], settings)
    learned = sum(row.cluster not in kept for row in data.examples)
    return Schedule(settings=settings, rows=learned).total * settings.batch


def _train(job: Job, team: Team, base: Base, neurons: Any, data: SafetyData, probe: Any, watch: Any) -> Trained:
    def work(micro_batch: int | None) -> Trained:
        return train(
            base.module,
            base.tokenizer,
            neurons,
            data,
            job.training,
            folder=job.folder,
            checkpoint_every=job.checkpoint_every,
            micro_batch=micro_batch,
            gradient_checkpointing=job.gradient_checkpointing,
            eos_ids=base.eos_ids,
            watch=watch,
            probe=probe,
        )

    # A process that starts again alone would wait for the others for ever: several say what does not fit.
    return fitting(work, job.micro_batch, shrink=job.micro_batch is None and team.size == 1)


def _watch(tracker: Tracker, batch: int, total: int) -> Callable[[Step, Any], None]:
    """Moves the training's row of progress on, also past what a checkpoint has done, and says there how it goes."""
    advance, done = tracker.advance(LABEL), 0
    told: dict[str, str] = {}

    def watch(step: Step, _change: Any) -> None:
        nonlocal done
        told.update(figures(step))
        tracker.note(LABEL, ", ".join(told[name] for name in FIGURES if name in told))
        now = total if step.step == step.total else min(step.step * batch, total)
        if now > done:
            advance(now - done)
            done = now

    return watch


def _remove_checkpoint(job: Job) -> None:
    if job.checkpoints is None:
        (job.folder / FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds something of the user's
            job.folder.rmdir()


def _tell(screen: Console, job: Job, trained: Trained, file: DeltaFile) -> None:
    """What the file states, what the probe said before and after, and where the file is."""
    screen.print(file, crop=False)
    probes = {step.step: step.probe for step in trained.history if step.probe is not None}
    if 0 in probes and trained.chosen_step in probes:
        before, after = (share(probes[step]) for step in (0, trained.chosen_step))
        said = f"ASR on held-out harmful rows (a probe, for a result run a study): {before} → {after}"
        screen.print(said, soft_wrap=True)
    if trained.stopped_early:
        screen.print("Stopped early: the held-out loss had not fallen any more.")
    screen.print(Text(plain(f"Written to {job.out}.")), soft_wrap=True)
