"""Nulls and stability beside the matrix products that they cannot do without: seconds, and multiples of those.

Runs in processes of its own, `python -m benchmarks.nulls WHAT REPEATS NEURONS`. Effects are in memory, so that no disk
is measured. The reference is numpy's product of labels [draw, prompt] with effects [prompt, neuron], in float64 and
once per language: the sums of the harmful prompts under every permutation, and nothing else.

`at_scale`, `python -m benchmarks.nulls scale LAYERS REPEATS`: nulls over the layers of an 8B Llama and the reference in
turn, in one process: on a machine that others use, too, the ratios hold where seconds do not.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from benchmarks.apart import MIB, forget_peak, peak, resettable, run_apart
from benchmarks.selection import WIDTHS
from benchmarks.timing import Row, clocked, spread

LANGUAGES = tuple(f"l{number}" for number in range(7))
PROMPTS, NEURONS, DRAWS = 800, 2560, 1000
TOGETHER = 25
"""Labellings in one sweep over the effects, as a study has them."""
LAYERS, FEW_LAYERS, FEW_PROMPTS = 32, 2, 200
"""Of an 8B model: for the null, for what takes several times as long, and the prompts of either."""
REFERENCE = "numpy, labels × effects only"


def nulls(*, neurons: int = NEURONS, repeats: int, threads: int) -> list[Row]:
    """Seconds and peak memory of each method, and its processor time as a multiple of the plain matrix products."""
    group = f"nulls: {len(LANGUAGES)} languages × {neurons:,} neurons × {PROMPTS} prompts × {DRAWS:,} draws"
    rows: list[Row] = []
    for name in STEPS:
        found = run_apart("benchmarks.nulls", [name, str(repeats), str(neurons)], threads=threads)
        taken = spread(found["processor"])
        notes = [f"+{found['growth'] / MIB:,.0f} MiB"] if resettable() else []
        if rows:
            notes.append(f"{taken.median / rows[0].value.median:.1f} × numpy")
        rows.append(
            Row(group=group, name=name, value=taken, unit="s", wall=spread(found["wall"]), note=", ".join(notes))
        )
    return rows


def made_up(neurons: int) -> Any:
    """Random effects in one layer and site."""
    return _made_up({(0, "ffn"): (0, neurons)}, PROMPTS)


def of_layers(layers: int) -> Any:
    """Random effects at all sites; places have some neurons in common, so that an 8B model's fit into memory."""
    places = {
        (layer, site): (16 * layer + number, width)
        for layer in range(layers)
        for number, (site, width) in enumerate(WIDTHS.items())
    }
    return _made_up(places, FEW_PROMPTS)


def _made_up(places: Mapping[tuple[int, str], tuple[int, int]], prompts: int) -> Any:
    """Random effects; a place has so many neurons of a line from one of them on."""
    from ssn_probe.stats.nulls import PromptEffects

    random, ids = np.random.default_rng(0), [f"p{number}" for number in range(prompts)]
    length = max(first + width for first, width in places.values())
    line = {one: random.standard_normal((prompts, length)).astype(np.float32) for one in LANGUAGES}
    empty = pl.lit(None, pl.String)
    table = pl.DataFrame({"prompt_id": ids, "harmful": [number % 2 == 0 for number in range(prompts)]}).with_columns(
        cluster="prompt_id", pair_id=empty, stratum=empty, source=empty
    )

    def read(language: str, layer: int, site: str) -> np.ndarray:
        first, width = places[layer, site]
        return line[language][:, first : first + width]

    return PromptEffects(prompts=table, languages=LANGUAGES, places=tuple(places), read=read)


def _products(neurons: int) -> Callable[[], Any]:
    return _products_of(made_up(neurons))


def _products_of(effects: Any) -> Callable[[], Any]:
    labels = (np.random.default_rng(1).random((DRAWS, effects.prompts.height)) < 0.5).astype(np.float64)

    def run() -> None:
        for place in effects.places:
            for one in effects.languages:
                np.matmul(labels, effects.read(one, *place).astype(np.float64))

    return run


def _sets() -> dict[str, Any]:
    from ssn_probe.spec import Prompts, SafetyNeurons, Shared

    ms = SafetyNeurons(Prompts("made up"))
    return {"ms": ms, "ss": Shared(ms)}


def _permutation(neurons: int) -> Callable[[], Any]:
    return _permutation_of(made_up(neurons))


def _permutation_of(effects: Any) -> Callable[[], Any]:
    from ssn_probe.stats.nulls import permutation_null

    return lambda: permutation_null(effects, _sets(), anchor=LANGUAGES[0], draws=DRAWS)


def _stability(neurons: int) -> Callable[[], Any]:
    return _stability_of(made_up(neurons))


def _stability_of(effects: Any) -> Callable[[], Any]:
    from ssn_probe.stats.nulls import stability

    return lambda: stability(effects, _sets(), anchor=LANGUAGES[0])


def _discoveries(neurons: int) -> Callable[[], Any]:
    return _discoveries_of(made_up(neurons))


def _discoveries_of(effects: Any) -> Callable[[], Any]:
    from ssn_probe.stats.nulls import discoveries

    return lambda: discoveries(effects, draws=DRAWS)


