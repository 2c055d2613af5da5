"""How much of a model is trained: parameters per site, in number and per cent.

The paper's 0.51–0.57 % is the size of a whole top-3 % set of q, k, v and o; a set of 0.3 % of the neurons trains less.
So the real figure is counted for every delta file and card.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from ssn_probe.model.families import family_of
from ssn_probe.spec import SITES, Site
from ssn_probe.training.weights.adapter import Adapter
from ssn_probe.training.weights.neuron_weights import Neuron, Place, places_of

ALL = "all"


def fraction(module: Any, neurons: Iterable[Neuron]) -> pl.DataFrame:
    """Neurons and parameters that training these neurons changes.

    One row per site with a neuron, then `all`: `site`, `neurons`, `parameters`, `percent` of all parameters of the
    model (tied ones counted once), `percent_of_site` of the weights that all neurons of the site have in all layers.
    Biases, norms and embeddings are never trained. Raises as `places_of` does.
    """
    places = places_of(module, neurons)
    sites = [site for site in SITES if any(place.site == site for place in places)]
    counts = {site: _counts(module, [place for place in places if place.site == site]) for site in sites}
    return _table(module, counts)


def adapter_fraction(module: Any, adapter: Adapter) -> pl.DataFrame:
    """The same for low-rank adapters, by the site of their matrices; `neurons` is 0."""
    sites = [site for site in SITES if any(part.site == site for part in adapter.parts)]
    counts = {site: (0, sum(part.parameters for part in adapter.parts if part.site == site)) for site in sites}
    return _table(module, counts)


def _table(module: Any, counts: Mapping[Any, tuple[int, int]]) -> pl.DataFrame:
    everything = sum(weight.numel() for weight in module.parameters())
    rows = [(site, *both, _site_size(module, site)) for site, both in counts.items()]
    neurons, parameters = (sum(column) for column in zip(*counts.values(), strict=True))
    rows = [*rows, (ALL, neurons, parameters, sum(_site_size(module, site) for site in SITES))]
    frame = pl.DataFrame(rows, schema=["site", "neurons", "parameters", "of_site"], orient="row")
    return frame.select(
        "site",
        "neurons",
        "parameters",
        percent=100 * pl.col("parameters") / everything,
        percent_of_site=100 * pl.col("parameters") / pl.col("of_site"),
    )


def _counts(module: Any, places: Iterable[Place]) -> tuple[int, int]:
    """Neurons and parameters of the places."""
    neurons = sum(len(place.indices) * place.counts for place in places)
    return neurons, sum(len(place.indices) * _width(module, place) for place in places)


def _width(module: Any, place: Place) -> int:
    outputs, inputs = module.get_submodule(place.module).weight.shape
    return inputs if place.axis == "row" else outputs


def _site_size(module: Any, site: Site) -> int:
    family = family_of(module.config)
    layers, paths = module.get_submodule(family.layers), [path for path, _axis in family.weights[site]]
    return sum(layer.get_submodule(path).weight.numel() for layer in layers for path in paths)
