"""The yardstick as a command: `python -m benchmarks.identification --help`, and `… make` for the organisms."""

from pathlib import Path

import click
import polars as pl

from benchmarks.identification import organisms
from benchmarks.identification.harness import function_at, methods, rows, untouched
from benchmarks.identification.page import filled
from benchmarks.identification.picture import picture
from benchmarks.identification.rows import open_organism
from benchmarks.identification.table import markdown, summary
from ssn_probe.report.charts.chart import save_chart

OUT = Path(".cache/identification")
FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path), default=organisms.FOLDER, show_default=True, help="Of the organisms."
)


@click.group(invoke_without_command=True)
@click.pass_context
@FOLDER
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="Rows, table and chart.")
@click.option("--set", "which", type=click.Choice(["test", "development"]), default="test", show_default=True)
@click.option("--only", multiple=True, help="Methods whose name contains this; repeatable.")
@click.option("--method", "own", multiple=True, help="MODULE:FUNCTION: a method of yours; repeatable.")
@click.option("--without", multiple=True, help="Leave out methods whose name contains this.")
@click.option("--prompts", type=click.IntRange(2), default=30, show_default=True, help="Per language and context.")
@click.option("--judged", type=click.IntRange(1), default=50, show_default=True, help="Prompts to answer, likewise.")
@click.option("--fold", type=click.IntRange(0), default=0, help="Other prompts: which disjoint group of --prompts.")
@click.option("--quick", is_flag=True, help="Shipped organisms, few prompts, no pass per neuron: does it run?")
@click.option("--page", type=click.Path(path_type=Path, exists=True), help="Make its blocks and its chart anew.")
@click.option("--kept", is_flag=True, help="Of rows that are there alone: measures nothing but what an organism is.")
@click.option("--slow", is_flag=True, help="Also the effect finalablation, by brute force.")
def main(
    context: click.Context,
    folder: Path,
    out: Path,
    which: str,
    only: tuple[str, ...],
    own: tuple[str, ...],
    without: tuple[str, ...],
    prompts: int,
    judged: int,
    fold: int,
    quick: bool,
    slow: bool,
    page: Path | None,
    kept: bool,
) -> None:
    """Every method on every organism that was made: table.md, rows.csv, summary.parquet and identification.svg."""
    if context.invoked_subcommand is not None:
        return
    known = organisms.development() if quick or which == "development" else organisms.made(folder)
    if not known:
        raise click.UsageError(f"{folder} has no organism. First: python -m benchmarks.identification make")
    if quick:
        prompts, judged, without = min(prompts, 5), min(judged, 10), (*without, "ablation")
    wanted = {
        name: one
        for name, one in methods(slow=slow, others={text: function_at(text) for text in own}).items()
        if (not only or any(part in name for part in only) or name in own) and not any(part in name for part in without)
    }
    settings, found = {"prompts": prompts, "judged": judged} | ({"fold": fold} if fold else {}), []
    for name, model in known.items():
        organism = open_organism(name, model, prompts=prompts, judged=judged, fold=fold)
        found.append(untouched(organism, out / "rows", settings))
        for row in rows(organism, wanted, out / "rows", settings, kept=kept):
            found.append(row)
            click.echo(f"{name}: {row['method']}: AP D {row['AP D']:.2f}, AP H {row['AP H']:.2f}", err=True)
    table = pl.from_dicts(found, infer_schema_length=None)
    _write(table, out)
    if page is not None:
        page.write_text(filled(page.read_text("utf-8"), table, list(known)), encoding="utf-8")
        drawn = page.parent / "pictures" / "identification.svg"
        drawn.write_text(picture(summary(table)).svg, encoding="utf-8")


def _write(table: pl.DataFrame, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    found = summary(table)
    table.write_csv(out / "rows.csv")
    found.write_parquet(out / "summary.parquet")
    text = markdown(found)
    (out / "table.md").write_text(text, encoding="utf-8")
    save_chart(picture(found), out / "identification")
    click.echo(text)


@main.command()
@FOLDER
@click.option("--only", multiple=True, help="Names that contain this; repeatable.")
def make(folder: Path, only: tuple[str, ...]) -> None:
    """Train the test organisms that are missing, in their order: about four minutes of one core each."""
    for planting in organisms.TEST:
        if not only or any(part in planting.name for part in only):
            click.echo(f"{planting.name}: {organisms.make(planting, folder)}")


if __name__ == "__main__":
    main()
