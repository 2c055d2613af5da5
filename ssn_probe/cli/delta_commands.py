"""`ssn-probe delta`: train one, what it says, how two differ, and into a model and out again."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssn_probe.spec.training_settings import Training

if TYPE_CHECKING:
    from ssn_probe.training.delta_file.file import DeltaFile

PATH = click.Path(path_type=Path)
DTYPE = click.option(
    "--dtype", metavar="TYPE", help="float32, bfloat16, float16 or float64.  [default: as it was trained]"
)
MODEL = click.option("--model", required=True, help="The base: organism, organism:NAME, a folder or a name on the hub.")


class Verb(click.Command):
    """A command of this group. A user's mistake is one message and a hint; nothing is left half done by Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        from ssn_probe.cli.commands import user_errors  # which imports this module

        with user_errors(ctx.obj):
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                click.echo("Interrupted. Nothing was written.", err=True)
                sys.exit(130)


class Verbs(click.Group):
    command_class = Verb


@click.group(cls=Verbs, short_help="Delta files: train, read, compare, apply, merge, unmerge.")
def delta() -> None:
    """What training changed in a model, as a file: make it, read it, compare two, put it into its base and take it out.

    FILE is a delta file, or a folder that `merge` wrote.
    """


SETTINGS = (
    ("lr", float, "The highest learning rate."),
    ("batch", int, "Rows per step, over all processes."),
    ("epochs", int, "Passes over the rows."),
    ("steps", int, "End earlier or later than that."),
    ("warmup", float, "Share of the steps in which the rate rises."),
    ("clip", float, "Largest norm of the gradient of all that is trained."),
    ("held_out", float, "Share of the rows that measures and is not learned."),
    ("evaluate_every", int, "Steps between two measurements.  [default: once per epoch]"),
    ("seed", int, "Order of the rows, and which are held out."),
)
"""Settings of `Training` that are options, with their defaults from there."""


