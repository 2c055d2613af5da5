"""Nulls and stability beside the matrix products that they cannot do without: seconds, and multiples of those.

Runs in processes of its own, `python -m benchmarks.nulls WHAT REPEATS NEURONS`. Effects are in memory, so that no disk
is measured. The reference is numpy's product of labels [draw, prompt] with effects [prompt, neuron], in float64 and
once per language: the sums of the harmful prompts under every permutation, and nothing else.

`python -m benchmarks.nulls ratio REPEATS NEURONS PROMPTS` times `permutation_null` and the reference in turn, in one
process: on a machine that others use, too, the ratios hold where seconds do not.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from benchmarks.apart import MIB, forget_peak, peak, resettable, run_apart
from benchmarks.timing import Row, clocked, spread

LANGUAGES = tuple(f"l{number}" for number in range(7))
PROMPTS, NEURONS, DRAWS = 800, 2560, 1000
TOGETHER = 25
"""Labellings in one sweep over the effects, as a study has them."""
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


def made_up(neurons: int, prompts: int = PROMPTS) -> tuple[Any, dict[str, np.ndarray]]:
    """Random effects in one layer and site, and as arrays per language, [prompt, neuron]."""
    from ssn_probe.stats.nulls import PromptEffects

    random, ids = np.random.default_rng(0), [f"p{number}" for number in range(prompts)]
    effects = {one: random.standard_normal((prompts, neurons)).astype(np.float32) for one in LANGUAGES}
    empty = pl.lit(None, pl.String)
    table = pl.DataFrame({"prompt_id": ids, "harmful": [number % 2 == 0 for number in range(prompts)]}).with_columns(
        cluster="prompt_id", pair_id=empty, stratum=empty, source=empty
    )
    places = ((0, "ffn"),)
    return PromptEffects(
        prompts=table, languages=LANGUAGES, places=places, read=lambda one, layer, site: effects[one]
    ), effects


def _products(neurons: int, prompts: int = PROMPTS) -> Callable[[], Any]:
    _, effects = made_up(neurons, prompts)
    labels = (np.random.default_rng(1).random((DRAWS, prompts)) < 0.5).astype(np.float64)
    return lambda: [labels @ found.astype(np.float64) for found in effects.values()]


def _sets() -> dict[str, Any]:
    from ssn_probe.spec import Prompts, SafetyNeurons, Shared

    ms = SafetyNeurons(Prompts("made up"))
    return {"ms": ms, "ss": Shared(ms)}


def _permutation(neurons: int, prompts: int = PROMPTS) -> Callable[[], Any]:
    from ssn_probe.stats.nulls import permutation_null

    effects, _ = made_up(neurons, prompts)
    return lambda: permutation_null(effects, _sets(), anchor=LANGUAGES[0], draws=DRAWS)


def _stability(neurons: int) -> Callable[[], Any]:
    from ssn_probe.stats.nulls import stability

    effects, _ = made_up(neurons)
    return lambda: stability(effects, _sets(), anchor=LANGUAGES[0])


def _discoveries(neurons: int) -> Callable[[], Any]:
    from ssn_probe.stats.nulls import discoveries

    effects, _ = made_up(neurons)
    return lambda: discoveries(effects, draws=DRAWS)


def _label_sets(**fields: Any) -> Callable[[int], Callable[[], Any]]:
    def prepared(neurons: int) -> Callable[[], Any]:
        effects, _ = made_up(neurons)
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

    effects, _ = made_up(neurons)
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


def _ratio(repeats: int, neurons: int, prompts: int) -> dict[str, Any]:
    """Processor time of the null over that of the bare products, in turn; the first of each warms up."""
    bare, null = _products(neurons, prompts), _permutation(neurons, prompts)
    clocks = [(clocked(bare)[1], clocked(null)[1]) for _ in range(1 + repeats)][1:]
    return {"bare": [one for one, _ in clocks], "ratio": [round(other / one, 2) for one, other in clocks]}


if __name__ == "__main__":
    what, *sizes = sys.argv[1:]
    print(json.dumps(_ratio(*map(int, sizes)) if what == "ratio" else _measure(what, *map(int, sizes))))  # noqa: T201
