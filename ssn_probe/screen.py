"""What the terminal shows. Text from prompts, models and files is literal: no markup, no control characters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ssn_probe.discovery import Listing
from ssn_probe.errors import ResultError
from ssn_probe.recipe import Recipe
from ssn_probe.results import RunFolder
from ssn_probe.text import percent, plain


def console() -> Console:
    """The terminal; markup and emoji codes stay literal."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=False)


def echo_listing(listings: Sequence[Listing]) -> None:
    """Recipes as plain lines, so that listing needs no table layout."""
    for one in listings:
        click.echo(f"{plain(one.name)}\n    {plain(one.question)}")
        for name, annotation, default in one.parameters:
            click.echo(f"      -T {plain(name)}={plain(default)}    ({plain(annotation)})")


def show_plan(screen: Console, recipe: Recipe, limit: int | None) -> None:
    """A recipe's stages with prompts, passes and tokens, its memory, and the smallest effect that it can show."""
    from ssn_probe.forecast import forecast

    found = forecast(recipe, limit)
    screen.print(Text(plain(recipe.question or recipe.name), style="bold"))
    table = Table("stage", box=None, pad_edge=False)
    for header in ("prompts", "passes", "new tokens"):
        table.add_column(header, justify="right")
    for stage in found.plan.stages:
        passes = f"{stage.prompts * (stage.passes + max(0, stage.generated - 1)):,.0f}"
        new = f"≤ {stage.prompts * stage.generated:,}" if stage.generated else "–"
        table.add_row(Text(plain(stage.label)), f"{stage.prompts:,}", passes, new)
    screen.print(table)
    for line in found.lines:
        screen.print(Text(plain(line)))


def show_answer(screen: Console, run: RunFolder) -> None:
    """A run's card: its table per language, its notes, and its answer in words, the words last."""
    manifest = run.manifest()
    status = plain(str(manifest.get("status", "unknown")))
    if status != "done":
        screen.print(Text(f"{run.name}: {status}. {plain(str(manifest.get('error') or ''))}"))
        return
    if (run.path / "summary.parquet").is_file():
        for one in tables(run):
            screen.print(one)
    for note in manifest.get("warnings", []):
        screen.print(Text(f"Note: {plain(str(note))}", style="yellow"))
    text = "\n".join(plain(str(line)) for line in manifest.get("answer", []))
    screen.print(Panel(Text(text), title="Answer", title_align="left"))
    screen.print(Text(f"{run.path}/report.md", style="dim"), soft_wrap=True)


def tables(run: RunFolder) -> list[Table]:
    """The first measure of a run: per language, and language × language for arms that ran once per language."""
    import polars as pl

    from ssn_probe.findings import OF, transfers

    summary = run.table("summary").filter(pl.col("role").is_in(["baseline", "tested"]))
    if summary.is_empty():
        return []
    measure = summary["measure"][0]
    # The untouched model stands beside the matrices: a change is read against where it began.
    rows = summary.filter(~pl.col("arm").str.contains(OF, literal=True), measure=measure)
    matrices = [_matrix(name, cells, measure) for name, cells in transfers(summary, measure).items()]
    return [language_table(rows, measure), *matrices]


def language_table(rows: Any, measure: str) -> Table:
    """A measure per language: every arm with its interval, and what random sets of the same size give."""
    arms = list(rows["arm"].unique(maintain_order=True))
    controlled = set() if len(arms) > 4 else set(rows.filter(rows["controls"].is_not_null())["arm"])
    table = Table(_title(measure), box=None, pad_edge=False)
    for arm in arms:
        table.add_column(Text(plain(arm)), justify="right")
        if arm in controlled:
            table.add_column(Text(f"{plain(arm)} random"), justify="right", style="dim")
    for language in rows["language"].unique(maintain_order=True):
        table.add_row(*_language_row(rows.filter(rows["language"] == language), language, arms, controlled))
    return table


def _title(measure: str) -> str:
    return measure.replace("_", " ").replace("asr", "ASR")