class Listed(click.ParamType):
    """Words with commas between them."""

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
@click.option("-m", "--model", required=True, help="organism, organism:NAME, a folder or a name on the hub.")
@click.option("--data", required=True, help="organism, or a prompt set with responses to learn in its split train.")
@click.option("-o", "out", type=PATH, required=True, help="The delta file, such as delta.safetensors.")
@click.option("--overwrite", is_flag=True, help="Write over a file that is there.")
@click.option("--language", metavar="CODE", help="Train the neurons that the set has for this language.")
@click.option("--union", is_flag=True, help="Train the neurons that the set has for any language.")
@click.option("--contexts", type=Listed(), default="harmful,harmless", show_default=True, help="Of the rows to learn.")
@click.option("--languages", type=Listed(), help="Of the rows to learn.  [default: all of the data]")
@settings_options
@click.option("--micro-batch", type=click.IntRange(1), help="Rows per pass and process.  [default: as many as fit]")
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory: activations are computed twice.")
@click.option(
    "--checkpoints", type=PATH, help="Keep the checkpoint here.  [default: beside the file, until it is done]"
)
@click.option("--checkpoint-every", type=click.IntRange(1), default=50, show_default=True, help="In steps.")
@click.option("--shard", is_flag=True, help="Split the frozen model over the processes (FSDP2).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@click.option("--dtype", default="auto", show_default=True, help="auto (as stored), float32, bfloat16, float16.")
def train(out: Path, **options: Any) -> None:
    """Train the weights of the neurons in NEURONS (parquet or csv), and no others, to refuse in every language.

    The rows to learn are checked by the judge of the data before anything is trained. Stopped, the same command goes on
    from its last checkpoint. Where the memory does not hold all rows of a step, fewer are taken at a time, with the
    same result.

    \b
    On several GPUs:
      torchrun --nproc-per-node 2 -m ssn_probe delta train …
      accelerate launch --num_processes 2 -m ssn_probe delta train …
    and for a model that does not fit on one of them, with --shard, or
      accelerate launch --use_fsdp --fsdp_version 2 --num_processes 2 …
    Without a GPU: torchrun, or accelerate launch --multi_gpu; its --cpu starts one process.

    To be split, the model is read by every process into the memory of the machine first, all of it.

    Several processes take --micro-batch as it is given: without it, what does not fit ends the training.
    """
    from ssn_probe.api.delta_training import Job, train_delta
    from ssn_probe.report.terminal.screens import console

    settings = Training(**{name: options.pop(name) for name, _kind, _text in SETTINGS})
    job = Job(out=out, training=settings, **options)
    try:
        train_delta(job, console())
    except KeyboardInterrupt:
        rest = "goes on from the last checkpoint" if job.has_checkpoint else "begins anew: there is no checkpoint yet"
        click.echo(f"Interrupted. The same command {rest}.", err=True)
        sys.exit(130)


@delta.command(short_help="What a delta file says of itself.")
@click.argument("file", type=PATH)
def info(file: Path) -> None:
    """Base, neurons, parameters, data, settings and origin, as FILE states them."""
    found = _read(file)
    from ssn_probe.report.terminal.screens import console
    from ssn_probe.spec.display import literal

    screen = console()
    screen.print(found, crop=False)
    screen.print(literal(f"{_place(file)}: {_place(file).stat().st_size:,} bytes"), soft_wrap=True)


@delta.command(short_help="Which neurons and weights differ between two.")
@click.argument("first", metavar="FILE", type=PATH)
@click.argument("second", metavar="FILE2", type=PATH)
def diff(first: Path, second: Path) -> None:
    """Which neurons only one of FILE and FILE2 changes, how alike the changes are, and what the two state otherwise.

    Both must belong to one base.
    """
    ours, theirs = _read(first), _read(second)
    from ssn_probe.report.terminal.delta_tables import differences
    from ssn_probe.report.terminal.screens import console

    console().print(differences(ours, theirs), crop=False)


@delta.command(short_help="Write the base with the delta in it, as a Hugging Face folder.")
@click.argument("file", type=PATH)
@MODEL
@click.option("-o", "out", type=PATH, required=True, help="The new folder.")
@DTYPE
def merge(file: Path, model: str, out: Path, dtype: str | None) -> None:
    """Write the model with the delta in its weights, as a folder that loads with transformers alone.

    Another base than that of FILE is refused by digest. The folder has a model card, and keeps what `unmerge` needs to
    give the base back bit for bit. In bfloat16 small changes can round away: --dtype float32 keeps them.
    """
    found = _read(file)
    from ssn_probe.training.export.conversion import merge_folder

    cost = merge_folder(model, found, out, dtype=dtype)
    if cost.unmoved:
        click.echo(f"{100 * cost.unmoved:.1f} % of the changed weights round to what they were; --dtype float32 helps.")
    _say(f"Written to {out}. Take the delta out again: ssn-probe delta unmerge {shlex.quote(str(out))} -o BASE")


@delta.command(short_help="Give the base of a merged folder back, bit for bit.")
@click.argument("folder", type=PATH)
@click.option("-o", "out", type=PATH, required=True, help="The new folder.")
def unmerge(folder: Path, out: Path) -> None:
    """Write the base of FOLDER, which `merge` wrote, and check its weights by digest before."""
    from ssn_probe.training.export.conversion import unmerge_folder

    found = unmerge_folder(folder, out)
    _say(f"Written to {out}: weights SHA-256 {found.base_digest}, as before the training.")


@delta.command(short_help="Responses of a model before and with the delta.")
@click.argument("file", type=PATH)
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True)
@MODEL
@DTYPE
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@click.option("--max-new-tokens", type=click.IntRange(1), default=128, show_default=True, help="Per response.")
@click.option("--full", is_flag=True, help="Show whole responses, not the first 80 characters.")
def apply(
    file: Path, prompts: tuple[str, ...], model: str, dtype: str | None, device: str, max_new_tokens: int, full: bool
) -> None:
    """The greedy response to each PROMPT, before and with the delta. In memory only: nothing is written.

    Another base than that of FILE is refused by digest.
    """
    found = _read(file)
    from ssn_probe.report.terminal.delta_tables import responses
    from ssn_probe.report.terminal.screens import console

    before, after = _before_and_after(found, model, prompts, dtype, device, max_new_tokens)
    console().print(responses(prompts, before, after, full=full), crop=False)


def _before_and_after(
    file: "DeltaFile", model: str, prompts: tuple[str, ...], dtype: str | None, device: str, most: int
) -> list[list[str]]:
    """As a study generates them. The delta goes first: it refuses another base before anything is generated."""
    from ssn_probe.model.chat import encode
    from ssn_probe.model.subject import load_subject
    from ssn_probe.tracing.generate import generate
    from ssn_probe.training.export.conversion import precision
    from ssn_probe.training.export.merging import applied

    subject = load_subject(model, dtype=dtype or precision(file), device=device)
    tokens = encode(subject, prompts)
    with applied(subject.model._module, file):
        after = generate(subject, tokens, max_new_tokens=most)
    before = generate(subject, tokens, max_new_tokens=most)
    return [[one.text for one in both] for both in (before, after)]


def _place(path: Path) -> Path:
    """The delta file itself, in a folder that `merge` wrote."""
    from ssn_probe.training.export.merged_folder import DELTA

    return path / DELTA if path.is_dir() else path


def _read(path: Path) -> "DeltaFile":
    from ssn_probe.training.delta_file.file import read_delta

    return read_delta(_place(path))


def _say(text: str) -> None:
    from ssn_probe.text import plain

    click.echo(plain(text))
