"""The refusal log-odds r(x), and its signed first-order share of every neuron.

Rows of a batch are prompt-major: the rows of one prompt are its teacher-forced sequences, prompt + prefix of an
opening, padded left. `scoring` is plain data: `{"sequences": n, "row", "position", "token", "opening": one entry per
scored token, "refusal": n_refusal, "openings": n}`. `position` counts within the kept last positions; refusal
openings are numbered first. With `{"sequences": 1, "direction": [hidden]}` r(x) is the final state's component along a
direction instead.
"""

import math
from functools import partial

import nnsight
import torch
from einops import rearrange, reduce

from .below import write_above
from .encoding import encoded, stacked
from .local import seen_by_attention
from .site_access import layer_of, multiply, part_of, reach, read_whole, run_narrowed, token_mask, write_narrowed
from .softmax_term import softmax_terms, strongest
from .start import behind_start


def log_odds(logits, scoring):
    """r(x) = logsumexp over refusal openings of log p(opening | x) − the same over compliant ones: [prompt].

    logits: [prompt × sequence, kept position, vocabulary]. An opening of several tokens is the sum of its tokens'
    log-probabilities.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    device = logits.device
    row, position, token, opening = (
        torch.as_tensor(scoring[name], device=device) for name in ("row", "position", "token", "opening")
    )
    logits = rearrange(
        logits, "(prompt sequence) kept word -> prompt sequence kept word", sequence=scoring["sequences"]
    )
    normaliser = logits.logsumexp(-1)
    scored = logits[:, row, position, token] - normaliser[:, row, position]  # [prompt, scored token]
    total = scored.new_zeros(len(scored), scoring["openings"]).index_add(1, opening, scored)
    refusal, compliant = total[:, : scoring["refusal"]], total[:, scoring["refusal"] :]
    return refusal.logsumexp(-1) - compliant.logsumexp(-1)


def along(states, direction):
    """r(x) of a direction: the last token's state, after the final norm, times it: [prompt]."""
    last = states[:, -1] if states.dtype == torch.float64 else states[:, -1].float()
    return last @ torch.as_tensor(direction, device=last.device, dtype=last.dtype)


def read_out(model, places, scoring):
    """r(x) of every prompt of the running batch, by openings or along a direction: [prompt]."""
    if "direction" in scoring:
        return along(reach(model, places["norm"]).output, scoring["direction"])
    return log_odds(model.output.logits, scoring)


def trace_states(model, inputs, places):
    """The final state of every prompt at its last token, after the final norm: [prompt, hidden]."""
    inputs = behind_start(model, inputs, places, [])
    with torch.no_grad(), model.trace(**inputs):
        write_narrowed(model, places, [], inputs["logits_to_keep"])
        states = nnsight.save(reach(model, places["norm"]).output[:, -1])
    return states  # noqa: RET504 (the name is bound when the trace has run)


def trace_log_odds(model, inputs, places, edits, scoring, stages=None):
    """r(x) of every prompt of a batch, with neurons changed: [prompt]. stages: of `below.trace_below`."""
    inputs = behind_start(model, inputs, places, edits, stages)
    with torch.no_grad(), model.trace(**inputs):
        write_above(model, places, edits, stages[0] if stages else None, inputs["logits_to_keep"])
        odds = nnsight.save(read_out(model, places, scoring))
    return odds  # noqa: RET504 (the name is bound when the trace has run)


def trace_refusal_effects(model, inputs, places, scoring, at=1.0, candidates=1.0, exact_qk=0.0):
    """What r loses without each neuron, to first order: ({site: encoded [prompt, layer, neuron]}, r: [prompt]).

    That is Σ over tokens of ∂r/∂a · a. One forward and one backward pass; where `at` is not 1 once more, with the
    prompt's candidates, that share of every (layer, site), scaled to `at` at every token. These gradients are
    multiplied with the activations of the first pass. Of q and k a share of `exact_qk`, the prompt's strongest of every
    layer, has its change of the attention pattern exact, see `mend`.
    """
    softmax = exact_qk > 0 and bool({"q", "k"} & set(places["sites"]))
    first = last = differentiated(model, inputs, places, scoring, seeing=softmax, keeping=softmax and at == 1)
    if at != 1:
        factors = {place: scaled_down(share, at, candidates) for place, share in first["shares"].items()}
        last = differentiated(model, inputs, places, scoring, factors, first["values"], keeping=softmax)
    first.pop("values").clear()  # of which what follows takes queries, keys and values alone, and has them
    layers = []
    for layer in range(places["depth"]):
        shares = {site: last["shares"][layer, site] for site in places["sites"]}
        if softmax:
            arrived = last["gradients"].pop(layer)
            mend(shares, first["seen"][layer], arrived, first["mask"], exact_qk, scoring["sequences"])
        layers.append({site: encoded(share) for site, share in shares.items()})
    return {site: stacked([layer[site] for layer in layers]) for site in places["sites"]}, first["odds"]