def _matrix(name: str, cells: Mapping[tuple[str, str], dict[str, Any]], measure: str) -> Table:
    """Rows: whose neurons; columns: the language evaluated; a cell: the change in points, its interval beneath."""
    sources, targets = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
    title = Text(f"Change of {_title(measure)} in points. Row: whose {plain(name)}; column: the language evaluated.")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(Text(f"{plain(name)} of"))
    for target in targets:
        table.add_column(Text(plain(target)), justify="right")
    for source in sources:
        own = [_change(cells.get((source, target)), source == target) for target in targets]
        table.add_row(Text(plain(source)), *own)
    return table


def _change(row: Mapping[str, Any] | None, own: bool) -> Text:
    if row is None or row["delta"] is None:
        return Text("–")
    value, low, high = (round(100 * row[name]) for name in ("delta", "delta_low", "delta_high"))
    # Narrow, so that seven languages fit 80 columns.
    return Text.assemble((f"{value:+d}", "bold" if own else ""), (f"\n[{low},{high}]", "dim"))


def _language_row(cells: Any, language: str, arms: Sequence[str], controlled: set[str]) -> list[Text]:
    by_arm = {row["arm"]: row for row in cells.rows(named=True)}
    line = [plain(language)]
    for arm in arms:
        row = by_arm.get(arm)
        line.append("–" if row is None else _interval(*_cell(row), len(arms) > 4))
        if arm in controlled:
            mean = None if row is None else row["control_mean"]
            line.append("–" if mean is None else percent(mean))
    return [Text(cell) for cell in line]


def _cell(row: dict[str, Any]) -> tuple[float, float, float]:
    return row["value"], row["low"], row["high"]


def _interval(value: float, low: float, high: float, short: bool, digits: int = 0) -> str:
    if short:
        return f"{100 * value:.0f}"
    return f"{percent(value)} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def show_runs(screen: Console, runs: Sequence[RunFolder]) -> None:
    """Past runs, newest first, with their status."""
    if not runs:
        screen.print("No runs yet. Try: ssn-probe run suppress_ss")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True, min_width=max(len(run.name) for run in runs))
    for header in ("status", "model", "seconds"):
        table.add_column(header)
    for run in runs:
        table.add_row(*(Text(plain(cell)) for cell in _run_row(run)))
    screen.print(table)


def _run_row(run: RunFolder) -> tuple[str, str, str, str]:
    """A run's line; one that cannot be read does not hide the others."""
    try:
        manifest = run.manifest()
    except ResultError as error:
        return run.name, "unreadable", error.message.rpartition(": ")[2], ""
    seconds = sum(manifest.get("seconds", {}).values())
    return run.name, manifest.get("status", "unknown"), str(manifest.get("model", {}).get("name")), f"{seconds:.0f}"


def show_organism(screen: Console, model: str) -> None:
    """Utility, over-refusal, invalid responses and ASR of an organism per language, measured now; planted neurons."""
    from ssn_probe.organism.info import measure_organism, truth_lines

    known, rows = truth_lines(model), measure_organism(model)
    table = Table("language", box=None, pad_edge=False)
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    for measure in measures:
        table.add_column(f"{measure} %", justify="right")
    for language in dict.fromkeys(row["language"] for row in rows):
        cells = [row for row in rows if row["language"] == language]
        shown = [_interval(*_cell(row), short=False, digits=1).replace(" %", "") for row in cells]
        table.add_row(*(Text(cell) for cell in (language, *shown)))
    screen.print(table)
    for line in known:
        screen.print(Text(plain(line)), soft_wrap=True)
    screen.print("Conclusions about the organism are about the tool, not about language models.")


def train_organism(screen: Console, seed: int, variant: str, out: Path) -> None:
    """Trains an organism with one progress bar per stage."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ssn_probe.organism.train import train

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=screen) as progress:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int, loss: float | None) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, loss="")
            progress.update(tasks[stage], completed=done, loss="" if loss is None else f"loss {loss:.3f}")

        train(seed, out, variant=variant, progress=advance)
    screen.print(Text(f"Written to {out}. Measure it: ssn-probe organism info --model {out}"), soft_wrap=True)
