"""Random sets of the same shape as a set under test.

A rank test among such sets holds its level where the set and those drawn beside it are exchangeable, so they are drawn
from all neurons that the set could have consisted of, its own among them. Sets that are drawn from the others alone
differ from the set, and not from each other, by what it is made of: of a set that is 40 % of its place, a test at .05
then rejects a fifth of true null hypotheses or more.
"""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from ssn_probe.errors import RecipeError
from ssn_probe.neurons.language_means import merged
from ssn_probe.neurons.model_neurons import Widths, check_places
from ssn_probe.neurons.neuron_codes import PLACE, codes, on_a_line
from ssn_probe.neurons.neuron_set import NEURON, SITES, NeuronSet

Draw = Callable[[tuple[int, str], np.ndarray, np.random.Generator], np.ndarray]
"""A place, the indices of a set there, and what is random → the indices that take their places."""
Strata = Mapping[tuple[int, str], np.ndarray]
"""(layer, site) → the stratum of every neuron there, int [neuron]."""
LEAST_ALIKE = 0.9
"""The least importance in a stratum, as a share of the largest."""


def random_like(neurons: NeuronSet, widths: Widths, seed: int) -> NeuronSet:
    """A random set with as many neurons per (language, layer, site), drawn from all neurons there.

    A random permutation of the neurons of each (layer, site), the same for all languages, is applied to the set. So the
    drawn set overlaps across languages exactly as the set under test does; drawing each language by itself would make
    the average over languages too narrow, and the test too liberal. The test's assumption is that, if the hypothesis is
    true, any neurons of a place could as well have been the set there.
    """
    check_places(neurons, widths)

    def draw(place: tuple[int, str], used: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return generator.choice(widths[place], size=len(used), replace=False)

    return _moved(neurons, seed, draw)


def importance_strata(importance: pl.DataFrame) -> Strata:
    """Neurons of about equal importance at every place, whatever their labels.

    The common importance of a neuron is (|harmful| + |harmless|) / 2, averaged over languages. `importance`:
    `language, layer, site, index, harmful, harmless`, with all neurons of a place. In a stratum it differs by a tenth
    at most. Strata of as many neurons each would not match the most important ones, which differ most and of which
    sets are made: with 32 neurons each, up to half of the true null hypotheses of a simulation were rejected at .05.
    """
    found = merged(importance)
    size = importance.select(pl.col("harmful").abs() + pl.col("harmless").abs()).to_series()
    common = importance.select(NEURON)[found.rows].with_columns(common=found.mean(size) / 2)
    top = pl.col("common").max().over("layer", "site")
    stratum = ((top / pl.col("common")).log() / -np.log(LEAST_ALIKE)).floor().clip(0, 1000).fill_nan(1000)
    # The last stratum is of neurons without importance.
    rows = common.with_columns(stratum=stratum.cast(pl.Int32)).sort(NEURON)
    places = rows.group_by(["layer", "site"], maintain_order=True)
    return {(int(layer), str(site)): some["stratum"].to_numpy() for (layer, site), some in places}  # type: ignore[arg-type]


def as_important(neurons: NeuronSet, strata: Strata, seed: int) -> NeuronSet:
    """A random set with as many neurons per (language, layer, site) that are as important (`importance_strata`).

    A random permutation of the neurons of each stratum, the same for all languages, is applied to the set. The test's
    assumption is that, if the hypothesis is true, any neurons of a stratum could as well have been the set there. A
    neuron that is alone in its stratum stays, since no other neuron is as important; where a set consists of such
    neurons, there is nothing to compare it with. Raises RecipeError for neurons without importance.
    """

    def draw(place: tuple[int, str], used: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if len(strata.get(place, ())) <= used[-1]:
            layer, site = place
            hint = "Choose the set by a SafetyNeurons(…) that has this site."
            raise RecipeError(f"the importance of the neurons in layer {layer}, {site} is not known", hint)
        stratum = strata[place]
        before = np.argsort(stratum, kind="stable")
        after = np.lexsort([generator.random(len(stratum)), stratum])
        moved = np.empty_like(before)
        moved[before] = after
        return moved[used]

    return _moved(neurons, seed, draw)


def _moved(neurons: NeuronSet, seed: int, draw: Draw) -> NeuronSet:
    """The set with every neuron moved within its place, the same way in all languages; it has no scores.

    A place has as many rows before and after, so that of sorted rows only the indices change.
    """
    frame = neurons.frame
    (run,) = codes([frame], ["language", *PLACE])
    if (run[1:] < run[:-1]).any():
        order = np.argsort(run, kind="stable")
        frame, run = frame[order], run[order]
    line = on_a_line(frame)
    moved = np.zeros(line.starts[-1], dtype=np.int64)
    moved[line.position] = 1
    for (layer, site), start, end in zip(line.places.rows(), line.starts[:-1], line.starts[1:], strict=True):
        used = np.flatnonzero(moved[start:end])
        random = np.random.default_rng([seed, layer, SITES.index(site)])
        moved[start + used] = draw((layer, site), used, random)
    largest = int(moved.max(initial=0)) + 1
    run *= largest
    run += moved[line.position]
    run.sort()
    run %= largest
    score = pl.lit(None, pl.Float64)
    return NeuronSet(
        frame.select("language", *PLACE, index=pl.Series(run, dtype=pl.Int32), score=score), neurons.languages
    )