def differentiated(model, inputs, places, scoring, factors=None, unscaled=None, *, seeing=False, keeping=False):
    """A pass each way. "shares": {(layer, site): Σ over tokens of ∂r/∂a · a, [prompt, neuron]}; "values": a; "odds": r.

    The parameters are frozen: making the first layer's input require a gradient is what puts the activations, and
    nothing else, on the graph, and the gradient goes back as far as those of the first layer. It is multiplied with an
    activation as soon as it is there, and kept no longer, but for those at the input of o_proj with `keeping`:
    "gradients", by layer. With `seeing`, "seen" is what decides every pattern.

    Where `places` allow it, see `write_narrowed`, the last layer's queries, output projection and ffn run only at the
    positions that r is read at, the last ones: elsewhere they have no gradient.

    factors: what neurons are multiplied by, [prompt, neuron] each; the gradient is then that of the products, and a is
    `unscaled`.
    """
    seen, begin, kept = [], [], inputs["logits_to_keep"]
    found = {"shares": {}, "values": {} if unscaled is None else unscaled, "gradients": {} if keeping else None}
    with torch.enable_grad(), model.trace(**inputs):
        mask = token_mask(model)
        padding = {width: absent(mask[:, -width:]) for width in (mask.shape[1], len(kept))}
        layer_of(model, places, 0).input.requires_grad_(True)
        for layer in range(places["depth"]):
            envoy = layer_of(model, places, layer)
            narrow = kept if places.get("narrow") and layer == places["depth"] - 1 else None
            scaled = {site: factors[layer, site] for site in places["sites"]} if factors is not None else {}
            watch = partial(watched, places, layer, padding, scoring["sequences"], found, begin)
            visit = partial(visited, places, scaled, scoring["sequences"], narrow, watch)
            if seeing:  # it reads queries, keys and values, in this order
                seen.append(seen_by_attention(envoy, places, layer, mask, visit))
            for site, place in places["modules"].items():
                if seeing and site in ("q", "k", "v"):
                    continue
                within = partial(visit, envoy, place) if site in places["sites"] or (keeping and site == "o") else None
                if narrow is not None and site in ("o", "ffn"):
                    run_narrowed(envoy, place[0] if site == "o" else places["narrow"], narrow, within)
                elif within is not None:
                    within()
        odds = read_out(model, places, scoring)
        torch.autograd.grad(odds.sum(), begin)
        found = nnsight.save(found | {"seen": seen, "mask": mask, "odds": odds.detach()})
    return found  # noqa: RET504 (the name is bound when the trace has run)


def visited(places, factors, sequences, narrow, watch, envoy, place):
    """Watches a site, multiplied if it has a factor; queries that have a module of their own can be narrowed before."""
    site = next(name for name, other in places["modules"].items() if other == place)
    if site == "q" and narrow is not None and len(place) == 2:
        run_narrowed(envoy, place[0], narrow)
    if site in factors:
        multiply(envoy, place, factors[site], sequences)
    return watch(site, envoy, place)


def watched(places, layer, padding, sequences, found, begin, site, envoy, place):
    """Reads a site's activation, off the graph; its gradient is multiplied with it, or kept, once it is there.

    padding: `absent` of the tokens by their number, since a site may run at the last ones alone; begin: where the first
    layer's activations are put, so that gradients are asked for as far as there.
    """
    whole = read_whole(envoy, place)  # what follows does not depend on a view of it, which has no gradient
    activation = part_of(whole, place).detach()
    scored, kept = site in places["sites"], site == "o" and found["gradients"] is not None

    def arrived(gradient):
        """Called while the gradient goes back; changes nothing."""
        gradient = part_of(gradient, place)
        if scored:
            values = found["values"][layer, site]
            found["shares"][layer, site] = first_order(values, gradient, padding[gradient.shape[1]], sequences)
        if kept:
            found["gradients"][layer] = gradient.detach()

    if scored:
        found["values"].setdefault((layer, site), activation)
    if scored or kept:
        whole.register_hook(arrived)
        begin += [whole] if layer == 0 else []
    return activation


def mend(shares, seen, gradient, mask, exact_qk, sequences):
    """Puts the exact term of the strongest q and k in the place of their first-order shares [prompt, neuron].

    It is −Σ_ts ΔA_ts C_ts, see `softmax_term`, of the untouched pass's pattern and values, whatever the pass is whose
    gradient this is; summed over a prompt's sequences.
    """
    chosen = {site: strongest(shares[site].abs(), exact_qk) for site in ("q", "k") if site in shares}
    with torch.no_grad():
        rows = {site: wanted.repeat_interleave(sequences, 0) for site, wanted in chosen.items()}
        for site, [terms] in softmax_terms(seen, rows, [gradient], mask).items():
            lost = -reduce(terms, "(prompt sequence) neuron -> prompt neuron", "sum", sequence=sequences)
            shares[site] = torch.where(chosen[site], lost.to(shares[site].dtype), shares[site])


def scaled_down(share, at, candidates):
    """What the neurons of a prompt are multiplied by: `at` where their shares are largest in size, else 1.

    share: [prompt, neuron]. Of equal ones all are scaled; neurons without effect are not.
    """
    size = share.abs()
    least = size.topk(math.ceil(candidates * size.shape[-1] - 1e-9)).values[..., -1:]
    return torch.where((size >= least) & (size > 0), at, 1.0)


def absent(mask):
    """Where a mask [prompt, token] is false, as `first_order` takes it: rows and tokens."""
    return (~mask).nonzero(as_tuple=True)


def first_order(activation, gradient, padding, sequences):
    """Σ_t ∂r/∂a · a over all tokens but those of the padding, of all sequences of a prompt: [prompt, neuron]."""
    exact = torch.float64 if activation.dtype == torch.float64 else torch.float32
    share = activation.to(exact) * gradient.to(exact)
    share.index_put_(tuple(index.to(share.device) for index in padding), share.new_zeros(()))  # even if it is no number
    return reduce(share, "(prompt sequence) token neuron -> prompt neuron", "sum", sequence=sequences)
