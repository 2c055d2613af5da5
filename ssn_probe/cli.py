"""The command line. Nothing heavy is imported before a command needs it: `--help` and `list` answer at once."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ssn_probe import __version__
from ssn_probe.errors import SSNProbeError

BARE = """\
ssn-probe: which neurons make a language model refuse harmful requests, are they the same
neurons across languages, and what happens when they are silenced?

Try first (offline, on the embedded model organism):
  ssn-probe run suppress_ss        silence the shared safety neurons, beside random controls
  ssn-probe list                   the shipped questions and their parameters
  ssn-probe organism info          the embedded model, measured

Then ask the same of your model and data:
  ssn-probe show suppress_ss -T model=Qwen/Qwen3-8B -T data=FOLDER     what it would cost
  ssn-probe run  suppress_ss -T model=Qwen/Qwen3-8B -T data=FOLDER

Every command has --help.
"""


class Commands(click.Group):
    """A group that says what was meant when a command is misspelt."""

    def resolve_command(self, ctx: click.Context, args: list[str]):
        from ssn_probe.errors import nearest

        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}. {nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ssn-probe")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Which neurons make a language model refuse, in every language it speaks?"""
    context.obj = debug
    if context.invoked_subcommand is None:
        click.echo(BARE, nl=False)


def parameter_options(command):
    """The options that `show` and `run` share."""
    command = click.option("--limit", type=click.IntRange(1), help="At most so many prompts per split and context.")(
        command
    )
    return click.option("-T", "assignments", multiple=True, metavar="NAME=VALUE", help="A parameter of the recipe.")(
        command
    )


@main.command("list", short_help="Recipes, their question and their parameters.")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.pass_obj
def list_(debug: bool, path: Path | None) -> None:
    """Recipes, their question and their parameters. Reads the files, executes nothing."""
    from ssn_probe.discovery import list_recipes
    from ssn_probe.screen import echo_listing

    with user_errors(debug):
        echo_listing(list_recipes(path))


@main.command(short_help="What a recipe would do and could show; runs nothing.")
@click.argument("recipe")
@parameter_options
@click.pass_obj
def show(debug: bool, recipe: str, assignments: tuple[str, ...], limit: int | None) -> None:
    """What RECIPE would do: stages, prompts, forward passes, memory, the smallest effect it can show. Runs nothing.

    A recipe file is executed to be read.
    """
    from ssn_probe.declare import split_assignments
    from ssn_probe.discovery import find_recipe
    from ssn_probe.screen import console, show_plan

    with user_errors(debug):
        show_plan(console(), find_recipe(recipe, split_assignments(assignments)), limit)


@main.command(short_help="Run a recipe: a name, a file, or a run's recipe.json.")
@click.argument("recipe")
@parameter_options
@click.option("--batch-size", type=click.IntRange(1), default=200, show_default=True, help="Prompts per batch.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@click.option("--dtype", default="auto", show_default=True, help="auto (as stored), float32, bfloat16, float16.")
@click.option("-o", "out", type=click.Path(path_type=Path), default="results", show_default=True, help="Output folder.")
@click.pass_obj
def run(
    debug: bool,
    recipe: str,
    assignments: tuple[str, ...],
    limit: int | None,
    batch_size: int,
    device: str,
    dtype: str,
    out: Path,
) -> None:
    """Run RECIPE: a shipped name, a file (FILE.py or FILE.py@name) or a run's recipe.json.

    A recipe file is executed to be read; a recipe.json executes nothing.
    """
    from ssn_probe.declare import split_assignments
    from ssn_probe.discovery import find_recipe, source_of
    from ssn_probe.screen import console, show_answer

    with user_errors(debug):
        arguments = split_assignments(assignments)
        value = find_recipe(recipe, arguments)
        from ssn_probe.runner import Options, run_recipe

        options = Options(
            out=out,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            limit=limit,
            source=source_of(recipe),
            arguments=arguments,
        )
        screen = console()
        signal.signal(signal.SIGTERM, _terminated)
        show_answer(screen, run_recipe(value, options, screen))


def _terminated(*_signal: object) -> None:
    """A scheduler's SIGTERM ends a run as Ctrl-C does: its folder says `interrupted` and keeps what was measured."""
    raise KeyboardInterrupt


@main.command("results", short_help="Past runs, newest first; one run's card.")
@click.argument("reference", required=False, metavar="[RUN]")
@click.option("-o", "out", type=click.Path(path_type=Path), default="results", show_default=True, help="Where to look.")
@click.pass_obj
def results_(debug: bool, reference: str | None, out: Path) -> None:
    """Past runs, newest first; with RUN (a name, a part of one, or `latest`) that run's card."""
    from ssn_probe import results
    from ssn_probe.screen import console, show_answer, show_runs

    with user_errors(debug):
        if reference is None:
            show_runs(console(), results.runs(out))
        else:
            show_answer(console(), results.find_run(reference, out))


@main.group(invoke_without_command=True, short_help="The embedded model: measure it, make it again.")
@click.pass_context
def organism(context: click.Context) -> None:
    """The embedded model: `info` measures it, `train` makes it again from a seed."""
    if context.invoked_subcommand is None:
        context.invoke(info)


@organism.command()
@click.option(
    "--model", default="organism", show_default=True, help="organism:NAME, or a folder that `organism train` wrote."
)
@click.pass_obj
def info(debug: bool, model: str) -> None:
    """Measure utility, over-refusal, invalid responses and ASR per language; show the truth about planted neurons."""
    from ssn_probe.screen import console, show_organism

    with user_errors(debug):
        show_organism(console(), model)


@organism.command()
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--variant", default="natural", show_default=True)
@click.option("-o", "out", type=click.Path(path_type=Path), help="Where to write it.  [default: organism-VARIANT-SEED]")
@click.pass_obj
def train(debug: bool, seed: int, variant: str, out: Path | None) -> None:
    """Make an organism from a seed: two minutes, and up to twenty more for the truth about planted neurons.

    \b
    Variants: natural, planted-ffn, planted-wide, planted-attention,
    planted-qwen3.
    """
    from ssn_probe.screen import console, train_organism

    with user_errors(debug):
        train_organism(console(), seed, variant, out or Path(f"organism-{variant}-{seed}"))


@contextlib.contextmanager
def user_errors(debug: bool) -> Iterator[None]:
    """A user's mistake is one message and a hint, exit 1; Ctrl-C says what is kept, exit 130."""
    from ssn_probe.text import plain

    try:
        yield
    except SSNProbeError as error:
        if debug:
            raise
        click.echo(f"Error: {plain(error.message)}", err=True)
        if error.hint:
            click.echo(f"  {plain(error.hint)}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("Interrupted. What a run had measured by then is in its folder: ssn-probe results", err=True)
        sys.exit(130)
