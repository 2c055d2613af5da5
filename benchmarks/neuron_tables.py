"""Tables at the size of large studies, beside what the project allows them: time and memory, in one table.

`python -m benchmarks.neuron_tables`: what is done with the sets of a hundred languages over eight million neurons, in
8 GiB of address space; selection among the neurons of an 8B Llama in seven languages; and their nulls beside the
matrix products that they cannot do without. Every part runs in a process of its own. A set of a hundred languages has
the layers of an 8B Llama (24,576 neurons each), a third of it common to all languages.
"""

import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl

from benchmarks.apart import MIB, forget_peak, peak, run_apart
from benchmarks.nulls import LAYERS as NULL_LAYERS
from benchmarks.nulls import at_scale
from benchmarks.selection import LAYERS as SELECTED_LAYERS
from benchmarks.selection import WIDTHS, selection
from benchmarks.timing import Row, clocked, spread

LANGUAGES = tuple(f"l{number:03d}" for number in range(100))
TOPS = (0.005, 0.03)
LAYERS = 326
GIB = 8.0
ALLOWED = 120.0
"""Seconds for overlaps, expectations and set algebra together."""
TABLES = ("overlap_table", "set & set.of(…)", "set - set.of(…)", "set & other", "set | other", "set.union()")
TABLES += ("shared_at_least, 3 languages",)
"""The steps that are allowed so long."""


