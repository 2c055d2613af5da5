"""Sets of a hundred languages: overlaps and set algebra over eight million neurons, in a process of limited memory.

`python -m benchmarks.neuron_tables STEP TOP LAYERS GIB`: a random set with the layers of an 8B Llama (24,576 neurons
each), a third of it common to all languages; processor time and peak memory of a step in so many GiB of address space.
"""

import json
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from benchmarks.apart import MIB, forget_peak, peak
from benchmarks.selection import WIDTHS
from benchmarks.timing import clocked
from ssn_probe.neurons.neuron_set import NeuronSet
from ssn_probe.neurons.overlap import overlap_table
from ssn_probe.neurons.random_controls import random_like
from ssn_probe.neurons.selection import shared_at_least

LANGUAGES = tuple(f"l{number:03d}" for number in range(100))


def made_up(layers: int, top: float) -> NeuronSet:
    """The first neurons of every place in all languages, and random ones in each."""
    draw, frames = np.random.default_rng(0), []
    for language in LANGUAGES:
        for layer in range(layers):
            for site, width in sorted(WIDTHS.items()):
                count = int(np.ceil(top * width - 1e-9))
                others = count // 3 + draw.choice(width - count // 3, count - count // 3, replace=False)
                index = np.concatenate([np.arange(count // 3), np.sort(others)])
                columns = {"index": index.astype(np.int32), "score": draw.random(count)}
                names = (pl.lit(language).alias("language"), pl.lit(layer, pl.Int32).alias("layer"))
                frames.append(pl.DataFrame(columns).select(*names, pl.lit(site).alias("site"), "index", "score"))
    return NeuronSet(pl.concat(frames, rechunk=True), LANGUAGES)


def steps(neurons: NeuronSet, layers: int) -> dict[str, Callable[[], Any]]:
    """What a study does with such a set."""
    widths = {(layer, site): width for layer in range(layers) for site, width in WIDTHS.items()}
    anchor, even = neurons.of(LANGUAGES[0]), NeuronSet(neurons.frame.filter(pl.col("index") % 2 == 0), LANGUAGES)
    return {
        "overlap": lambda: overlap_table(neurons, widths, "ms"),
        "shared": lambda: neurons & anchor,
        "without": lambda: neurons - anchor,
        "intersection": lambda: neurons & even,
        "both": lambda: neurons | even,
        "union": neurons.union,
        "three": lambda: shared_at_least(neurons, 3),
        "random": lambda: random_like(neurons, widths, 0),
    }


def main(step: str, top: float, layers: int, gib: float) -> dict[str, Any]:
    """The rows of the set, processor seconds of the step, and MiB at its peak, the set itself included."""
    limit = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    neurons = made_up(layers, top)
    run = steps(neurons, layers)[step]
    forget_peak()
    seconds = clocked(run)[1]
    return {"rows": len(neurons), "neurons": layers * sum(WIDTHS.values()), "seconds": seconds, "MiB": peak() // MIB}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))  # noqa: T201
