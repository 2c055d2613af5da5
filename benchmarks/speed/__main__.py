"""`python -m benchmarks.speed`: one table of ratios to plain passes, ours and the peers'."""

import os
from pathlib import Path

import click
from rich.console import Console


@click.command()
@click.option("--model", type=click.Choice(["100m", "organism"]), default="100m", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Repeats that count.")
@click.option("--only", multiple=True, help="Only lines whose name contains this; repeatable.")
@click.option("--quick", is_flag=True, help="Two repeats and small sizes: does it run?")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the numbers there, too.")
def main(model: str, repeats: int, only: tuple[str, ...], quick: bool, threads: int, file: Path | None) -> None:
    """How many plain passes everything takes, by processor time, here and with other tools in the same process.

    Medians over the repeats with quartiles. Tools that are not installed are named: benchmarks/README.md says how to.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
    from benchmarks.report import machine, write
    from benchmarks.speed import measured
    from benchmarks.speed.table import table

    console, about = Console(), machine(threads)
    if not console.is_terminal:
        console.width = 220
    console.print(", ".join(f"{name} {value}" for name, value in about.items()), soft_wrap=True)
    found = measured(model, repeats=2 if quick else repeats, quick=quick, threads=threads, only=only)
    console.print(table(f"{model}: × plain pass, processor time", found.cpu, found.gpu, found.missing))
    for note in found.notes:
        console.print(note, soft_wrap=True)
    if file is not None:
        write(file, about, [*found.cpu, *(found.gpu or [])])


if __name__ == "__main__":
    main()
