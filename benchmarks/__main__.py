"""`python -m benchmarks`: memory, the cache, selection and nulls. Passes are timed by `python -m benchmarks.speed`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console

PARTS = ("cache", "memory", "selection", "nulls")


@click.command()
@click.option("--model", type=click.Choice(["100m", "organism", "all"]), default="all", show_default=True)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Only this part; repeatable.")
@click.option("--repeats", type=click.IntRange(1), default=9, show_default=True, help="Repeats that count.")
@click.option("--quick", is_flag=True, help="Two repeats and small sizes: does it run?")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the numbers there, too.")
def main(model: str, parts: tuple[str, ...], repeats: int, quick: bool, threads: int, file: Path | None) -> None:
    """What the cache costs, memory of passes and training, and time of selection and nulls.

    Ratios of processor time and, after them, of wall time; medians over the repeats, with quartiles.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
    from benchmarks.report import machine, show, write

    console, rows = Console(), []
    if not console.is_terminal:
        console.width = 150
    about = machine(threads)
    console.print(", ".join(f"{name} {value}" for name, value in about.items()), soft_wrap=True)
    for measure in _plan(model, parts or PARTS, 2 if quick else repeats, quick, threads):
        found = measure()
        show(console, found)
        rows += found
    if file is not None:
        write(file, about, rows)


def _plan(model: str, parts: tuple[str, ...], repeats: int, quick: bool, threads: int) -> Iterator[Callable]:
    """What to measure, in order; each yields rows."""
    from benchmarks.apart import resettable
    from benchmarks.memory import SIZES, memory
    from benchmarks.nulls import NEURONS, nulls
    from benchmarks.selection import LAYERS, selection
    from benchmarks.speed.training import training_memory

    for name in ("100m", "organism") if model == "all" else (model,):
        if "cache" in parts:
            yield lambda name=name: _cache(name, repeats, quick, threads)
        if "memory" in parts and resettable():
            sizes = SIZES[:2] if quick else SIZES
            yield lambda name=name, sizes=sizes: memory(name, sizes=sizes, threads=threads)
            yield lambda name=name: training_memory(name, threads=threads)
    if "selection" in parts:
        yield lambda: selection(layers=4 if quick else LAYERS, repeats=2 if quick else 3, threads=threads)
    if "nulls" in parts:
        yield lambda: nulls(neurons=256 if quick else NEURONS, repeats=2 if quick else 3, threads=threads)


def _cache(name: str, repeats: int, quick: bool, threads: int) -> list:
    """What keeping a measurement costs. The organism is so small that it repeats four times as often."""
    import torch

    from benchmarks.caching import caching
    from benchmarks.models import opened
    from benchmarks.speed import prompts_of

    torch.set_num_threads(threads)
    prompts = prompts_of(name, quick)
    with opened("organism" if name == "organism" else "100m", prompts=prompts) as case:
        return caching(case, batch_size=prompts, repeats=repeats * (1 if quick or name == "100m" else 4))


if __name__ == "__main__":
    main()
