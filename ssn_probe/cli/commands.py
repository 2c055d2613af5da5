"""The command line. Only the commands that need heavy packages import them, so that `--help` and `list` are fast."""

import atexit
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from ssn_probe import __version__
from ssn_probe.cli.delta_commands import delta
from ssn_probe.cli.judge_commands import certify, judge, judge_again
from ssn_probe.cli.model_commands import model, models
from ssn_probe.cli.options import (
    CHAT,
    DEVICE,
    DTYPE,
    HOST,
    OUT,
    REMOTE,
    SYSTEM,
    Number,
    place,
    study_options,
    with_place,
)
from ssn_probe.cli.organism_commands import organism
from ssn_probe.cli.report_commands import report
from ssn_probe.cli.scores_command import scores
from ssn_probe.cli.share_command import share
from ssn_probe.cli.streams import lasting_output
from ssn_probe.cli.user_errors import RecipeCommand, UserCommand, terminated, user_errors
from ssn_probe.cli.view_commands import compare, view
from ssn_probe.model.ranks import join, silence_helper
from ssn_probe.text import make_printable, plain

TRACKERS = ("trackio", "wandb")
ORDERS = ("time", "recipe", "model", "status", "seconds")
STATUSES = ("done", "superseded", "failed", "interrupted", "killed", "running", "unreadable")
"""The choices of `history`, repeated here because importing it would slow down `--help`."""
BARE = """\
ssn-probe: which neurons make a language model refuse harmful requests, are they the same
neurons across languages, and what happens when they are silenced?

Try first (offline, on the embedded model organism):
  ssn-probe run suppress_ss        silence the shared safety neurons, and random ones to compare
  ssn-probe list                   the shipped recipes and their parameters
  ssn-probe organism info          how well the embedded model refuses and answers

Then ask the same question of your model and your data:
  ssn-probe show suppress_ss -T model=Qwen/Qwen3-8B -T data=FOLDER     what the run would take
  ssn-probe run  suppress_ss -T model=Qwen/Qwen3-8B -T data=FOLDER

Every command has --help.
"""


class Commands(click.Group):
    """A group that prints to any terminal, and suggests the command that was meant when one is misspelt."""

    command_class = UserCommand

    def main(self, *args: Any, **kwargs: Any) -> Any:
        atexit.register(gc.freeze)  # the process ends: that its last objects go one by one would take half a second
        with lasting_output():
            make_printable((sys.stdout, sys.stderr))  # before the options are read: --help prints, too
            return super().main(*args, **kwargs)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        from ssn_probe.errors import nearest

        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}. {nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ssn-probe")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--extend",
    "extensions",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.py",
    help="Execute a file that adds scores or model families.",
)
@click.pass_context
def main(context: click.Context, debug: bool, extensions: tuple[Path, ...]) -> None:
    """Find out which neurons make a language model refuse, in every language that it speaks."""
    context.obj = debug
    with user_errors(debug):
        _check_place()
        for file in extensions:
            from ssn_probe.spec.discovery import execute_file

            execute_file(file)
        if context.invoked_subcommand != delta.name:  # whose processes train beside each other, each with a whole model
            silence_helper()
            join()
    if context.invoked_subcommand is None:
        click.echo(BARE, nl=False)


def _check_place() -> None:
    """A folder that somebody removed while a shell was in it would be an error of each library in its own words."""
    from ssn_probe.errors import ResultError

    try:
        os.getcwd()
    except OSError as error:
        raise ResultError("The current folder no longer exists.", "Go to another one: cd DIR.") from error


main.add_command(delta)
main.add_command(organism)
main.add_command(judge)
main.add_command(certify)
main.add_command(compare)
main.add_command(view)
main.add_command(report)
main.add_command(scores)
main.add_command(share)
main.add_command(model)
main.add_command(models)


@main.command("list", short_help="List recipes with their questions and parameters.")
@click.argument("path", required=False, type=click.Path(path_type=Path))
def list_(path: Path | None) -> None:
    """List the shipped recipes, or those in PATH, with their questions and parameters. Executes nothing.

    A file of a folder that cannot be read is named, and the others are listed.
    """
    from ssn_probe.report.terminal.command_output import echo_listing
    from ssn_probe.spec.discovery import list_recipes

    echo_listing(list_recipes(path, lambda error: click.echo(f"Warning: {plain(error.message)}", err=True)))


