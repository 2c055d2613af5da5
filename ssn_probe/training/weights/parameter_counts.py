"""How much of a model is trained: parameters per site, in number and per cent.

The paper's 0.51–0.57 % is the size of a whole top-3 % set of q, k, v and o; a set of 0.3 % of the neurons trains less.
So the real figure is counted for every delta file and card.
"""

from dataclasses import replace
from typing import Any

import polars as pl

from ssn_probe.model.families import Family, Matrix, family_of
from ssn_probe.spec import SITES, Site
from ssn_probe.training.weights.adapter import Adapter
from ssn_probe.training.weights.neuron_weights import neurons_of
from ssn_probe.training.weights.trainable import Change

ALL = "all"


def weights_by_site(change: Change) -> dict[str, tuple[int, int]]:
    """Neurons and parameters per site, in the order of the sites, then of `all`; adapters are no neuron's own."""
    counts = {
        site: (_neurons(change, site), sum(part.parameters for part in change.parts if part.site == site))
        for site in SITES
    }
    sites = {site: both for site, both in counts.items() if both[1]}
    return sites | {ALL: (sum(n for n, _ in sites.values()), sum(n for _, n in sites.values()))}


def _neurons(change: Change, site: Site) -> int:
    """How many neurons of a site have a change of their own."""
    if isinstance(change, Adapter):
        return 0
    return len(neurons_of(part.place for part in change.parts if part.site == site))


def fraction(module: Any, change: Change) -> pl.DataFrame:
    """Neurons and parameters that a change has in a model.

    One row per site with a change, then `all`: `site`, `neurons`, `parameters`, `percent` of all parameters of the
    model (tied ones counted once), `percent_of_site` of the weights that all neurons of the site have in all layers
    (for adapters, which change all rows: of the matrices in which these are). Biases, norms and embeddings are never
    trained.
    """
    everything = sum(weight.numel() for weight in module.parameters())
    sizes = _sizes(module, whole=isinstance(change, Adapter))
    rows = [(site, *both, sizes[site]) for site, both in weights_by_site(change).items()]
    frame = pl.DataFrame(rows, schema=["site", "neurons", "parameters", "of_site"], orient="row")
    return frame.select(
        "site",
        "neurons",
        "parameters",
        percent=100 * pl.col("parameters") / everything,
        percent_of_site=100 * pl.col("parameters") / pl.col("of_site"),
    )


def _sizes(module: Any, *, whole: bool) -> dict[str, int]:
    """How many weights the neurons of a site, and of all, have in all layers, or the whole matrices that hold them."""
    family = family_of(module.config)
    parts = {site: set(family.weights[site]) for site in SITES}
    wholes = {site: {replace(one, part=None) for one in parts[site]} for site in SITES}
    counted = {**(wholes if whole else parts), ALL: set[Matrix]().union(*wholes.values())}
    layers = module.get_submodule(family.layers)
    return {site: sum(_size(family, layer, one) for layer in layers for one in counted[site]) for site in counted}


def _size(family: Family, layer: Any, matrix: Matrix) -> int:
    weight = layer.get_submodule(matrix.path).weight
    if matrix.part is None:
        return weight.numel()
    first, end = family.bounds(layer, matrix.path, matrix.part)
    return (end - first) * weight.shape[1]
