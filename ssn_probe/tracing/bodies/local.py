"""The local effect of every neuron of every layer, in one forward pass."""

import nnsight
import torch

from .attention_form import allowed_pairs, score_effects
from .closed_form import linear_effects, measure, token_weights, value_effects
from .site_access import layer_of, reach, read, token_mask


def measure_weights(model, places):
    """`closed_form.measure` of every layer, once for all batches."""
    with torch.no_grad():
        return [measure(layer_of(model, places, layer), places) for layer in range(places["depth"])]


def trace_local_effects(model, inputs, places, known, position):
    """{site: [prompt, layer, neuron]}: ‖Δ output of the module‖, averaged over real tokens or at the last one.

    known: see `measure_weights`, measured in the trace where it is empty; position: "mean" or "last". The pass runs to
    its end: `tracer.stop()` ends it with an exception whose traceback keeps every activation of the batch alive until
    Python next looks for cycles.
    """
    with torch.no_grad(), model.trace(**inputs):
        mask = token_mask(model)
        weight = token_weights(mask, position)
        known = known or [measure(layer_of(model, places, layer), places) for layer in range(places["depth"])]
        angles = reach(model, places["rotary"]).output if "gram" in known[0] else None
        layers = [
            layer_effects(layer_of(model, places, layer), places, angles, mask, weight, known[layer])
            for layer in range(places["depth"])
        ]
        effects = nnsight.save({site: torch.stack([layer[site] for layer in layers], 1) for site in layers[0]})
    return effects  # noqa: RET504 (the name is bound when the trace has run)


def layer_effects(layer, places, angles, mask, weight, known):
    """The effects of one layer, read in forward order: {site: [prompt, neuron]}."""
    sites, effects = places["sites"], {}
    scored = [site for site in ("q", "k") if site in sites]
    if scored:
        seen = seen_by_attention(layer, places, angles, mask)
        effects |= score_effects(seen, known["gram"], weight, scored)
    if "v" in sites or "o" in sites:
        heads = read(layer, places["modules"]["o"])
        if "v" in sites:
            effects["v"] = value_effects(heads, known["v"], weight)
        if "o" in sites:
            effects["o"] = linear_effects(heads, known["o"], weight)
    if "ffn" in sites:
        effects["ffn"] = linear_effects(read(layer, places["modules"]["ffn"]), known["ffn"], weight)
    return effects


def seen_by_attention(layer, places, angles, mask):
    """What decides the attention pattern, as `attention_form.heads_of` takes it; read in forward order."""
    attention, norms = reach(layer, places["attention"]), places["head_norms"]
    pattern = attention.inputs[1]["attention_mask"]
    seen = {"eps": getattr(reach(layer, norms["q"]), places["norm_eps"]) if norms else None}
    for site in "qkv":
        seen[site] = read(layer, places["modules"][site])
        if norms and site != "v":
            seen[f"{site}_normed"] = reach(layer, norms[site]).output
    return seen | {
        "cos": angles[0],
        "sin": angles[1],
        "pairs": allowed_pairs(pattern, mask),
        "scale": attention.scaling,
        "cap": getattr(attention, places["score_cap"]) if places["score_cap"] else None,
    }
