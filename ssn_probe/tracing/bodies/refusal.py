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
from .site_access import layer_of, multiply, part_of, reach, read_whole, token_mask, write_narrowed
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
    nothing else, on the graph. A gradient is multiplied as soon as it is there, and kept no longer, but for those at
    the input of o_proj with `keeping`: "gradients", by layer. With `seeing`, "seen" is what decides every pattern.

    factors: what neurons are multiplied by, [prompt, neuron] each; the gradient is then that of the products, and a is
    `unscaled`.
    """
    shares, gradients, seen, early = {}, {}, [], ("q", "k", "v") if seeing else ()
    values = {} if unscaled is None else unscaled
    with torch.enable_grad(), model.trace(**inputs):
        mask = token_mask(model)
        first = layer_of(model, places, 0).input.requires_grad_(True)
        for layer in range(places["depth"]):
            envoy = layer_of(model, places, layer)
            kept = gradients if keeping else None
            watch = partial(watched, places, layer, mask, scoring["sequences"], values, shares, kept)
            if seeing:  # it reads queries, keys and values, in this order
                seen.append(seen_by_attention(envoy, places, layer, mask, watch))
            for site, place in places["modules"].items():
                if site in early:
                    continue
                if factors is not None and site in places["sites"]:
                    multiply(envoy, place, factors[layer, site], scoring["sequences"])
                if site in places["sites"] or (keeping and site == "o"):
                    watch(envoy, place)
        odds = read_out(model, places, scoring)
        torch.autograd.grad(odds.sum(), first)
        found = {"shares": shares, "values": values, "seen": seen, "gradients": gradients, "mask": mask}
        found = nnsight.save(found | {"odds": odds.detach()})
    return found  # noqa: RET504 (the name is bound when the trace has run)


def watched(places, layer, mask, sequences, values, shares, gradients, envoy, place):
    """Reads a site's activation, off the graph; its gradient is multiplied with it, or kept, once it is there."""
    whole = read_whole(envoy, place)  # what follows does not depend on a view of it, which has no gradient
    activation = part_of(whole, place).detach()
    site = next(name for name, other in places["modules"].items() if other == place)

    def arrived(gradient):
        """Called while the gradient goes back; changes nothing."""
        gradient = part_of(gradient, place)
        if site in places["sites"]:
            shares[layer, site] = first_order(values[layer, site], gradient, mask, sequences)
        if site == "o" and gradients is not None:
            gradients[layer] = gradient.detach()

    if site in places["sites"]:
        values.setdefault((layer, site), activation)
    if site in places["sites"] or gradients is not None:
        whole.register_hook(arrived)
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


def first_order(activation, gradient, mask, sequences):
    """Σ_t ∂r/∂a · a over the real tokens of all sequences of a prompt: [prompt, neuron]."""
    exact = torch.float64 if activation.dtype == torch.float64 else torch.float32
    share = torch.where(mask[..., None].to(activation.device), activation.to(exact) * gradient.to(exact), 0)
    return reduce(share, "(prompt sequence) token neuron -> prompt neuron", "sum", sequence=sequences)
