"""Random sets of the same shape as a set under test."""

import numpy as np
import polars as pl

from ssn_probe.errors import RecipeError
from ssn_probe.neurons.model_neurons import Widths, check_places
from ssn_probe.neurons.neuron_set import KEYS, NeuronSet


def random_like(neurons: NeuronSet, widths: Widths, seed: int) -> NeuronSet:
    """A random control: as many neurons per (language, layer, site), disjoint from the set in every language.

    A random injection per (layer, site), the same for all languages, maps the set to neurons outside it. So a control
    overlaps across languages exactly as the set under test does; drawing each language by itself would make the
    controls' language average too narrow, and the test too liberal.
    """
    check_places(neurons, widths)
    sites = sorted(neurons.frame["site"].unique())
    moved = []
    for (layer, site), rows in neurons.frame.sort(KEYS).group_by(["layer", "site"], maintain_order=True):
        used = np.unique(rows["index"].to_numpy())
        free = np.setdiff1d(np.arange(widths[int(layer), str(site)]), used)
        if len(free) < len(used):
            raise RecipeError(
                f"no random control can be drawn in layer {layer}, {site}: {len(used)} neurons are in the set "
                f"and only {len(free)} are not",
                "Lower top (or fdr), or run with controls=0 and log_odds_controls=0.",
            )
        generator = np.random.default_rng([seed, int(layer), sites.index(str(site))])  # type: ignore[arg-type]
        drawn = generator.choice(free, size=len(used), replace=False)
        table = pl.DataFrame({"index": used, "drawn": drawn}, schema={"index": pl.Int32, "drawn": pl.Int32})
        moved.append(rows.join(table, on="index").with_columns(index="drawn", score=pl.lit(None, pl.Float64)))
    frame = pl.concat(moved).select(*KEYS, "score").sort(KEYS) if moved else neurons.frame
    return NeuronSet(frame, neurons.languages)
