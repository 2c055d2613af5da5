"""How others find neurons, written down from their papers as functions of the same prompts: each a ranking.

A method takes `Given` and returns site → [layer, neuron], higher is more of a safety neuron. What a paper defines for
one language is computed for each, and averaged over languages. Papers define neurons of other places than the
organisms are planted in (rows of `up_proj`, `q`, `k`, `v`); every definition is applied to the channels that `o_proj`
and `down_proj` read, where a row of `up_proj` is the same neuron as its column of `down_proj`.

`METHODS` says what each costs in forward passes per prompt, a backward pass counting two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.identification.peers.by_activation import (
    activation_size,
    effect_size,
    nest,
    plnd,
    refusal_direction,
    safeneuron,
    summed_up_projection,
)
from benchmarks.identification.peers.by_gradient import (
    attribution,
    attribution_to_mean,
    coalition_gradient,
    half_scale,
    integrated_gradients,
    loss_gradient,
)
from benchmarks.identification.peers.given import Given, Ranking


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method, and its forward passes per prompt (a function of the number of layers times sites)."""

    rank: Callable[[Given], Ranking]
    forwards: Callable[[int], float]


def _method(rank: Callable[..., Ranking], forwards: float, per_place: float = 0, **options: str | bool) -> Method:
    return Method(rank=partial(rank, **options), forwards=lambda places: forwards + per_place * places)


METHODS: Mapping[str, Method] = {
    "activation size": _method(activation_size, 1),
    "Σ |up|": _method(summed_up_projection, 1),
    "PLND, SN-Tune": _method(plnd, 1),
    "RSN-Tune": _method(plnd, 1, foundation=True),
    "gradient × activation of the loss": _method(loss_gradient, 3),
    "effect size": _method(effect_size, 1),
    "SafeNeuron": _method(safeneuron, 1),
    "NeST": _method(nest, 1),
    "refusal direction": _method(refusal_direction, 1),
    "attribution to the harmless mean": _method(attribution_to_mean, 3),
    **{
        f"{name}, {sign}": _method(rank, forwards, per_place, rule=rule)
        for name, rank, forwards, per_place in (
            ("attribution to zero", attribution, 3, 0),
            ("integrated gradients", integrated_gradients, 0, 24),
            ("half-scale", half_scale, 6, 0),
            ("coalition gradient", coalition_gradient, 27, 0),
        )
        for sign, rule in (("h", "harmful"), ("h − b", "difference"))
    },
}
"""Every method by its name in the table."""
