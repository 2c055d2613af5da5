"""What the commands print. Text from prompts, models and files is literal: no markup, no control characters."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssn_probe.report.terminal.result_card import card, interval
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.history import Past
from ssn_probe.spec.discovery import Listing
from ssn_probe.text import make_printable, plain

if TYPE_CHECKING:
    from ssn_probe.runs.integrity import Finding


def console(*, quiet: bool = False) -> Console:
    """The terminal, whatever its encoding; markup and emoji codes stay literal."""
    make_printable((sys.stdout,))
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=False, quiet=quiet)


def echo_listing(listings: Sequence[Listing]) -> None:
    """Recipes as plain lines, so that listing needs no table layout."""
    if not listings:
        click.echo("No recipes there: put `@recipe` on a function that returns Recipe(…).")
    for listing in listings:
        click.echo(f"{plain(listing.name)}\n    {plain(listing.question)}")
        for name, annotation, default in listing.parameters:
            click.echo(f"      -T {plain(name)}={plain(default)}    ({plain(annotation)})")


def show_answer(terminal: Console, run: RunFolder) -> None:
    """A run's card: its table per language, its notes, and its answer in words, the words last."""
    terminal.print(card(run), crop=False)


def show_runs(terminal: Console, runs: Sequence[Past], *, filtered: bool = False) -> None:
    """Past runs with what became of them."""
    if not runs:
        terminal.print("No such runs." if filtered else "No runs yet. Try: ssn-probe run suppress_ss")
        return
    table = Table(box=None, pad_edge=False)
    longest = max(len(past.run.name) for past in runs)
    table.add_column("run", no_wrap=True, min_width=longest)
    for header in ("status", "model", "seconds"):
        table.add_column(header)
    for past in runs:
        cells = (past.run.name, past.status, past.model, f"{past.seconds:.0f}")
        table.add_row(*(Text(plain(cell)) for cell in cells))
    # A narrow terminal breaks the lines itself; rich would leave columns out.
    terminal.width = max(terminal.width, longest + 40)
    terminal.print(table)
    for past in runs:
        if past.why:
            terminal.print(Text(plain(f"{past.run.name}: {past.why}"), style="red"), soft_wrap=True)
        if past.is_changed:
            changed = f"Warning: the manifest of {past.run.name} changed after the run: see `ssn-probe verify`."
            terminal.print(Text(plain(changed), style="red"), soft_wrap=True)


def show_findings(terminal: Console, findings: "Sequence[Finding]") -> None:
    """What was verified of a run, and what could not be."""
    for finding in findings:
        mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("–", "yellow")}[finding.holds]
        why = f": {finding.why}" if finding.why else ""
        terminal.print(Text.assemble((mark, style), f" {plain(finding.what)}{plain(why)}"), soft_wrap=True)
    wrong = sum(finding.holds is False for finding in findings)
    unknown = sum(finding.holds is None for finding in findings)
    total = f"{len(findings) - wrong - unknown} hold, {wrong} do not, {unknown} could not be verified."
    terminal.print(Text(total, style="bold"))


def show_organism(terminal: Console, model: str) -> None:
    """Utility, over-refusal, invalid responses and ASR of an organism per language, measured now; planted neurons."""
    from ssn_probe.study.organism_figures import measure_organism, truth_lines

    known, rows = truth_lines(model), measure_organism(model)
    table = Table("language", box=None, pad_edge=False)
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    for measure in measures:
        table.add_column(f"{measure} %", justify="right")
    for language in dict.fromkeys(row["language"] for row in rows):
        cells = [row for row in rows if row["language"] == language]
        table.add_row(Text(language), *(Text(interval(row, digits=1)) for row in cells))
    terminal.print(table)
    for line in known:
        terminal.print(Text(plain(line)), soft_wrap=True)
    terminal.print("Conclusions about the organism are about the tool, not about language models.")


def train_organism(terminal: Console, seed: int, variant: str, out: Path) -> None:
    """Trains an organism with one progress bar per stage."""
    from ssn_probe.organism.make import train

    with training_stages(terminal) as advance:
        train(seed, out, variant=variant, progress=advance)
    _say_written(terminal, out)


def teach_topic(terminal: Console, base: str, seed: int, languages: Any, out: Path) -> None:
    """Teaches a pretrained model to refuse a topic, with one progress bar per stage."""
    from ssn_probe.training.topic.teach_topic import teach
    from ssn_probe.training.topic.topic_rows import TopicLessons

    with training_stages(terminal) as advance:
        card = teach(base, seed, out, lessons=TopicLessons(languages=languages), progress=advance)
    if not card["accepted"]:
        terminal.print(f"It is not accepted: {out / 'README.md'} has its figures. Try another seed.", soft_wrap=True)
    _say_written(terminal, out)


def _say_written(terminal: Console, out: Path) -> None:
    terminal.print(Text(f"Written to {out}. Measure it: ssn-probe organism info --model {out}"), soft_wrap=True)


@contextmanager
def training_stages(terminal: Console) -> Iterator[Callable[[str, int, int, float | None], None]]:
    """A progress bar for every stage that is reported."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=terminal) as progress:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int, loss: float | None) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, loss="")
            progress.update(tasks[stage], completed=done, loss="" if loss is None else f"loss {loss:.3f}")

        yield advance
