"""`ssn-probe delta`: train a delta file, show it, compare two, put it into a model and take it out again."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssn_probe.cli.options import CHAT, SYSTEM
from ssn_probe.cli.user_errors import user_errors
from ssn_probe.spec.training_settings import Training

if TYPE_CHECKING:
    from ssn_probe.training.delta_file.file import DeltaFile

PATH = click.Path(path_type=Path)
DTYPE = click.option(
    "--dtype", metavar="TYPE", help="float32, bfloat16, float16 or float64.  [default: as it was trained]"
)
MODEL = click.option("-m", "--model", required=True, help="The base: organism, smollm2, a folder or a name on the hub.")


class DeltaCommand(click.Command):
    """A command of this group: a user's mistake is one message and a hint, and Ctrl-C leaves nothing half done."""

    def invoke(self, ctx: click.Context) -> Any:
        with user_errors(ctx.obj):
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                click.echo("Interrupted. Nothing was written.", err=True)
                sys.exit(130)


class DeltaGroup(click.Group):
    command_class = DeltaCommand


@click.group(cls=DeltaGroup, short_help="Delta files: train, show, compare, apply, merge, unmerge.")
def delta() -> None:
    """The change that training made in a model, as a file: make it, show it, compare two, merge and unmerge it.

    FILE is a delta file, or a folder that `merge` wrote.
    """


SETTINGS = (
    ("lr", float, "The highest learning rate."),
    ("batch", int, "Rows per step, over all processes."),
    ("epochs", int, "Passes over the rows."),
    ("steps", int, "Number of steps, instead of epochs."),
    ("warmup", float, "Share of the steps in which the learning rate rises."),
    ("clip", float, "Largest norm of the whole gradient."),
    ("held_out", float, "Share of the rows that is not learned but measures the loss."),
    ("evaluate_every", int, "Steps between two measurements of the loss.  [default: one epoch]"),
    ("seed", int, "Decides the order of the rows, and which are held out."),
)
"""The settings of `Training` that are options; their defaults are those of `Training`."""


class CommaSeparated(click.ParamType):
    """Words separated by commas."""

    name = "A,B,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(word.strip() for word in value.split(",") if word.strip())


def settings_options(command: Any) -> Any:
    """One option per setting of a training."""
    for name, kind, text in reversed(SETTINGS):
        default = getattr(Training, name)
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, type=kind, default=default, show_default=default is not None, help=text)(command)
    return command


