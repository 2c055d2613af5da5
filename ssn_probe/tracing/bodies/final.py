"""How far the final state moves without each neuron: exact at the neuron's module, sketched downstream (ELSD).

Brute force (`ablation.trace_ablations`) costs a forward pass per neuron. Here one forward pass and k backward passes
serve all of them: for a random read-out r ~ N(0, I) of the state z, the product r · Δz of a silent neuron is normal
with variance ‖Δz‖². To first order in the change of the neuron's module it is Σ_t g_t · Δ_t, g the gradient of r · z.
The mean square of k such products is unbiased for that ‖Δz‖², and its root is low by c_k, by which it is divided.
"""

from functools import partial

import nnsight
import torch

from .encoding import encoded, stacked
from .local import seen_by_attention
from .refusal import absent, first_order
from .site_access import layer_of, part_of, reach, read_whole, token_mask
from .softmax_term import softmax_terms, strongest


def trace_final_effects(model, inputs, places, sketch):
    """√ of the mean over the read tokens of ‖Δz‖², by ELSD: {site: encoded [prompt, layer, neuron]}.

    sketch: {"probes": k, "lowness": c_k, "seeds": one per prompt, "read": how many of its last tokens are read,
    "silent": at how many of them neurons are silent, "exact_qk": the share of the channels of queries and of keys, the
    strongest to first order, whose change of the pattern is exact}. Each read token has probes of its own. Of ffn, o
    and v the change is exact as it is: what they had is gone.
    """
    sites = list(places["sites"])
    softmax = bool({"q", "k"} & set(sites))
    wanted = {*sites, *(["o"] if softmax else [])}  # the gradient of an attention pattern is made from that of o
    products, kept, seen = {}, {}, []
    with torch.enable_grad(), model.trace(**inputs):
        mask = token_mask(model)
        silent = last_tokens(sketch["silent"], mask)
        elsewhere = absent(silent)
        first = layer_of(model, places, 0).input.requires_grad_(True)
        for layer in range(places["depth"]):
            envoy = layer_of(model, places, layer)
            if softmax:  # it reads queries, keys and values, in this order
                hooked = partial(watched, places=places, elsewhere=elsewhere, products=products, layer=layer)
                seen.append(seen_by_attention(envoy, places, layer, mask, hooked))
            for site, place in places["modules"].items():
                if site not in wanted or (softmax and site in ("q", "k", "v")):
                    continue
                kept[layer, site] = [] if softmax and site == "o" else None
                watched(envoy, place, places, elsewhere, products, layer, kept[layer, site])
        states = reach(model, places["norm"]).output[:, -max(sketch["read"]) :]
        sketch_with(states, first, sketch)
        layers = []
        for layer in range(places["depth"]):
            found = {site: torch.stack(products.pop((layer, site))) for site in sites}  # [probe prompt neuron]
            if seen:
                mend(found, seen[layer], kept.pop((layer, "o")), silent, sketch["exact_qk"])
            layers.append({site: encoded(norm_of(found[site], sketch)) for site in sites})
        effects = nnsight.save({site: stacked([layer[site] for layer in layers]) for site in sites})
    return effects  # noqa: RET504 (the name is bound when the trace has run)


def watched(envoy, place, places, elsewhere, products, layer, gradients=None):
    """Reads a site's activation, off the graph; `keep_product` will be told its gradients."""
    whole = read_whole(envoy, place)  # what follows does not depend on a view of it, which has no gradient
    activation = part_of(whole, place).detach()
    site = next(name for name, other in places["modules"].items() if other == place)
    scored = site in places["sites"]
    if scored:
        products[layer, site] = []
    if scored or gradients is not None:
        found = products[layer, site] if scored else None
        whole.register_hook(partial(keep_product, found, gradients, place, activation, elsewhere))
    return activation


def sketch_with(states, first, sketch):
    """One backward pass per probe. The hooks keep what each has found; nothing is accumulated."""
    for probe, noise in enumerate(noises(states, sketch)):
        last = probe == sketch["probes"] - 1
        torch.autograd.grad(states, first, noise, retain_graph=not last)


def noises(states, sketch):
    """Probe by probe, N(0, I) at every read token of every prompt, elsewhere 0: [prompt token channel].

    Each prompt has a generator of its own, so that its probes depend on nothing that it runs with.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in sketch["seeds"]]
    for _ in range(sketch["probes"]):
        noise = torch.zeros(states.shape, dtype=torch.float32)
        for row, (generator, read) in enumerate(zip(generators, sketch["read"], strict=True)):
            noise[row, -read:] = torch.randn(read, states.shape[-1], generator=generator)
        yield noise.to(states.device, states.dtype)


def last_tokens(counts, mask):
    """The last so many tokens of every prompt: [prompt, token], bool."""
    width = mask.shape[1]
    counts = torch.as_tensor(counts, device=mask.device)[:, None]
    return mask & (torch.arange(width, device=mask.device) >= width - counts)


def keep_product(products, gradients, place, activation, elsewhere, gradient):
    """Called with a gradient while it goes back: keeps Σ_t g · a, and, where it is asked for, the gradient itself."""
    if products is not None:
        products.append(first_order(activation, part_of(gradient, place), elsewhere, 1))
    if gradients is not None:
        gradients.append(part_of(gradient, place).detach())


def mend(found, seen, gradients, silent, share):
    """Puts the exact term of the strongest q and k, by first order, in the place of their products."""
    chosen = {site: strongest(found[site].square().mean(0), share) for site in ("q", "k") if site in found}
    # what falls silent is taken away: −Σ g · a to first order
    for site, terms in softmax_terms(seen, chosen, gradients, silent).items():
        found[site] = torch.where(chosen[site], terms, found[site])


def norm_of(products, sketch):
    """√(mean of squares) / c_k, as a mean over the read tokens: [prompt neuron]."""
    read = torch.as_tensor(sketch["read"], device=products.device, dtype=products.dtype)[:, None]
    return (products.square().mean(0) / read).sqrt() / sketch["lowness"]
