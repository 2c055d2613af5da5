"""How much of a model is trained: parameters per site, in number and per cent.

The paper's 0.51–0.57 % is the size of a whole top-3 % set of q, k, v and o; a set of 0.3 % of the neurons trains less.
So the real figure is counted, and stands in every delta file and card.
"""

from collections.abc import Iterable
from typing import Any

import polars as pl

from ssn_probe.anatomy import anatomy_of
from ssn_probe.expand.places import WEIGHTS, Neuron, Place, places_of
from ssn_probe.recipe import SITES, Site

ALL = "all"


def fraction(module: Any, neurons: Iterable[Neuron]) -> pl.DataFrame:
    """Neurons and parameters that training these neurons changes.

    One row per site with a neuron, then `all`: `site`, `neurons`, `parameters`, `percent` of all parameters of the
    model (tied ones counted once), `percent_of_site` of the weights that all neurons of the site have in all layers.
    Biases, norms and embeddings are never trained. Raises as `places_of` does.
    """
    places = places_of(module, neurons)
    everything = sum(weight.numel() for weight in module.parameters())
    sites: list[Site] = [site for site in SITES if any(place.site == site for place in places)]
    rows = [(site, *_counts(module, [one for one in places if one.site == site], [site])) for site in sites]
    rows = [*rows, (ALL, *_counts(module, places, SITES))]
    frame = pl.DataFrame(rows, schema=["site", "neurons", "parameters", "of_site"], orient="row")
    return frame.select(
        "site",
        "neurons",
        "parameters",
        percent=100 * pl.col("parameters") / everything,
        percent_of_site=100 * pl.col("parameters") / pl.col("of_site"),
    )


def _counts(module: Any, places: Iterable[Place], sites: Iterable[Site]) -> tuple[int, int, int]:
    """Neurons and parameters of the places, and the parameters that the sites have in the whole model."""
    neurons = parameters = 0
    for place in places:
        neurons += len(place.indices) * place.counts
        parameters += len(place.indices) * _width(module, place)
    return neurons, parameters, sum(_site_size(module, site) for site in sites)


def _width(module: Any, place: Place) -> int:
    outputs, inputs = module.get_submodule(place.module).weight.shape
    return inputs if place.axis == "row" else outputs


def _site_size(module: Any, site: Site) -> int:
    layers = module.get_submodule(anatomy_of(module.config).layers)
    return sum(layer.get_submodule(path).weight.numel() for layer in layers for path, _axis in WEIGHTS[site])
