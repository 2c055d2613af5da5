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

from .encoding import encoded, stacked
from .site_access import layer_of, multiply, part_of, reach, read_whole, token_mask, write_narrowed
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


def trace_log_odds(model, inputs, places, edits, scoring):
    """r(x) of every prompt of a batch, with neurons changed: [prompt]."""
    inputs = behind_start(model, inputs, places, edits)
    with torch.no_grad(), model.trace(**inputs):
        write_narrowed(model, places, edits, inputs["logits_to_keep"])
        odds = nnsight.save(read_out(model, places, scoring))
    return odds  # noqa: RET504 (the name is bound when the trace has run)


def trace_refusal_effects(model, inputs, places, scoring, at=1.0, candidates=1.0):
    """Σ over tokens of ∂r/∂a · a for every neuron: ({site: encoded [prompt, layer, neuron]}, r: [prompt]).

    One forward and one backward pass; where `at` is not 1 once more, with the prompt's candidates, that share of every
    (layer, site), scaled to `at` at every token. These gradients are multiplied with the activations of the first pass.
    """
    shares, activations, odds = gradient_shares(model, inputs, places, scoring)
    if at != 1:
        factors = [scaled_down(share, at, candidates) for share in shares]
        shares, _, _ = gradient_shares(model, inputs, places, scoring, factors, activations)
    sites, found = list(places["sites"]), [encoded(share) for share in shares]
    return {site: stacked(found[i :: len(sites)]) for i, site in enumerate(sites)}, odds


def gradient_shares(model, inputs, places, scoring, factors=None, unscaled=None):
    """Σ over tokens of ∂r/∂a · a, layer by layer and site by site: ([[prompt, neuron]], [a], r: [prompt]).

    The parameters are frozen: making the first layer's input require a gradient is what puts the activations, and
    nothing else, on the graph. A gradient is multiplied as soon as it is there, and kept no longer.

    factors: what neurons are multiplied by, [prompt, neuron] each; the gradient is then that of the products, and a is
    `unscaled`.
    """
    with torch.enable_grad(), model.trace(**inputs):
        mask = token_mask(model)
        first = layer_of(model, places, 0).input.requires_grad_(True)
        values, shares = [], {}
        for layer in range(places["depth"]):
            envoy = layer_of(model, places, layer)
            for place in places["sites"].values():
                number = len(values)
                if factors is not None:
                    multiply(envoy, place, factors[number], scoring["sequences"])
                whole = read_whole(envoy, place)  # what follows does not depend on a view of it, which has no gradient
                values.append(part_of(whole, place).detach() if unscaled is None else unscaled[number])
                keep = partial(keep_share, shares, number, place, values[number], mask, scoring["sequences"])
                whole.register_hook(keep)
        odds = read_out(model, places, scoring)
        torch.autograd.grad(odds.sum(), first)
        shares = nnsight.save([shares[number] for number in range(len(values))])
        values = nnsight.save(values)
        odds = nnsight.save(odds.detach())
    return shares, values, odds


def keep_share(shares, number, place, activation, mask, sequences, gradient):
    """Called with the gradient of a module's activation while it goes back; changes nothing."""
    shares[number] = first_order(activation, part_of(gradient, place), mask, sequences)


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
