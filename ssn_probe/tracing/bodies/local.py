"""The local effect of every neuron of every layer, in one forward pass."""

import nnsight
import torch
from einops import rearrange

from .attention_form import allowed_pairs, score_effects
from .chosen_channels import screened_effects
from .closed_form import exact, linear_effects, measure, token_weights, value_effects
from .encoding import encoded, stacked
from .site_access import layer_of, reach, read, token_mask


def measure_weights(model, places, known=()):
    """`closed_form.measure` of every layer, once for all batches, but for what would take as much room as weights.

    known: by layer, what was measured before.
    """
    small = ("ffn", "o", "v", "gram", "probes")
    with torch.no_grad():
        return [
            measure(layer_of(model, places, layer), places, known[layer] if known else {}, small)
            for layer in range(places["depth"])
        ]


def trace_weights(model, inputs, places):
    """What of `measure_weights` is small enough to travel, measured within a trace: column norms and equal channels."""
    with torch.no_grad(), model.trace(**inputs):
        known = nnsight.save(
            [measure(layer_of(model, places, layer), places, {}, ("ffn", "o", "v")) for layer in range(places["depth"])]
        )
    return known  # noqa: RET504 (the name is bound when the trace has run)


def trace_local_effects(model, inputs, places, known, position, exact_qk=1.0):
    """{site: encoded effects [prompt, layer, neuron]}: ‖Δ output of the module‖, over real tokens or at the last one.

    known: see `measure_weights`; what it lacks is measured in the trace; position: "mean" or "last"; exact_qk: the
    share of each prompt's q and k neurons whose effects are exact, see `chosen_channels`. The pass runs to its end:
    `tracer.stop()` ends it with an exception whose traceback keeps every activation of the batch alive until Python
    next looks for cycles.
    """
    with torch.no_grad(), model.trace(**inputs):
        mask = token_mask(model)
        weight = token_weights(mask, position)
        layers = []
        for layer in range(places["depth"]):
            envoy = layer_of(model, places, layer)
            own = measure(envoy, places, known[layer] if known else {})
            found = layer_effects(envoy, places, layer, mask, weight, own, exact_qk)
            layers.append({site: encoded(effect) for site, effect in found.items()})
        effects = nnsight.save({site: stacked([layer[site] for layer in layers]) for site in layers[0]})
    return effects  # noqa: RET504 (the name is bound when the trace has run)


def layer_effects(layer, places, number, mask, weight, known, exact_qk):
    """The effects of a layer, read in forward order: {site: [prompt, neuron]}.

    Where a norm is over all heads together, every channel moves every head, and q and k are exact whatever `exact_qk`.
    """
    sites, effects = places["sites"], {}
    scored = [site for site in ("q", "k") if site in sites]
    if scored:
        seen = seen_by_attention(layer, places, number, mask)
        if exact_qk == 1 or seen["together"]:
            effects |= score_effects(seen, known, weight, scored)
        else:
            effects |= screened_effects(seen, known, weight, scored, exact_qk)
    if "v" in sites or "o" in sites:
        heads = read(layer, places["modules"]["o"])
        if "v" in sites:
            effects["v"] = value_effects(heads, known["v"], weight)
        if "o" in sites:
            effects["o"] = linear_effects(heads, known["o"], weight)
    if "ffn" in sites:
        effects["ffn"] = linear_effects(read(layer, places["modules"]["ffn"]), known["ffn"], weight)
    return effects


def seen_by_attention(layer, places, number, mask, read=read):
    """What decides the attention pattern, as `attention_form.heads_of` takes it; read in forward order, by `read`."""
    given = reach(layer, places["attention"]).inputs[1]
    cos, sin = given["position_embeddings"]
    seen = {**places["scores"][number], "cos": cos, "sin": sin, "pairs": allowed_pairs(given["attention_mask"], mask)}
    seen |= {"heads": places["heads"], "rotation": places["rotation"], "together": places["norm_over"] == "all heads"}
    if seen["growth"] is not None:
        seen["growth"] = growth(given["position_ids"], *seen["growth"])
    for site in "qkv":
        seen[site] = read(layer, places["modules"][site])
        if seen["eps"] is not None and site != "v":
            seen |= normed(reach(layer, places["head_norms"][site]), seen[site], site, places)
    return seen


def growth(positions, beta, length):
    """What queries are multiplied by at their positions (`llama_4_scaling_beta`)."""
    return 1 + beta * torch.log(1 + torch.floor(positions / length))


def normed(norm, raw, site, places):
    """What a norm makes of queries or keys [b t n], and, if it takes away the mean, what it multiplies by [head d].

    The norm is called: where it is called in the model, its output may have another order, or a part of the heads.
    """
    size = places["heads"][2]
    if places["norm_over"] == "all heads":
        return {f"{site}_normed": norm(raw)}
    found = {f"{site}_normed": rearrange(norm(rearrange(raw, "b t (h d) -> b t h d", d=size)), "b t h d -> b t (h d)")}
    if places["norm_centred"]:
        found[f"{site}_weight"] = learned_weight(norm, raw, size)
    return found


def learned_weight(norm, raw, size):
    """What a LayerNorm multiplies by [head d], which a job may not be able to read: what it makes of a known vector.

    So long that what keeps it from dividing by zero is lost in rounding; the mean of its channels is taken away here.
    """
    known = torch.full((1, 1, raw.shape[-1] // size, size), 64.0, dtype=raw.dtype, device=raw.device)
    known[..., 1::2] *= -1
    made = exact(known) - exact(known).mean(-1, keepdim=True)
    return (exact(norm(known)) / (made / made.square().mean(-1, keepdim=True).sqrt()))[0, 0]
