"""The local effect of every neuron of every layer, in one forward pass."""

import nnsight
import torch

from .attention_form import allowed_pairs, score_effects
from .closed_form import linear_effects, measure, token_weights, value_effects
from .encoding import encoded, stacked
from .site_access import all_heads, layer_of, reach, read, token_mask


def measure_weights(model, places):
    """`closed_form.measure` of every layer, once for all batches."""
    with torch.no_grad():
        return [measure(layer_of(model, places, layer), places, {}) for layer in range(places["depth"])]


def trace_weights(model, inputs, places):
    """What of `measure_weights` is small enough to travel, measured within a trace: column norms and equal channels."""
    with torch.no_grad(), model.trace(**inputs):
        known = nnsight.save(
            [measure(layer_of(model, places, layer), places, {}, ("ffn", "o", "v")) for layer in range(places["depth"])]
        )
    return known  # noqa: RET504 (the name is bound when the trace has run)


def trace_local_effects(model, inputs, places, known, position):
    """{site: encoded effects [prompt, layer, neuron]}: ‖Δ output of the module‖, over real tokens or at the last one.

    known: see `measure_weights`; what it lacks is measured in the trace; position: "mean" or "last". The pass runs to
    its end: `tracer.stop()` ends it with an exception whose traceback keeps every activation of the batch alive until
    Python next looks for cycles.
    """
    with torch.no_grad(), model.trace(**inputs):
        mask = token_mask(model)
        weight = token_weights(mask, position)
        layers = []
        for layer in range(places["depth"]):
            envoy = layer_of(model, places, layer)
            own = measure(envoy, places, known[layer] if known else {})
            found = layer_effects(envoy, places, layer, mask, weight, own)
            layers.append({site: encoded(effect) for site, effect in found.items()})
        effects = nnsight.save({site: stacked([layer[site] for layer in layers]) for site in layers[0]})
    return effects  # noqa: RET504 (the name is bound when the trace has run)


def layer_effects(layer, places, number, mask, weight, known):
    """The effects of a layer, read in forward order: {site: [prompt, neuron]}."""
    sites, effects = places["sites"], {}
    scored = [site for site in ("q", "k") if site in sites]
    if scored:
        seen = seen_by_attention(layer, places, number, mask)
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


def seen_by_attention(layer, places, number, mask):
    """What decides the attention pattern, as `attention_form.heads_of` takes it; read in forward order."""
    given, norms = reach(layer, places["attention"]).inputs[1], places["head_norms"]
    pattern, angles = given["attention_mask"], given["position_embeddings"]
    scale, cap, eps = (places["scores"][number][name] for name in ("scale", "cap", "eps"))
    seen = {"eps": eps}
    for site in "qkv":
        seen[site] = read(layer, places["modules"][site])
        if eps is not None and site != "v":
            seen[f"{site}_normed"] = all_heads(layer, places["modules"][site][0], reach(layer, norms[site]).output)
    pairs = allowed_pairs(pattern, mask)
    return seen | {"cos": angles[0], "sin": angles[1], "pairs": pairs, "scale": scale, "cap": cap}
