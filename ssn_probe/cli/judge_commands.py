"""`judge`: the responses of a run under another judge."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssn_probe.cli.user_errors import UserCommand

if TYPE_CHECKING:
    from rich.console import Console

    from ssn_probe.runs.folder import RunFolder


OUT = click.option(
    "-o", "out", type=click.Path(path_type=Path), default="results", show_default=True, help="Results folder."
)


@click.command(cls=UserCommand, short_help="Judge the responses of a run again, without the model.")
@click.argument("reference", metavar="RUN")
@click.option(
    "--with", "judges", multiple=True, required=True, metavar="NAME[:ARGUMENT]", help="The judge, as of run --judge."
)
@OUT
@click.option("--device", default="auto", show_default=True, help="Where a guard model runs: auto, cpu, cuda, …")
def judge(reference: str, judges: tuple[str, ...], out: Path, device: str) -> None:
    """Judge the stored responses of RUN (a name, part of a name, a path, or `latest`) with another judge.

    Shows ASR under both judges and how far they agree. The verdicts are kept in the run's folder, and those that cost
    something also in the cache: the same command goes on where it was stopped, and asks nothing twice.
    """
    from ssn_probe.report.terminal.command_output import console
    from ssn_probe.runs import folder as results

    for spec in judges:
        judge_again(console(), results.find_run(reference, out), spec, device)


@click.command(cls=UserCommand, short_help="Compare a judge with people on labelled responses.")
@click.argument("spec", metavar="JUDGE")
@click.option("--data", "data", default="polyguard", show_default=True, help="Labelled responses.")
@click.option("--languages", default="", help="Only these, as in en,it.")
@OUT
@click.option("--device", default="auto", show_default=True, help="Where a guard model runs: auto, cpu, cuda, …")
def certify(spec: str, data: str, languages: str, out: Path, device: str) -> None:
    """Precision, recall, specificity and kappa of JUDGE per language, on labelled responses.

    They are a table with PolyGuardPrompts' columns: language, prompt, response, response_refusal_label (refusal or
    compliance); or `polyguard` itself, from the hub. The certificate is kept in the results folder, and `results`
    shows it beside the ASR of every run with this judge.
    """
    from ssn_probe.api.certify import certify as certificate
    from ssn_probe.report.terminal.certificate_table import certificate_table
    from ssn_probe.report.terminal.command_output import console
    from ssn_probe.runs.folder import prepare

    terminal = console()
    wanted = [name.strip() for name in languages.split(",") if name.strip()]
    with _judging(terminal) as report:
        made = certificate(spec, data, prepare(out), languages=wanted, device=device, **report)
    terminal.print(certificate_table(made), crop=False)


@contextmanager
def _judging(terminal: "Console") -> "Iterator[dict[str, Any]]":
    """Shows how many responses were judged, and before, what will be sent to whom."""
    from rich.progress import Progress, TextColumn

    from ssn_probe.spec.display import literal

    with Progress(TextColumn("{task.completed:,.0f} responses judged"), console=terminal, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield {
            "advance": lambda count: progress.advance(task, count),
            "say": lambda text: terminal.print(literal(f"Note: {text}."), soft_wrap=True),
        }


def judge_again(terminal: "Console", run: "RunFolder", spec: str, device: str) -> None:
    """Judges a run with another judge and shows what it says."""
    from ssn_probe.api.judging import first_asr, judge_run
    from ssn_probe.report.certificate import judge_of_asr, with_certificate
    from ssn_probe.report.terminal.judged_card import judged_card
    from ssn_probe.spec.display import literal

    with _judging(terminal) as report:
        found = judge_run(run, spec, device=device, **report)
    own = judge_of_asr(run.manifest())
    own = own and with_certificate(own, run.path.parent / "cache")
    terminal.print(judged_card(first_asr(run), found.entry, found.found.verdicts, own), crop=False)
    terminal.print(literal(f"{run.path}/{found.entry['folder']}", "dim"), soft_wrap=True)
