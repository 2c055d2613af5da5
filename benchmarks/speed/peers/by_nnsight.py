"""nnsight written by hand: a trace that names the modules, as its tutorials do, and none of this package's bodies."""

import warnings
from typing import Any

import nnsight
import torch
from torch import Tensor

from benchmarks.hooks import Place
from benchmarks.models import Case
from benchmarks.speed import peers, plain
from benchmarks.speed.peers import Works
from benchmarks.speed.plain import Inputs
from ssn_probe.tracing.execution import OPEN_LOOP


def works(case: Case, inputs: Inputs) -> Works:
    model, layers = case.subject.model, range(case.subject.n_layers)
    norms = [peers.column_norms(case, layer) for layer in layers]
    index = peers.silenced(case)

    def sizes(batch: dict[str, Any]) -> dict[Place, Tensor]:
        with torch.no_grad(), model.trace(**batch, use_cache=False, logits_to_keep=plain.last(batch)):
            found = nnsight.save(
                [
                    peers.mean_size(
                        model.model.layers[layer].mlp.down_proj.input, norms[layer], batch["attention_mask"]
                    )
                    for layer in layers
                ]
            )
        return {(layer, "ffn"): found[layer] for layer in layers}

    def log_odds() -> Tensor:
        found = []
        for batch in inputs:
            with torch.no_grad(), model.trace(**batch, use_cache=False, logits_to_keep=plain.last(batch)):
                _silence(model, index)
                logits = nnsight.save(model.output.logits[:, -1])
            found.append(peers.log_odds(case, logits))
        return torch.cat(found)

    def generate(input_ids: Tensor, attention_mask: Tensor, **settings: Any) -> Tensor:
        warnings.filterwarnings("ignore", message=OPEN_LOOP)
        with model.generate(**settings) as tracer:
            with tracer.invoke(input_ids=input_ids, attention_mask=attention_mask):
                for _step in tracer.iter[:]:
                    _silence(model, index)
            with tracer.invoke():
                ids = nnsight.save(tracer.result)
        return ids

    return {
        "ffn": lambda: peers.joined([sizes(batch) for batch in inputs]),
        "attribution": lambda: peers.joined([_attribution(case, batch) for batch in inputs]),
        "log_odds": log_odds,
        "responses": lambda: plain.responses(case, inputs, generate),
    }


def _read(layer: Any, site: str) -> Any:
    match site:
        case "q":
            return layer.self_attn.q_proj.output
        case "k":
            return layer.self_attn.k_proj.output
        case "v":
            return layer.self_attn.v_proj.output
        case "o":
            return layer.self_attn.o_proj.input
    return layer.mlp.down_proj.input


def _silence(model: Any, index: dict[Place, Tensor]) -> None:
    for (layer, site), neurons in index.items():
        peers.silence(neurons, _read(model.model.layers[layer], site))


def _attribution(case: Case, batch: dict[str, Any]) -> dict[Place, Tensor]:
    model, places, mask = case.subject.model, peers.all_places(case), batch["attention_mask"]
    with torch.enable_grad(), model.trace(**batch, use_cache=False, logits_to_keep=plain.last(batch)):
        model.model.layers[0].input.requires_grad_(True)
        seen = [_read(model.model.layers[layer], site) for layer, site in places]
        odds = peers.log_odds(case, model.output.logits[:, -1])
        gradients = torch.autograd.grad(odds.sum(), seen)
        found = nnsight.save([peers.product(one, other, mask) for one, other in zip(seen, gradients, strict=True)])
    return dict(zip(places, found, strict=True))
