"""pyvene (Wu et al. 2024, 2403.07809): an IntervenableModel with a function at every component."""

import logging
from collections.abc import Callable
from typing import Any

import pyvene  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor

from benchmarks.hooks import Place
from benchmarks.models import Case, twin
from benchmarks.speed import peers, plain
from benchmarks.speed.peers import Works
from benchmarks.speed.plain import Inputs


def works(case: Case, inputs: Inputs) -> Works:
    """Gradients are not read: its functions for them train interventions."""
    logging.getLogger().setLevel(logging.ERROR)
    layers = range(case.subject.n_layers)
    norms, index = [peers.column_norms(case, layer) for layer in layers], peers.silenced(case)
    seen: dict[Place, Tensor] = {}
    mask: list[Tensor] = []

    def measure(place: Place, activation: Tensor) -> None:
        seen[place] = peers.mean_size(activation, norms[place[0]], mask[-1])

    reader = _intervenable(case, [(layer, "ffn") for layer in layers], measure)
    silencer = _intervenable(case, index, lambda place, activation: peers.silence(index[place], activation))

    def sizes(batch: dict[str, Any]) -> dict[Place, Tensor]:
        seen.clear()
        mask[:] = [batch["attention_mask"]]
        _forward(reader, batch)
        return dict(seen)

    def generate(input_ids: Tensor, attention_mask: Tensor, **settings: Any) -> Tensor:
        base = {"input_ids": input_ids, "attention_mask": attention_mask}
        # without locations, and "on the prompt", the functions are called at every token of every step
        return silencer.generate(base, intervene_on_prompt=True, **settings)[1]

    return {
        "ffn": lambda: peers.joined([sizes(batch) for batch in inputs]),
        "log_odds": lambda: torch.cat([peers.log_odds(case, _forward(silencer, batch)) for batch in inputs]),
        "responses": lambda: plain.responses(case, inputs, generate),
    }


def _intervenable(case: Case, places: Any, at: Callable[[Place, Tensor], None]) -> Any:
    """A module of the same weights of its own, since each keeps its hooks."""

    def change(place: Place) -> Callable[..., Tensor]:
        def called(base: Tensor, source: Any = None) -> Tensor:
            at(place, base)
            return base

        return called

    components = [{"component": _component(case, place), "intervention": change(place)} for place in places]
    return pyvene.IntervenableModel(components, twin(case.plain))


def _component(case: Case, place: Place) -> str:
    """The module of a site in pyvene's spelling, such as `model.layers[0].mlp.down_proj.input`."""
    layer, site = place
    path, side = case.subject.family.modules[site]
    return f"{case.subject.family.layers}[{layer}].{path}.{side}"


@torch.no_grad()
def _forward(model: Any, batch: dict[str, Any]) -> Tensor:
    base = {**batch, "logits_to_keep": plain.last(batch)}
    return model(base, use_cache=False)[1].logits[:, -1]
