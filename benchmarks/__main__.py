"""`python -m benchmarks`: measure, print the tables, and write them as JSON on request."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console

PARTS = ("scoring", "generation", "cache", "memory", "training", "selection", "nulls")


@click.command()
@click.option("--model", type=click.Choice(["100m", "organism", "all"]), default="all", show_default=True)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Only this part; repeatable.")
@click.option("--repeats", type=click.IntRange(1), default=9, show_default=True, help="Repeats that count.")
@click.option("--quick", is_flag=True, help="Two repeats and small sizes: does it run?")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the numbers there, too.")
def main(model: str, parts: tuple[str, ...], repeats: int, quick: bool, threads: int, file: Path | None) -> None:
    """Speed and memory of the probe, as ratios to plain forward passes and plain generation in the same run.

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

    names = ("100m", "organism") if model == "all" else (model,)
    for name in names:
        if {"scoring", "generation", "cache"} & set(parts):
            yield lambda name=name: _speed(name, parts, repeats, quick, threads)
        if "memory" in parts and resettable():
            sizes = SIZES[:2] if quick else SIZES
            yield lambda name=name, sizes=sizes: memory(name, sizes=sizes, threads=threads)
        if "training" in parts:
            yield lambda name=name: _training(name, repeats, quick, threads)
    if "selection" in parts:
        yield lambda: selection(layers=4 if quick else LAYERS, repeats=2 if quick else 3, threads=threads)
    if "nulls" in parts:
        yield lambda: nulls(neurons=256 if quick else NEURONS, repeats=2 if quick else 3, threads=threads)


def _speed(name: str, parts: tuple[str, ...], repeats: int, quick: bool, threads: int) -> list:
    """Scoring and generation on one model."""
    import torch

    from benchmarks.caching import caching
    from benchmarks.generation import generate
    from benchmarks.models import opened
    from benchmarks.scoring import brute_force, score

    torch.set_num_threads(threads)
    rows, (prompts, repeats) = [], _size(name, repeats, quick)
    with opened("organism" if name == "organism" else "100m", prompts=prompts) as case:
        if "scoring" in parts:
            rows += score(case, batch_size=prompts, repeats=repeats)
            rows += brute_force(case, neurons=prompts, repeats=repeats)
        if "generation" in parts:
            rows += generate(case, batch_size=prompts, repeats=repeats)
        if "cache" in parts:
            rows += caching(case, batch_size=prompts, repeats=repeats)
    return rows


def _training(name: str, repeats: int, quick: bool, threads: int) -> list:
    """A training step on one model, and its memory where the system tells it."""
    import torch

    from benchmarks.apart import resettable
    from benchmarks.training import training, training_memory

    torch.set_num_threads(threads)
    prompts, repeats = _size(name, repeats, quick)
    rows = training(name, prompts=prompts, repeats=repeats)
    return [*rows, *training_memory(name, threads=threads)] if resettable() else rows


def _size(name: str, repeats: int, quick: bool) -> tuple[int, int]:
    """Prompts and repeats. The organism is so small that it repeats four times as often."""
    if name == "organism":
        return 200, repeats if quick else repeats * 4
    return 4 if quick else 8, repeats


if __name__ == "__main__":
    main()