@main.command(cls=RecipeCommand, short_help="Show what a recipe would do and take, without running it.")
@click.argument("recipe")
@study_options
@click.option(
    "--time/--no-time", "calibrated", default=True, help="Measure the speed on one batch of each kind of work."
)
def show(recipe: str, assignments: tuple[str, ...], judges: tuple[str, ...], **options: Any) -> None:
    """Show what RECIPE would do: steps, how many of them are cached, prompts, passes, time, memory, smallest effect.

    With --no-time no weights are loaded and nothing runs. With --remote, the host says whether it runs the model, and
    gets no prompt, but for the trials of --yes. A recipe file is executed to read it.
    """
    from ssn_probe.report.terminal.command_output import console
    from ssn_probe.spec.decorator import split_assignments
    from ssn_probe.spec.discovery import find_recipe

    options = with_place(options)
    value = _judged_by(find_recipe(recipe, split_assignments(assignments)), judges)
    from ssn_probe.report.terminal.plan_table import render_plan
    from ssn_probe.study.forecast import forecast

    console().print(render_plan(forecast(value, **options)))


@main.command(cls=RecipeCommand, short_help="Run a recipe: a name, a file, or a run's recipe.json.")
@click.argument("recipe")
@study_options
@click.option("--gradient-checkpointing", is_flag=True, help="Train with less memory: activations are computed twice.")
@click.option("--fresh", is_flag=True, help="Compute everything again, without the cache.")
@click.option(
    "--processes",
    type=Number(),
    default="auto",
    show_default=True,
    help="Of this machine, which share the work; auto: one per core for a small model with much to do, or per GPU.",
)
@click.option("--track", "tracker", type=click.Choice(TRACKERS), help="Send the run's numbers, and no text, to it.")
def run(
    recipe: str, assignments: tuple[str, ...], judges: tuple[str, ...], tracker: str | None, **options: Any
) -> None:
    """Run RECIPE: a shipped name, a file (FILE.py or FILE.py@name) or a run's recipe.json.

    The same command continues a run that was stopped. A recipe file is executed to read it; a recipe.json is not.
    """
    from ssn_probe.report.terminal.command_output import console, show_answer
    from ssn_probe.spec.decorator import split_assignments
    from ssn_probe.spec.discovery import load_recipe

    options = with_place(options)
    arguments = split_assignments(assignments)
    loaded = load_recipe(recipe, arguments)
    from ssn_probe.api.judging import check_judges
    from ssn_probe.api.runner import Options, run_recipe
    from ssn_probe.api.tracking import find_tracker, track

    tracks = None if tracker is None else find_tracker(tracker)

    screen = console()
    signal.signal(signal.SIGTERM, terminated)
    arguments |= {"judge": judges[0]} if judges else {}
    settings = Options(source=loaded.source, arguments=arguments, **options)
    recipe_of_run = _judged_by(loaded.recipe, judges)
    check_judges(recipe_of_run, judges[1:])
    made = run_recipe(recipe_of_run, settings, screen)
    for spec in judges[1:]:
        judge_again(screen, made, spec, options["device"])
    show_answer(screen, made)
    if tracks is not None and (failed := track(tracks, made)):
        click.echo(f"Warning: {plain(failed)}", err=True)


def _judged_by(recipe: Any, judges: tuple[str, ...]) -> Any:
    """The recipe with the first of the judges that were named."""
    from dataclasses import replace

    return replace(recipe, judge=judges[0]) if judges else recipe


@main.command("results", short_help="List past runs, or show one.")
@click.argument("reference", required=False, metavar="[RUN]")
@OUT
@click.option("--sort", "order", type=click.Choice(ORDERS), default="time", show_default=True)
@click.option("--status", type=click.Choice(STATUSES), help="Only runs with this status.")
@click.option("--recipe", default="", help="Only runs whose recipe name contains this text.")
@click.option("--model", default="", help="Only runs whose model name contains this text.")
@click.option(
    "--export",
    "file",
    type=click.Path(path_type=Path),
    help="Write one measure of RUN as a table: FILE.csv, FILE.tex or FILE.md.",
)
@click.option("--measure", help="The measure to export, per language, with intervals.  [default: asr]")
@click.option("--responses", is_flag=True, help="Show what the model answered in RUN, also in one that failed.")
@click.option("--language", help="With --responses: only those in this language.")
@click.option("--arm", help="With --responses: only those of this arm.")
@click.option("--verdict", help="With --responses: only those with this verdict.")
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True, help="So many --responses.")
@click.option("--show-text", is_flag=True, help="Whole --responses, not the first 80 characters.")
def results_(
    reference: str | None, out: Path, file: Path | None, measure: str | None, order: str, responses: bool, **more: Any
) -> None:
    """List past runs, newest first. With RUN (a name, part of a name, or `latest`), show or export that run."""
    from ssn_probe.report.terminal.command_output import console, show_answer, show_runs
    from ssn_probe.runs import folder as results

    if file is not None and reference is None:
        raise click.UsageError("--export writes a table of one run: name the run, for example `latest`.")
    if measure is not None and file is None:
        raise click.UsageError("--measure chooses what to export: give --export FILE, too.")
    filters = {name: more.pop(name) for name in ("status", "recipe", "model")}
    if responses:
        from ssn_probe.report.terminal.responses_table import show_responses

        if reference is None:
            raise click.UsageError("--responses are those of one run: name the run, for example `latest`.")
        wanted = {"eval_language": more["language"], "arm": more["arm"], "verdict": more["verdict"]}
        found = results.find_run(reference, out)
        show_responses(console(), found, wanted=wanted, count=more["count"], full=more["show_text"])
        return
    if more["language"] or more["arm"] or more["verdict"] or more["show_text"]:
        raise click.UsageError("--language, --arm, --verdict and --show-text choose responses: give --responses, too.")
    if file is not None and reference is not None:
        from ssn_probe.report.export import export
        from ssn_probe.runs.integrity import warning

        found = results.find_run(reference, out)
        export(found, file, measure or "asr")
        if (changed := warning(found)) is not None:
            click.echo(f"Warning: {plain(changed)}", err=True)
        click.echo(f"Written to {plain(str(file))}")
    elif reference is None:
        from ssn_probe.runs.history import history

        show_runs(console(), history(out, order=order, **filters), filtered=any(filters.values()))
    else:
        show_answer(console(), results.find_run(reference, out))