def made_up(layers: int, top: float) -> Any:
    """The first neurons of every place in all languages, and in each a random stretch of a random order."""
    from ssn_probe.neurons.neuron_set import SCHEMA, NeuronSet

    draw, counts = np.random.default_rng(0), {site: int(np.ceil(top * width - 1e-9)) for site, width in WIDTHS.items()}
    sites = sorted(counts)
    rest = {site: counts[site] // 3 + draw.permutation(WIDTHS[site] - counts[site] // 3) for site in sites}
    names = pl.Series(np.repeat(sites, [counts[site] for site in sites]).tolist() * layers)
    layer = np.repeat(np.arange(layers, dtype=np.int32), sum(counts.values()))
    frames = []
    for language in LANGUAGES:
        index = np.concatenate([_stretches(counts[one], rest[one], layers, draw) for one in sites], axis=1)
        columns = {"layer": layer, "site": names, "index": index.ravel(), "score": draw.random(len(layer))}
        frames.append(pl.DataFrame(columns).select(pl.lit(language).alias("language"), pl.all()))
    return NeuronSet(pl.concat(frames, rechunk=True).cast(dict(SCHEMA)), LANGUAGES)  # type: ignore[arg-type]


def _stretches(count: int, rest: np.ndarray, layers: int, draw: np.random.Generator) -> np.ndarray:
    """The neurons of a site, int32 [layer, neuron]."""
    common = np.tile(np.arange(count // 3), (layers, 1))
    first = draw.integers(len(rest), size=(layers, 1))
    others = rest[(first + np.arange(count - count // 3)) % len(rest)]
    return np.concatenate([common, np.sort(others, axis=1)], axis=1).astype(np.int32)


def steps(neurons: Any, layers: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """What a study does with such a set."""
    from ssn_probe.files import write_table
    from ssn_probe.neurons import NEURON, NeuronSet, read_neurons
    from ssn_probe.neurons.overlap import overlap_table
    from ssn_probe.neurons.own_sets import own_neurons
    from ssn_probe.neurons.random_controls import as_important, random_like
    from ssn_probe.neurons.selection import shared_at_least, shared_with_anchor
    from ssn_probe.neurons.size_matching import matched, sizes_of

    widths = {(layer, site): width for layer in range(layers) for site, width in WIDTHS.items()}
    strata = {place: np.arange(width) // 50 for place, width in widths.items()}
    anchor, even = neurons.of(LANGUAGES[0]), NeuronSet(neurons.frame.filter(pl.col("index") % 2 == 0), LANGUAGES)
    mean = anchor.frame.select(*NEURON, "score")
    tables: tuple[Callable[[], Any], ...] = (
        lambda: overlap_table(neurons, widths, "ms"),
        lambda: neurons & anchor,
        lambda: neurons - anchor,
        lambda: neurons & even,
        lambda: neurons | even,
        neurons.union,
        lambda: shared_at_least(neurons, 3),
    )
    others: dict[str, Callable[[], Any]] = {
        "shared_with_anchor": lambda: shared_with_anchor(neurons, LANGUAGES[0], mean),
        "random_like, one set": lambda: random_like(neurons, widths, 0),
        "as_important, one set": lambda: as_important(neurons, strata, 0),
        "own_neurons, one set": lambda: own_neurons(even, neurons, 0),
        "matched, to half the sizes": lambda: matched(lambda _: neurons, sizes_of(even)),
        "without_strongest": neurons.without_strongest,
        "set == set": lambda: neurons == NeuronSet(neurons.frame, LANGUAGES),
        "displayed": neurons._repr_mimebundle_,
        "written as parquet, half of it": lambda: write_table(folder / "neurons.parquet", even.frame),
        "read_neurons, half of it": lambda: read_neurons(folder / "neurons.parquet"),
    }
    return dict(zip(TABLES, tables, strict=True)) | others


def measured(top: float, layers: int, gib: float, only: str = "") -> dict[str, Any]:
    """The rows of a set, and for every step processor seconds and MiB at its peak, the set itself included."""
    limit = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    neurons, found = made_up(layers, top), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, run in steps(neurons, layers, Path(folder)).items():
            if only in name:
                forget_peak()
                found[name] = clocked(run)[1], peak() // MIB
    return {"rows": len(neurons), "steps": found}


def of_languages(top: float, layers: int, threads: int) -> list[Row]:
    """A row per step, beside its memory."""
    arguments = ["measured", str(top), str(layers), str(GIB)]
    found = run_apart("benchmarks.neuron_tables", arguments, threads=threads, freeing=False)
    size = f"{len(LANGUAGES)} languages × {layers * sum(WIDTHS.values()):,} neurons, top {top:.1%}"
    group = f"{size}: {found['rows']:,} rows, in {GIB:g} GiB of address space"
    together = {name: found["steps"][name] for name in TABLES}
    whole = Row(
        group=group,
        name=f"the first {len(TABLES)} together",
        value=spread([sum(seconds for seconds, _ in together.values())]),
        unit="s",
        target=ALLOWED,
        note=f"{max(mib for _, mib in together.values()):,} MiB at the peak",
    )
    rows = [
        Row(group=group, name=name, value=spread([seconds]), unit="s", note=f"{mib:,} MiB at the peak")
        for name, (seconds, mib) in found["steps"].items()
    ]
    return [*rows, whole]


def _plan(quick: bool, threads: int) -> Iterator[Callable[[], list[Row]]]:
    for top in TOPS:
        yield partial(of_languages, top, 4 if quick else LAYERS, threads)
    yield partial(selection, layers=2 if quick else SELECTED_LAYERS, repeats=3, threads=1)
    yield partial(at_scale, layers=1 if quick else NULL_LAYERS)


@click.command()
@click.option("--quick", is_flag=True, help="Small sizes: does it run?")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Of polars, for the languages.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the numbers there, too.")
def main(quick: bool, threads: int, file: Path | None) -> None:
    """Time and memory of tables, selection and nulls at the size of large studies."""
    from rich.console import Console

    from benchmarks.report import machine, show, write

    console, rows = Console(width=150), []
    about = machine(threads)
    console.print(", ".join(f"{name} {value}" for name, value in about.items()), soft_wrap=True)
    for measure in _plan(quick, threads):
        found = measure()
        show(console, found)
        rows += found
    if file is not None:
        write(file, about, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measured"]:
        top, layers, gib, *only = sys.argv[2:]
        print(json.dumps(measured(float(top), int(layers), float(gib), *only)))  # noqa: T201
    else:
        main()
