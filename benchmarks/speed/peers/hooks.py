"""Plain torch hooks: the least that does the work, and what every tool below has underneath."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.hooks import At, Place, hooked
from benchmarks.models import Case
from benchmarks.speed import peers, plain
from benchmarks.speed.peers import Works
from benchmarks.speed.plain import Inputs


def works(case: Case, inputs: Inputs) -> Works:
    norms = [peers.column_norms(case, layer) for layer in range(case.subject.n_layers)]
    silent = partial(
        _hooked, case, {place: partial(peers.silence, index) for place, index in peers.silenced(case).items()}
    )

    def log_odds() -> Tensor:
        with silent():
            return peers.log_odds(case, plain.forward(case, inputs))

    def responses() -> list[str]:
        with silent():
            return plain.responses(case, inputs)

    return {
        "ffn": lambda: peers.joined([_sizes(case, batch, norms) for batch in inputs]),
        "attribution": lambda: peers.joined([_attribution(case, batch) for batch in inputs]),
        "log_odds": log_odds,
        "responses": responses,
    }


def _hooked(case: Case, changes: Mapping[Place, At]) -> Any:
    return hooked(case.plain, case.subject.family, changes)


def _sizes(case: Case, batch: dict[str, Any], norms: list[Tensor]) -> dict[Place, Tensor]:
    found: dict[Place, Tensor] = {}

    def at(place: Place, activation: Tensor) -> None:
        found[place] = peers.mean_size(activation, norms[place[0]], batch["attention_mask"])

    layers = range(case.subject.n_layers)
    with _hooked(case, {(layer, "ffn"): partial(at, (layer, "ffn")) for layer in layers}):
        plain.forward(case, [batch])
    return found


def _attribution(case: Case, batch: dict[str, Any]) -> dict[Place, Tensor]:
    """The embeddings' output begins the graph; gradients of all places at once."""
    seen: dict[Place, Tensor] = {}
    begin = case.plain.get_input_embeddings().register_forward_hook(lambda _m, _given, made: made.requires_grad_(True))
    try:
        with (
            torch.enable_grad(),
            _hooked(case, {place: partial(seen.__setitem__, place) for place in peers.all_places(case)}),
        ):
            logits = case.plain(**batch, use_cache=False, logits_to_keep=plain.last(batch)).logits[:, -1]
            odds = peers.log_odds(case, logits)
    finally:
        begin.remove()
    gradients = torch.autograd.grad(odds.sum(), list(seen.values()))
    mask = batch["attention_mask"]
    return {place: peers.product(seen[place], one, mask) for place, one in zip(seen, gradients, strict=True)}
