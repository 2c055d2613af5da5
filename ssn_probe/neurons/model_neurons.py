"""Neuron sets beside all the neurons of a model, whose number in every (layer, site) is its *width*."""

from collections.abc import Iterable, Mapping

import polars as pl

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons.neuron_set import EVERY, NeuronSet, neuron_set

Widths = Mapping[tuple[int, str], int]
"""(layer, site) → how many neurons the model has there."""


def width_table(widths: Widths) -> pl.DataFrame:
    """The widths as a table: `layer, site, width`."""
    schema = {"layer": pl.Int32, "site": pl.String, "width": pl.Int64}
    return pl.DataFrame([(*place, width) for place, width in widths.items()], schema=schema, orient="row")


def check_places(neurons: NeuronSet, widths: Widths) -> None:
    """Raises RecipeError for a neuron that the model does not have, as in a file made for a different model."""
    largest = neurons.frame.group_by("layer", "site").agg(pl.col("index").max())
    for layer, site, index in largest.iter_rows():
        if index >= widths.get((layer, site), 0):
            raise RecipeError(
                f"the set has the neuron (layer {layer}, {site}, {index}), which the model does not have",
                "Was the set made for a different model?",
            )


def check_trained(neurons: NeuronSet, widths: Widths) -> None:
    """Before training: raises DataError for an empty set, RecipeError for neurons that the model does not have."""
    if not len(neurons):
        raise DataError("the set of neurons to train is empty", "Raise top, or subtract fewer neurons from it.")
    check_places(neurons, widths)


def check_feed_forward(sites: Iterable[str]) -> None:
    """Raises RecipeError for neurons of another site than ffn, whose rows of gate and up alone can be changed."""
    if others := sorted(set(sites) - {"ffn"}):
        raise RecipeError(
            f"only feed-forward neurons can be changed in this way, and the set has neurons at {', '.join(others)}",
            "Take those at ffn: set.only(sites=['ffn']).",
        )


def whole_layers(neurons: NeuronSet, widths: Widths) -> NeuronSet:
    """Every neuron of the layers in which the set has one in any language, language-free and without scores."""
    check_places(neurons, widths)
    touched = set(neurons.frame["layer"])
    rows = [
        (EVERY, layer, site, index, None)
        for (layer, site), width in widths.items()
        if layer in touched
        for index in range(width)
    ]
    return neuron_set(rows)