def _exchangeability_of(effects: Any) -> Callable[[], Any]:
    from ssn_probe.stats.nulls.exchangeability import exchangeability

    return lambda: exchangeability(effects, draws=DRAWS)


def _labelled_means_of(effects: Any) -> Callable[[], Any]:
    from ssn_probe.stats.nulls.relabelled import labelled_means

    return lambda: labelled_means(effects)


def _label_sets(**fields: Any) -> Callable[[int], Callable[[], Any]]:
    def prepared(neurons: int) -> Callable[[], Any]:
        effects = made_up(neurons)
        return lambda: [_swept(effects, replace(_sets()["ms"], **fields), first) for first in range(0, 100, TOGETHER)]

    return prepared


def _swept(effects: Any, node: Any, first: int) -> Any:
    from ssn_probe.stats.nulls.label_sets import ranked_under, stable_under
    from ssn_probe.stats.nulls.relabelled import relabelled

    labelled = {number: relabelled(effects, number, 0) for number in range(first, first + TOGETHER)}
    return ranked_under(labelled, node) if node.stable is None else stable_under(labelled, node, node.stable)


def _discovered(neurons: int) -> Callable[[], Any]:
    from ssn_probe.stats.nulls import discoveries
    from ssn_probe.stats.nulls.false_discoveries import null_bins
    from ssn_probe.stats.nulls.label_sets import discovered_under
    from ssn_probe.stats.nulls.relabelled import relabelled

    effects = made_up(neurons)
    null = null_bins(discoveries(effects, draws=DRAWS).null)
    numbers = [range(first, first + TOGETHER) for first in range(0, 100, TOGETHER)]
    return lambda: [
        discovered_under({number: relabelled(effects, number, 0) for number in some}, null, 0.05) for some in numbers
    ]


STEPS: dict[str, Callable[[int], Callable[[], Any]]] = {
    REFERENCE: _products,
    "permutation_null, a set and its shared set": _permutation,
    "stability, 50 pairs and 99 permutations": _stability,
    "discoveries": _discoveries,
    "sets under 99 exchanged labellings and the observed one": _label_sets(),
    "the same at a false discovery rate": _discovered,
    "the same by half-samples": _label_sets(stable=0.9, top=0.005),
}


def _measure(name: str, repeats: int, neurons: int) -> dict[str, Any]:
    run, clocks = STEPS[name](neurons), []
    before = forget_peak() if resettable() else 0
    clocks.append(clocked(run))
    growth = max(0, peak() - before) if resettable() else 0
    clocks += [clocked(run) for _ in range(repeats)]
    wall, processor = zip(*clocks[1:], strict=True)
    return {"growth": growth, "wall": wall, "processor": processor}


SCALED: dict[str, tuple[float | None, Callable[[Any], Callable[[], Any]]]] = {
    "permutation_null, a set and its shared set": (3.0, _permutation_of),
    "exchangeability": (None, _exchangeability_of),
    "discoveries": (None, _discoveries_of),
    "labelled_means, of one labelling": (None, _labelled_means_of),
    "stability, 50 pairs and 99 permutations": (None, _stability_of),
}
"""What a study does with all neurons, and how many times the bare products' time it may take."""


def at_scale(*, layers: int = LAYERS) -> list[Row]:
    """Multiples of the bare products' time: the null over all layers, the others over a few."""
    rows: list[Row] = []
    for number, some in ((0, layers), (1, min(layers, FEW_LAYERS))):
        size = f"{len(LANGUAGES)} languages × {some * sum(WIDTHS.values()):,} neurons × {FEW_PROMPTS} prompts"
        names = list(SCALED)[1:] if number else list(SCALED)[:1]
        found = run_apart("benchmarks.nulls", ["scale", str(some), "1", *names], threads=1, freeing=False)
        for name, (ratios, bare, mib) in found.items():
            note = f"bare products {bare:.1f} s" + (f", +{mib:,.0f} MiB" if resettable() else "")
            rows.append(
                Row(
                    group=f"nulls: {size} × {DRAWS:,} draws",
                    name=name,
                    value=spread(ratios),
                    target=SCALED[name][0],
                    note=note,
                )
            )
    return rows


def _scale(layers: int, repeats: int, names: Sequence[str]) -> dict[str, tuple[list[float], float, float]]:
    """Name → ratios of processor time, seconds of the bare products, and MiB beside what was there before."""
    effects, found = of_layers(layers), {}
    small = of_layers(1)
    bare = _products_of(effects)
    for name in names or list(SCALED):
        make = SCALED[name][1]
        for warming in (_products_of, make):
            warming(small)()
        ratios, seconds, growth = [], [], 0.0
        run = make(effects)
        for _ in range(repeats):
            seconds.append(clocked(bare)[1])
            before = forget_peak() if resettable() else 0
            taken = clocked(run)[1]
            growth = max(growth, (peak() - before) / MIB if resettable() else 0)
            seconds.append(clocked(bare)[1])
            ratios.append(taken / (sum(seconds[-2:]) / 2))
        found[name] = ratios, float(np.median(seconds)), growth
    return found


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "scale":
        print(json.dumps(_scale(int(given[0]), int(given[1]), given[2:])))  # noqa: T201
    else:
        print(json.dumps(_measure(what, *map(int, given))))  # noqa: T201
