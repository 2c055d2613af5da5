"""`ssn-probe delta train`: from a neuron file, a model and data to a delta file, in one process or in several.

Everything that can be checked without the model is checked before it is loaded. A checkpoint keeps the state of the
training until the file is written, so that the same command continues wherever it was interrupted.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.data.training_rows import SPLIT, SafetyData, safety_data
from ssn_probe.errors import ModelError, RecipeError, ResultError, nearest
from ssn_probe.files import disk_errors, remove_half_written
from ssn_probe.model.asking import Asking, asking_identity, asking_notes
from ssn_probe.model.families import family_of
from ssn_probe.model.loading import commit_of, is_embedded, locate, read_config, read_tokenizer, read_weights
from ssn_probe.model.subject import DTYPES
from ssn_probe.model.trial import try_chats
from ssn_probe.model.turn_ends import settle_generation
from ssn_probe.neurons import read_neurons
from ssn_probe.report.terminal.progress_bars import tracking
from ssn_probe.spec import Prompts
from ssn_probe.spec.training_settings import Schedule, Training
from ssn_probe.study.model_notes import notes_on_texts
from ssn_probe.text import capitalised, plain
from ssn_probe.training.delta_file.file import DeltaFile, delta_file, write_delta
from ssn_probe.training.loop.processes import Team, gather_team, own_device, sharded, single_error
from ssn_probe.training.loop.resuming import FILE
from ssn_probe.training.loop.train import Trained
from ssn_probe.training.loop.train_within_memory import train_within_memory
from ssn_probe.training.loop.training_progress import TrainingProgress, share
from ssn_probe.training.weights.neuron_weights import Neuron, rows_of

LABEL = "training"
CHECKPOINTS = "choose another folder for the checkpoint: --checkpoints FOLDER"
FILES = "choose another file with -o FILE"
LOCK = "lock"
"""In the folder of the checkpoint, while a process trains."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The options of the command: neurons, model, data, settings, and where the delta goes.

    `neurons`: a neuron file; from a set per language, the neurons of `language`, or with `union` those of any.
    `micro_batch`: rows per pass and process; None: all rows of a step, and half as many whenever they do not fit.
    `checkpoints`: a folder that is kept; None: a folder beside `out`, removed when `out` is written. `shard`: split
    the frozen base over the processes, each of which first reads all of it into the memory of the machine. `system`,
    `chat`: how the model is asked, see `Asking`.
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
    system: str | None = None
    chat: str | None = None
    judge: str | None = None

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return self.checkpoints or self.out.with_name(f"{self.out.name}.checkpoints")

    @property
    def has_checkpoint(self) -> bool:
        """Would the same command continue, rather than start again?"""
        return (self.folder / FILE).exists()


@dataclass(frozen=True, kw_only=True, eq=False)
class Base:
    """The model to train beside, with what training and probe need; `revision`: on the hub; `asked`: see `Asking`."""

    module: Any
    tokenizer: Any
    eos_ids: tuple[int, ...]
    revision: str | None
    asked: Mapping[str, Any]


def train_delta(job: Job, screen: Console) -> DeltaFile:
    """Trains and writes the delta file. Only the first process writes, shows progress and reports the result.

    Raises:
        RecipeError: no neuron, a set per language without a choice, or settings that make no sense.
        DataError: a neuron file or a prompt set that cannot be used, or responses that do not fit their request.
        ModelError: a model or a device that cannot be used, neurons of another model, a loss that is not finite, or
            (`OutOfMemory`) not even one row at a time fits.
        ResultError: a file that already exists, a disk that cannot be written, or the checkpoint of another training.
    """
    with single_error():
        team = gather_team(own_device(job.device))
        screen = screen if team.leads else Console(quiet=True)
        _check_out(job)
        neurons, description = chosen_neurons(job)
        prompts = load_prompts(Prompts(job.data))
        prompts = prompts if job.judge is None else replace(prompts, judge=job.judge)
        data = safety_data(prompts, languages=job.languages, contexts=job.contexts)
        base = _load(job, team)
        if not is_embedded(locate(job.model)):
            texts, answers = ([getattr(row, name) for row in data.examples] for name in ("text", "target"))
            try_chats(base.tokenizer, texts, answers=answers)
        learned = replace(prompts, frame=prompts.frame.filter(split=SPLIT))
        for note in (*asking_notes(base.tokenizer), *notes_on_texts(base, {Prompts(job.data): learned})):
            screen.print(Text(plain(f"Note: {note}.")), soft_wrap=True)
        with _alone(job, team):
            trained = _train(job, team, base, neurons, data, prompts.max_new_tokens, screen)
            file = delta_file(trained, model=job.model, revision=base.revision, neurons=description)
            file = replace(file, about=dict(file.about) | ({"asked": dict(base.asked)} if base.asked else {}))
            team.wait()  # until every process has read the checkpoint, which is removed now
            if team.leads:
                remove_half_written(job.out)
                write_delta(job.out, file, elsewhere=FILES)
                _remove_checkpoint(job)
        _report(screen, job, trained, file)
    return file


def _check_out(job: Job) -> None:
    with disk_errors(job.out, FILES):
        if job.out.is_dir():
            raise ResultError(f"{job.out} is a folder.", "Name a file, such as delta.safetensors.")
        if job.out.exists() and not job.overwrite:
            raise ResultError(f"{job.out} already exists.", "Choose another file, or add --overwrite.")
        _make_folder(job.out.parent)
    try:
        if job.checkpoints or job.folder.exists():  # beside the file, it is made with the first checkpoint
            _make_folder(job.folder)
    except OSError as error:
        raise ResultError(f"cannot write {job.folder}: {error.strerror}", f"{capitalised(CHECKPOINTS)}.") from error