@main.command(short_help="Check a run: its digests, and its tables computed again.")
@click.argument("reference", metavar="RUN")
@OUT
@click.option("--strict", is_flag=True, help="Fail on what could not be verified, too.")
def verify(reference: str, out: Path, strict: bool) -> None:
    """Check that the files of RUN (a name, part of a name, a path, or `latest`) are intact and agree with each other.

    Compares files with their digests, verdicts and summary with the samples, and every table with the batches in the
    cache. Measures nothing and loads no weights. Exits with 1 if something differs. Finds accidents, not authors:
    whoever writes the files can write new digests.
    """
    from ssn_probe.api.verify import verify as findings_of
    from ssn_probe.report.terminal.command_output import console, show_findings
    from ssn_probe.runs import folder as results

    findings = findings_of(results.find_run(reference, out))
    show_findings(console(), findings)
    if any(finding.holds is False or (strict and finding.holds is None) for finding in findings):
        sys.exit(1)


@main.command(short_help="List what killed runs left and what the cache holds for nobody, and remove it.")
@OUT
@click.option("--yes/--dry-run", "-y/-n", "removes", default=False, help="Remove what is listed.  [default: only list]")
def clean(out: Path, removes: bool) -> None:
    """List what can go from the results folder, with sizes; with --yes, remove it.

    That is: locks and half-written files of killed runs, folders of runs that ended before their first file, and
    entries of the cache that no run refers to. Nothing is touched that a running process holds locked (on a network
    file system without locks, clean when nothing runs there), nor what a run that has not ended may use again. Links
    are not followed. Exits with 1 if something could not be removed.
    """
    from ssn_probe.report.terminal.command_output import console
    from ssn_probe.report.terminal.leftovers_table import show_leftovers, show_removal
    from ssn_probe.runs.leftovers import remove, survey
    from ssn_probe.study.workbench import METHODS

    screen, result = console(), survey(out, METHODS)
    show_leftovers(screen, result)
    if removes and result.found and not show_removal(screen, remove(result)):
        sys.exit(1)
    if result.found and not removes:
        click.echo("Nothing was removed. To remove it: the same command with --yes")


@main.command(short_help="Check this machine, and a model on it.")
@click.option("--model", help="Check this model, too: organism, smollm2, a folder or a name on the hub.")
@DEVICE
@DTYPE
@SYSTEM
@CHAT
@OUT
@REMOTE
@HOST
def doctor(
    model: str | None,
    device: str,
    dtype: str,
    system: str | None,
    chat: str | None,
    out: Path,
    remote: bool,
    host: str | None,
) -> None:
    """Check versions, processor, memory, device, the hub's cache and the results folder.

    With --model, also check that neurons are where they should be, that silencing them equals zeroing their weights,
    that batches equal single prompts, that the chat template is sound, and that the effect of one neuron is larger than
    rounding errors. Exits with 1 if a check failed.

    With --remote, check an NDIF host instead: whether it answers, the key, its versions, and what it runs; with --model
    also that the model there is the one that is meant, and with the smallest job what it may compute.
    """
    from ssn_probe.doctor import show_doctor
    from ssn_probe.model.asking import Asking
    from ssn_probe.remote.settings import check_settings
    from ssn_probe.report.terminal.command_output import console

    if model is None and dtype != "auto":
        raise click.UsageError("--dtype applies to a model: give --model, too.")
    where = place(remote, host)
    check_settings(where, device=device)
    asking = Asking(system=system, chat=chat)
    if not show_doctor(console(), out=out, model=model, device=device, dtype=dtype, remote=where, asking=asking):
        sys.exit(1)
