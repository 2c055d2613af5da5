"""One change for all neurons of a cluster: the parametrisation of NeST (Behrouzi et al. 2026, arXiv 2602.16835).

Feed-forward neurons whose activations on prompts are alike share what is added to their rows of `gate_proj`, and what
is added to their rows of `up_proj`: Δ has one row per cluster, y[rows] += (x Δᵀ)[cluster of each row]. A gradient of a
shared row is the sum over its neurons. As a value the change is a `Delta` like any other, with the same row for all
neurons of a cluster, so that it is written into the weights, and taken out again, as others are; its parameters are
counted as they were trained.

Source: "clusters neurons with similar activation profiles, and trains shared cluster-level updates while freezing the
rest of the model", "folded into the original weights" (abstract, v2). The text that we have is the abstracts of both
versions and summaries by others, which say that candidate *rows of gate and up* are grouped and that the rows of a
group share one increment. It does not say whether a cluster has one vector for both matrices or, as here, one for each,
nor whether `down_proj` takes part, which here is frozen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssn_probe.neurons.model_neurons import check_feed_forward
from ssn_probe.training.weights.delta import Part
from ssn_probe.training.weights.neuron_weights import Neuron, Place, numbers_of
from ssn_probe.training.weights.trainable import Deltas, Hook


def tied_places(places: Sequence[Place]) -> tuple[Place, ...]:
    """The rows of feed-forward neurons, without the columns. Raises RecipeError for neurons of another site."""
    check_feed_forward(place.site for place in places)
    return tuple(place for place in places if place.axis == "row")


class TiedDeltas(Deltas):
    """A change per cluster, zero to begin with: a `Trainable`, like `Deltas`.

    `clusters` gives each neuron's cluster; neurons of one place with the same number share a change.
    """

    def __init__(self, module: Any, places: Sequence[Place], clusters: Mapping[Neuron, int]):
        self.clusters: dict[str, Int[Tensor, " neuron"]] = {}
        for place in places:
            own = [clusters[place.layer, place.site, index] for index in place.indices]
            self.clusters[place.name] = torch.tensor(own).unique(return_inverse=True)[1]
        super().__init__(module, places)

    def changes_at(self, place: Place) -> int:
        """How many changes there are at a place: one per cluster."""
        return int(self.clusters[place.name].max()) + 1

    def hook(self, place: Place) -> Hook:
        """What adds the change of a place to the outputs of its module."""
        delta = self.parameters[place.name]
        numbers = numbers_of(self.module, place, delta.device)
        return tied_hook(delta, numbers, self.clusters[place.name].to(delta.device))

    def part(self, place: Place, values: Tensor) -> Part:
        """The change of a place as a value: the cluster's row for each of its neurons."""
        clusters = self.clusters[place.name]
        return Part(place=place, base=self.base[place.name], change=values[clusters], clusters=clusters.int())


def tied_hook(
    delta: Float[Tensor, "cluster input"], rows: Int[Tensor, " neuron"], clusters: Int[Tensor, " neuron"]
) -> Hook:
    """y[…, rows] += (x Δᵀ)[…, clusters]."""

    def add(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        shared = (x @ delta.to(x.dtype).T).to(output.dtype)
        return output.index_add(-1, rows, shared.index_select(-1, clusters))

    return add