@contextlib.contextmanager
def _alone(job: Job, team: Team) -> Iterator[None]:
    """Holds the folder of the checkpoint. Raises ResultError where another command trains in it."""
    from filelock import FileLock, Timeout

    if not team.leads:
        yield
        return
    with disk_errors(job.folder, CHECKPOINTS):
        job.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(job.folder / LOCK)
            lock.acquire(timeout=0)
        except Timeout as error:
            hint = f"Wait for it, or {CHECKPOINTS if job.checkpoints else FILES}."
            raise ResultError(f"Another process is training, with its checkpoint in {job.folder}.", hint) from error
    try:
        _check_out(job)  # another process may have written the file meanwhile
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            (job.folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if job.checkpoints is None:
            with contextlib.suppress(OSError):  # the checkpoint is in it, or the user keeps something there
                job.folder.rmdir()


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "Permission denied")


def chosen_neurons(job: Job) -> tuple[list[Neuron], str]:
    """The neurons to train, (layer, site, index), and their description for the delta file.

    Raises:
        DataError: a file that cannot be read.
        RecipeError: a language that the set lacks, or none chosen where the set has several.
    """
    found, name = read_neurons(job.neurons), job.neurons.name
    if job.union and job.language is not None:
        raise RecipeError(
            "both --language and --union are given", "Choose the neurons of one language or those of any language."
        )
    if job.union:
        return rows_of(found.union()), f"{name}, those of any language"
    if found.language_free:
        return rows_of(found), name
    first, *others = found.languages
    if job.language is None and others:
        raise RecipeError(
            f"{job.neurons} has different neurons for {', '.join(found.languages)}, but training changes one model",
            "Choose the neurons of one language (--language CODE) or those of any language (--union).",
        )
    language = first if job.language is None else job.language
    if language not in found.languages:
        raise RecipeError(f"{job.neurons} has no language {language!r}", nearest(language, found.languages))
    return rows_of(found, language), f"{name}, those of {language}"


def _load(job: Job, team: Team) -> Base:
    """Loads the base; to be sharded, into the memory of the machine, and from there to the devices layer by layer."""
    if job.dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {job.dtype!r}.", nearest(job.dtype, DTYPES))
    shard = job.shard or (team.size > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true")
    where = locate(job.model)
    config = read_config(where)
    asking = Asking(system=job.system, chat=job.chat)
    tokenizer = read_tokenizer(where, commit_of(config), asking)
    module = read_weights(where, config, family_of(config), job.dtype, "cpu" if shard else str(team.device))
    eos_ids = settle_generation(where, module, tokenizer).ids
    revision = None if Path(where).is_dir() else commit_of(config)
    module = sharded(module, team) if shard else module
    asked = asking_identity(tokenizer, asking)
    return Base(module=module, tokenizer=tokenizer, eos_ids=eos_ids, revision=revision, asked=asked)


def _train(
    job: Job, team: Team, base: Base, neurons: list[Neuron], data: SafetyData, max_new_tokens: int, screen: Console
) -> Trained:
    """Trains, and shows how far it is."""
    batch, learned = job.training.batch, data.split(job.training)[0]
    total = Schedule(settings=job.training, rows=len(learned)).total * batch
    progress = TrainingProgress(total=total, batch=batch)
    with tracking(screen, [(LABEL, total)]) as tracker:
        advance = tracker.advance(LABEL)
        trained = train_within_memory(
            base.module,
            base.tokenizer,
            neurons,
            data,
            job.training,
            eos_ids=base.eos_ids,
            max_new_tokens=max_new_tokens,
            micro_batch=job.micro_batch,
            # A process that starts again alone would wait for the others for ever.
            shrink=job.micro_batch is None and team.size == 1,
            folder=job.folder,
            elsewhere=CHECKPOINTS,
            checkpoint_every=job.checkpoint_every,
            gradient_checkpointing=job.gradient_checkpointing,
            watch=progress.watch(advance, partial(tracker.note, LABEL)),
            resumed=lambda: screen.print(Text(plain(f"Continuing from {job.folder / FILE}.")), soft_wrap=True),
            warn=lambda message: screen.print(Text(f"Warning: {plain(message)}.", style="yellow"), soft_wrap=True),
        )
        progress.count(trained.history[-1].step, advance)
        if trained.stopped_early:  # the row is complete all the same
            tracker.settle({LABEL: progress.counted})
            advance(0)
    return trained


def _remove_checkpoint(job: Job) -> None:
    if job.checkpoints is None:
        (job.folder / FILE).unlink(missing_ok=True)
        remove_half_written(job.folder / FILE)


def _report(screen: Console, job: Job, trained: Trained, file: DeltaFile) -> None:
    """Shows the file, the probe before and after, and where the file is."""
    screen.print(file, crop=False)
    probes = {step.step: step.probe for step in trained.history if step.probe is not None}
    if 0 in probes and trained.chosen_step in probes:
        before, after = (share(probes[step]) for step in (0, trained.chosen_step))
        line = f"ASR on held-out harmful rows: {before} → {after} (a quick probe; for a result, run a study)"
        screen.print(line, soft_wrap=True)
    if trained.stopped_early:
        screen.print("Stopped early: the held-out loss no longer fell.")
    screen.print(Text(plain(f"Written to {job.out}.")), soft_wrap=True)
