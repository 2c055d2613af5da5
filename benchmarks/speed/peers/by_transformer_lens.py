"""TransformerLens (4: TransformerBridge) on the same weights, unfolded, with its hooks and its cache."""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]

from benchmarks.hooks import Place
from benchmarks.models import Case, twin
from benchmarks.speed import peers, plain
from benchmarks.speed.peers import Works
from benchmarks.speed.plain import Inputs

NAMES = {"q": "attn.q.hook_out", "k": "attn.k.hook_out", "v": "attn.v.hook_out", "o": "attn.o.hook_in"}


def works(case: Case, inputs: Inputs) -> Works:
    warnings.filterwarnings("ignore", message=".*`past_key_values` is deprecated")
    subject, module = case.subject, twin(case.plain)
    module.set_attn_implementation("eager")  # what it loads itself has it
    bridge = TransformerBridge.boot_transformers(
        subject.name,
        hf_model=module,
        tokenizer=subject.tokenizer,
        device=str(subject.device),
        dtype=getattr(torch, subject.identity["dtype"]),
    )
    layers = range(subject.n_layers)
    for layer in layers:
        bridge.blocks[layer].attn.register_forward_pre_hook(_with_cache, with_kwargs=True)
    norms, index = [peers.column_norms(case, layer) for layer in layers], peers.silenced(case)
    silencing = [(_name(place), partial(_silence, neurons)) for place, neurons in index.items()]

    @torch.no_grad()
    def sizes(batch: dict[str, Any]) -> dict[Place, Tensor]:
        found: dict[Place, Tensor] = {}

        def at(activation: Tensor, hook: Any, place: Place) -> None:
            found[place] = peers.mean_size(activation, norms[place[0]], batch["attention_mask"])

        hooks = [(_name((layer, "ffn")), partial(at, place=(layer, "ffn"))) for layer in layers]
        with bridge.hooks(fwd_hooks=hooks):
            _forward(bridge, batch)
        return found

    @torch.no_grad()
    def log_odds() -> Tensor:
        with bridge.hooks(fwd_hooks=silencing):
            return torch.cat([peers.log_odds(case, _forward(bridge, batch)) for batch in inputs])

    def generate(input_ids: Tensor, attention_mask: Tensor, max_new_tokens: int, **_settings: Any) -> Tensor:
        with bridge.hooks(fwd_hooks=silencing):
            return bridge.generate(
                input_ids,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                stop_at_eos=bool(subject.eos_ids),
                return_type="tokens",
                attention_mask=attention_mask,
                verbose=False,
            )

    return {
        "ffn": lambda: peers.joined([sizes(batch) for batch in inputs]),
        "attribution": lambda: peers.joined([_attribution(case, bridge, batch) for batch in inputs]),
        "log_odds": log_odds,
        "responses": lambda: plain.responses(case, inputs, generate),
    }


def _with_cache(_module: Any, given: Any, named: dict[str, Any]) -> Any:
    """4.3.0 looks for the cache under the name that it had before transformers 5.24, and would do without."""
    return given, named | ({"past_key_values": named["cache"]} if named.get("cache") is not None else {})


def _name(place: Place) -> str:
    layer, site = place
    return f"blocks.{layer}.{NAMES.get(site, 'mlp.out.hook_in')}"


def _silence(index: Tensor, activation: Tensor, hook: Any) -> Tensor:
    flat = activation.flatten(2)  # queries, keys and values come by heads
    peers.silence(index, flat)
    return flat.view_as(activation)


def _forward(bridge: Any, batch: dict[str, Any]) -> Tensor:
    """All positions have logits: its forward pass has no other."""
    return bridge(batch["input_ids"], attention_mask=batch["attention_mask"], return_type="logits")[:, -1]


def _attribution(case: Case, bridge: Any, batch: dict[str, Any]) -> dict[Place, Tensor]:
    """Hooks on the way forward keep the activations, hooks on the way back the gradients."""
    places, mask = peers.all_places(case), batch["attention_mask"]
    seen: dict[Place, Tensor] = {}
    found: dict[Place, Tensor] = {}

    def keep(activation: Tensor, hook: Any, place: Place) -> None:
        seen[place] = activation.flatten(2)  # queries, keys and values come by heads

    def multiply(gradient: Tensor, hook: Any, place: Place) -> None:
        found[place] = peers.product(seen[place], gradient.flatten(2), mask)

    begin = ("embed.hook_out", lambda made, hook: made.requires_grad_(True))  # the weights are frozen
    forth = [begin, *_hooks(places, keep)]
    with torch.enable_grad(), bridge.hooks(fwd_hooks=forth, bwd_hooks=_hooks(places, multiply)):
        peers.log_odds(case, _forward(bridge, batch)).sum().backward()
    return {place: found[place] for place in places}


def _hooks(places: list[Place], at: Any) -> list[Any]:
    return [(_name(place), partial(at, place=place)) for place in places]
