"""Selection over millions of neurons: polars in the probe beside plain numpy, seconds and memory.

Runs in processes of its own, `python -m benchmarks.selection WHAT LAYERS`: polars fixes its number of threads when it
is imported, and memory is the peak of one call. The frame has the layers of an 8B Llama: 24,576 neurons each.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from benchmarks.apart import MIB, forget_peak, peak, resettable, run_apart
from benchmarks.timing import Row, clocked, spread

LANGUAGES = tuple(f"l{number}" for number in range(7))
WIDTHS = {"q": 4096, "k": 1024, "v": 1024, "o": 4096, "ffn": 14336}
TOP = 0.03
LAYERS = 40
ALLOWED = 0.8
"""Seconds for a selection among all layers."""


def selection(*, layers: int = LAYERS, repeats: int, threads: int) -> list[Row]:
    """Seconds and peak memory of each step; for `select_neurons` with the numpy peer beside it."""
    neurons = layers * sum(WIDTHS.values())
    group = f"selection: {len(LANGUAGES)} languages × {neurons:,} neurons, top {TOP:.0%} per layer and site"
    rows: list[Row] = []
    for name in STEPS:
        found = run_apart("benchmarks.selection", [name, str(layers), str(repeats)], threads=threads)
        taken = spread(found["processor"])
        notes = [f"+{found['growth'] / MIB:,.0f} MiB beside the frame's {found['frame'] / MIB:,.0f}"]
        if name.startswith("select_neurons"):
            notes.append(f"{taken.median / rows[0].value.median:.0f} × numpy")
        note = ", ".join(notes if resettable() else notes[1:])
        target = ALLOWED if name.startswith("select_neurons") else None
        wall = spread(found["wall"])
        rows.append(Row(group=group, name=name, value=taken, unit="s", wall=wall, target=target, note=note))
    return rows


def importances(layers: int) -> pl.DataFrame:
    """A random frame as `ssn_probe.study.importance` makes it."""
    draw = np.random.default_rng(0)
    frames = []
    for language in LANGUAGES:
        for site, width in WIDTHS.items():
            size = layers * width
            columns = {
                "language": pl.repeat(language, size, eager=True),
                "layer": np.repeat(np.arange(layers, dtype=np.int32), width),
                "site": pl.repeat(site, size, eager=True),
                "index": np.tile(np.arange(width, dtype=np.int32), layers),
                "harmful": draw.standard_normal(size),
                "harmless": draw.standard_normal(size),
            }
            frames.append(pl.DataFrame(columns))
    return pl.concat(frames)


def by_numpy(frame: pl.DataFrame) -> list[np.ndarray]:
    """The row numbers of the `difference` rule: a partition per (language, layer, site), on bare arrays."""
    score = frame["harmful"].to_numpy() - frame["harmless"].to_numpy()
    layers, first, chosen = frame["layer"].n_unique(), 0, []
    for _ in LANGUAGES:
        for width in WIDTHS.values():
            block = score[first : first + layers * width].reshape(layers, width)
            count = int(np.ceil(TOP * width - 1e-9))
            rows, columns = np.arange(layers)[:, None], np.argpartition(-block, count - 1, axis=1)[:, :count]
            picked = (first + rows * width + columns)[block[rows, columns] > 0]
            chosen.append(np.sort(picked))
            first += layers * width
    return chosen


def _select(frame: pl.DataFrame, rule: str) -> Any:
    from ssn_probe.neurons.selection import select_neurons

    return select_neurons(frame, rule=rule, top=TOP, pool="site")


def _share(frame: pl.DataFrame) -> Callable[[], Any]:
    from ssn_probe.neurons.selection import averaged, shared_with_anchor

    chosen, mean = _select(frame, "difference"), averaged(frame)
    mean = mean.with_columns(score=pl.col("harmful") - pl.col("harmless")).drop("language", "harmful", "harmless")
    return lambda: shared_with_anchor(chosen, LANGUAGES[0], mean)


def _overlap(frame: pl.DataFrame) -> Callable[[], Any]:
    from ssn_probe.neurons.overlap import overlap_table

    chosen = _select(frame, "difference")
    return lambda: overlap_table(chosen, _widths(frame), "ms")


def _control(frame: pl.DataFrame) -> Callable[[], Any]:
    from ssn_probe.neurons.random_controls import random_like

    chosen = _select(frame, "difference")
    return lambda: random_like(chosen, _widths(frame), 0)


def _strata(frame: pl.DataFrame) -> Callable[[], Any]:
    from ssn_probe.neurons.random_controls import importance_strata

    return lambda: importance_strata(frame)


def _as_important(frame: pl.DataFrame) -> Callable[[], Any]:
    from ssn_probe.neurons.random_controls import as_important

    chosen, strata = _select(frame, "difference"), _strata(frame)()
    return lambda: as_important(chosen, strata, 0)


def _own(frame: pl.DataFrame) -> Callable[[], Any]:
    from ssn_probe.neurons.own_sets import own_neurons

    chosen = _select(frame, "difference")
    shared = chosen & chosen.of(LANGUAGES[0])
    return lambda: own_neurons(shared, chosen, 0)


def _average(frame: pl.DataFrame) -> Callable[[], Any]:
    from ssn_probe.neurons.selection import averaged

    return lambda: averaged(frame)


def _widths(frame: pl.DataFrame) -> dict[tuple[int, str], int]:
    return {(layer, site): width for layer in range(frame["layer"].n_unique()) for site, width in WIDTHS.items()}


STEPS: dict[str, Callable[[pl.DataFrame], Callable[[], Any]]] = {
    "numpy, row numbers of rule difference": lambda frame: lambda: by_numpy(frame),
    "select_neurons, rule difference": lambda frame: lambda: _select(frame, "difference"),
    "select_neurons, rule paper": lambda frame: lambda: _select(frame, "paper"),
    "shared_with_anchor": _share,
    "averaged over languages": _average,
    "random_like, one set": _control,
    "importance_strata, once for all sets": _strata,
    "as_important, one set": _as_important,
    "own_neurons, one set": _own,
    "overlap_table": _overlap,
}


def _check_agreement(frame: pl.DataFrame) -> None:
    """The peer must select the same neurons."""
    numbered = frame.with_row_index("row")
    chosen = _select(frame, "difference").frame
    keys = ["language", "layer", "site", "index"]
    mine = np.sort(chosen.join(numbered, on=keys)["row"].to_numpy())
    if not np.array_equal(mine, np.sort(np.concatenate(by_numpy(frame)))):
        raise SystemExit("The numpy peer selects other neurons: the times would compare different work.")


def _measure(name: str, layers: int, repeats: int) -> dict[str, Any]:
    _check_agreement(importances(2))
    frame = importances(layers)
    run, clocks = STEPS[name](frame), []
    before = forget_peak() if resettable() else 0
    clocks.append(clocked(run))
    growth = max(0, peak() - before) if resettable() else 0
    clocks += [clocked(run) for _ in range(repeats)]
    wall, processor = zip(*clocks[1:], strict=True)
    return {"growth": growth, "frame": frame.estimated_size(), "wall": wall, "processor": processor}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201