@delta.command(short_help="Train the weights of a neuron file on refusals.")
@click.argument("neurons", type=PATH)
@click.option("-m", "--model", required=True, help="organism, smollm2, a folder or a name on the hub.")
@click.option("--data", required=True, help="organism, or a prompt set whose split train has the responses to learn.")
@click.option("-o", "out", type=PATH, required=True, help="The delta file, such as delta.safetensors.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--language", metavar="CODE", help="Train the neurons that the set has for this language.")
@click.option("--union", is_flag=True, help="Train the neurons that the set has for any language.")
@click.option(
    "--contexts",
    type=CommaSeparated(),
    default="harmful,harmless",
    show_default=True,
    help="Contexts of the rows to learn.",
)
@click.option("--languages", type=CommaSeparated(), help="Languages of the rows to learn.  [default: all of the data]")
@settings_options
@click.option("--micro-batch", type=click.IntRange(1), help="Rows per pass and process.  [default: as many as fit]")
@click.option("--gradient-checkpointing", is_flag=True, help="Save memory by computing activations twice.")
@click.option(
    "--checkpoints", type=PATH, help="Folder that keeps the checkpoint.  [default: beside the file, until it is done]"
)
@click.option(
    "--checkpoint-every", type=click.IntRange(1), default=50, show_default=True, help="Steps between checkpoints."
)
@click.option("--judge", metavar="NAME[:ARGUMENT]", help="Who checks the rows to learn.  [default: the data's own]")
@SYSTEM
@CHAT
@click.option("--shard", is_flag=True, help="Split the frozen model over the processes (FSDP2).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@click.option("--dtype", default="auto", show_default=True, help="auto (as stored), float32, bfloat16, float64.")
def train(out: Path, **options: Any) -> None:
    """Train the weights of the neurons in NEURONS (parquet or csv), and no others, to refuse in every language.

    The judge checks the rows to learn before anything is trained. If the training is interrupted, the same
    command continues from the last checkpoint. Where the memory does not hold all rows of a step, fewer are computed at
    a time, with the same result.

    \b
    On several GPUs:
      torchrun --nproc-per-node 2 -m ssn_probe delta train …
      accelerate launch --num_processes 2 -m ssn_probe delta train …
    for a model that does not fit on one GPU, add --shard, or
      accelerate launch --use_fsdp --fsdp_version 2 --num_processes 2 …
    Without a GPU: torchrun, or accelerate launch --multi_gpu (its --cpu starts a single process).

    To split the model, every process first reads all of it into the memory of the machine.

    Several processes do not adapt --micro-batch: if the rows do not fit, the training ends.
    """
    from ssn_probe.api.delta_training import Job, train_delta
    from ssn_probe.report.terminal.command_output import console

    settings = Training(**{name: options.pop(name) for name, _kind, _text in SETTINGS})
    job = Job(out=out, training=settings, **options)
    try:
        train_delta(job, console())
    except KeyboardInterrupt:
        rest = (
            "continues from the last checkpoint" if job.has_checkpoint else "starts again: there is no checkpoint yet"
        )
        click.echo(f"Interrupted. The same command {rest}.", err=True)
        sys.exit(130)


@delta.command(short_help="Show what a delta file contains.")
@click.argument("file", type=PATH)
def info(file: Path) -> None:
    """Base, neurons, parameters, data, settings and origin, as FILE states them."""
    found = _read(file)
    from ssn_probe.report.terminal.command_output import console
    from ssn_probe.spec.display import literal

    screen = console()
    screen.print(found, crop=False)
    screen.print(literal(f"{_delta_path(file)}: {_delta_path(file).stat().st_size:,} bytes"), soft_wrap=True)


@delta.command(short_help="Compare the neurons and weights of two delta files.")
@click.argument("first", metavar="FILE", type=PATH)
@click.argument("second", metavar="FILE2", type=PATH)
def diff(first: Path, second: Path) -> None:
    """Which neurons only FILE or FILE2 changes, how similar the changes are, and where the records differ.

    Both must belong to the same base.
    """
    ours, theirs = _read(first), _read(second)
    from ssn_probe.report.terminal.command_output import console
    from ssn_probe.report.terminal.delta_tables import differences

    console().print(differences(ours, theirs), crop=False)


@delta.command(short_help="Write the base with the delta merged in, as a Hugging Face folder.")
@click.argument("file", type=PATH)
@MODEL
@click.option("-o", "out", type=PATH, required=True, help="The new folder.")
@DTYPE
def merge(file: Path, model: str, out: Path, dtype: str | None) -> None:
    """Write the model with the delta in its weights, as a folder that loads with transformers alone.

    Any other base than that of FILE is refused by its digest. The folder has a model card, and keeps what `unmerge`
    needs to restore the base bit for bit. In bfloat16 small changes can round away: --dtype float32 keeps them.
    """
    found = _read(file)
    from ssn_probe.training.export.conversion import merge_folder

    cost = merge_folder(model, found, out, dtype=dtype)
    if cost.unmoved:
        click.echo(
            f"{100 * cost.unmoved:.1f} % of the changed weights round to their old value; --dtype float32 keeps them."
        )
    _echo(f"Written to {out}. To take the delta out again: ssn-probe delta unmerge {shlex.quote(str(out))} -o BASE")


@delta.command(short_help="Restore the base of a merged folder, bit for bit.")
@click.argument("folder", type=PATH)
@click.option("-o", "out", type=PATH, required=True, help="The new folder.")
def unmerge(folder: Path, out: Path) -> None:
    """Write the base of FOLDER, which `merge` wrote, after checking its weights by digest."""
    from ssn_probe.training.export.conversion import unmerge_folder

    found = unmerge_folder(folder, out)
    _echo(f"Written to {out}: weights SHA-256 {found.base_digest}, as before the training.")


@delta.command(short_help="Compare responses of a model without and with the delta.")
@click.argument("file", type=PATH)
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True)
@MODEL
@DTYPE
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@SYSTEM
@CHAT
@click.option("--max-new-tokens", type=click.IntRange(1), default=128, show_default=True, help="Per response.")
@click.option("--full", is_flag=True, help="Show whole responses, not the first 80 characters.")
def apply(
    file: Path,
    prompts: tuple[str, ...],
    model: str,
    dtype: str | None,
    device: str,
    system: str | None,
    chat: str | None,
    max_new_tokens: int,
    full: bool,
) -> None:
    """The greedy response to each PROMPT, without and with the delta. Nothing is written.

    Any other base than that of FILE is refused by its digest.
    """
    found = _read(file)
    from ssn_probe.model.asking import Asking, asked_in_words, asked_of
    from ssn_probe.model.chat import encode
    from ssn_probe.model.ranks import check_whole
    from ssn_probe.model.row_independence import check_rows_independent
    from ssn_probe.model.subject import load_subject
    from ssn_probe.report.terminal.command_output import console
    from ssn_probe.report.terminal.delta_tables import responses
    from ssn_probe.tracing.generate import generate
    from ssn_probe.training.export.conversion import precision
    from ssn_probe.training.export.merging import applied

    asking = Asking(system=system, chat=chat)
    subject = load_subject(model, dtype=dtype or precision(found), device=device, asking=asking)
    check_whole(subject, "A delta")
    check_rows_independent(subject)
    trained, here = (asked_in_words(asked) for asked in (found.about.get("asked"), asked_of(subject.identity)))
    if trained != here:
        _echo(f"Note: the delta was trained on a model that was asked {trained}; here it is asked {here}.")
    tokens = encode(subject, prompts)
    with applied(subject.model._module, found):
        after = [response.text for response in generate(subject, tokens, max_new_tokens=max_new_tokens)]
    before = [response.text for response in generate(subject, tokens, max_new_tokens=max_new_tokens)]
    console().print(responses(prompts, before, after, full=full), crop=False)


def _delta_path(path: Path) -> Path:
    """The delta file itself, in a folder that `merge` wrote."""
    from ssn_probe.training.export.model_card import DELTA

    return path / DELTA if path.is_dir() else path


def _read(path: Path) -> "DeltaFile":
    from ssn_probe.training.delta_file.file import read_delta

    return read_delta(_delta_path(path))


def _echo(text: str) -> None:
    from ssn_probe.text import plain

    click.echo(plain(text))
