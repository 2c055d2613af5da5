"""Sites q and k where only the largest effects of each prompt are exact: first order for all, exact for the chosen.

To first order a shift δS of scores moves the pattern by A ∘ (δS − Σ_s A δS), and the output by what that gives with
v W. Exactly that norm takes as many products as the exact one does. Its components along m random directions of the
residual stream take m / e of them, e the channels of a head: δS is a sum of terms F_ts X_td Y_sd, and one product of
F ∘ A [t s] with Y ⊗ (v W r) [s (m d)] has them for all channels. Over directions of independent signs the mean of
their squares is the squared norm; its root is low by √(2/m) Γ((m+1)/2) / Γ(m/2), which is divided out. The directions
are the same for all prompts and models, so that an estimate depends on its prompt alone.

Of each prompt the `share` of a layer's q and of its k neurons with the largest estimates gets the exact norm of
`attention_form`; the others keep the estimate, which is off by some √(1/2m) of itself, and by what first order misses.

Axes as in `attention_form`; m direction, c chosen neuron of a prompt.
"""

import math

import torch
from einops import einsum, rearrange

from .attention_form import (
    BLOCK,
    WIDE,
    attend,
    block_of,
    blocks,
    change_of,
    heads_of,
    metric_of,
    moved,
    quarter,
    queried,
)

SPANS = 2
"""Blocks of queries that a prompt is walked in at least: none meets keys after its last query."""


def screened_effects(seen, known, weight, wanted, share):
    """As `attention_form.score_effects` with "gram" and "probes" known: {"q": [b n], "k": [b n]}, exact for a share."""
    heads = heads_of(seen)
    gram, probes = (known[name].to(heads["key"].device) for name in ("gram", "probes"))
    weight = weight.to(gram.device, gram.dtype)
    estimates = first_order(heads, probes, weight, wanted)
    chosen = {site: found.topk(math.ceil(share * found.shape[1])).indices for site, found in estimates.items()}
    exact = exact_effects(heads, gram, weight, chosen)
    return {site: found.scatter(1, chosen[site], exact[site]) for site, found in estimates.items()}


def first_order(heads, probes, weight, wanted):
    """{site: [b n]}: the first-order norm from its components along the directions.

    probes: [g a e m], the images of o_proj's columns there; weight: [b t] of the last tokens.
    """
    prompts, groups, tokens, size = heads["value"].shape
    rep, count = probes.shape[1], probes.shape[3]
    first = tokens - weight.shape[1]
    found = {site: weight.new_zeros(prompts, groups, rep if site == "q" else 1, size) for site in wanted}
    most, head = (WIDE if heads["value"].is_cuda else BLOCK) // 2, rep * size * count
    step, some = max(1, most // (head * groups * tokens)), min(groups, max(1, most // (head * tokens)))
    span = max(1, min(-(-(tokens - first) // SPANS), most // (some * max(head, rep * tokens))))
    for row in range(0, prompts, step):
        rows = slice(row, min(row + step, prompts))
        for group in range(0, groups, some):
            own = slice(group, min(group + some, groups))
            mine = of_groups(heads, own, groups)
            seen = einsum(heads["value"][rows, own], probes[own], "b g s e, g a e m -> b g a s m")
            seen = seen - seen.mean(3, keepdim=True)  # only differences count: fewer digits are lost
            for site in wanted:
                found[site][rows, own] += summed_norms(mine, rows, seen, weight[rows], site, span)
    return {site: rearrange(effect, "b g a d -> b (g a d)") for site, effect in found.items()}


def summed_norms(heads, rows, seen, weight, site, span):
    """The norms of a site's channels, weighted over the last queries [b t], so many together: [b g a d]."""
    tokens, total = seen.shape[3], 0
    first, over_keys = tokens - weight.shape[1], OVER_KEYS[site](heads, rows, seen)
    for start in range(first, tokens, span):
        queries = slice(start, min(start + span, tokens))
        norms = norms_of_queries(looked_at(heads, rows, queries, seen), over_keys, site)
        total = total + einsum(norms, weight[:, start - first : queries.stop - first], "b g a t d, b t -> b g a d")
    return total


def norms_of_queries(part, over_keys, site):
    """‖Δ output‖ at some queries for every channel of a site, from its components: [b g a t d]."""
    count = part["seen"].shape[-1]
    return NORMS[site](part, over_keys).div_(mean_norm(count)).masked_fill(part["alone"], 0)


def mean_norm(count):
    """The mean norm of so many standard normal numbers."""
    return math.sqrt(2) * math.exp(math.lgamma((count + 1) / 2) - math.lgamma(count / 2))


def of_groups(heads, own, groups):
    """The heads of some groups."""
    apart = {name for name, held in heads.items() if isinstance(held, torch.Tensor) and name not in ("cos", "sin")}
    return heads | {name: heads[name][:, own] for name in apart - {"pairs"} if heads[name].shape[1] == groups}


def looked_at(heads, rows, queries, seen):
    """`queried`, with the pattern, its slope where scores are capped, and the mean of what is `seen` [b g a t m].

    "raw", where a norm or a cap needs them: scores, 0 where they do not count; "alone" [b 1 1 t 1]: queries with a
    single key, or none where they are padding, whose pattern nothing changes.
    """
    part = queried(heads, rows, queries)
    scores = part.pop("scores")
    pattern = attend(scores, part)[..., 0, :]
    part["alone"] = part["pairs"].sum(-1) < 2
    part["seen"] = seen[:, :, :, : queries.stop]
    part["mean"] = pattern @ part["seen"]
    if part["cap"] is not None or part["query_gain"] is not None:
        part["raw"] = scores.masked_fill_(~part["pairs"], 0)[..., 0, :]
    if part["cap"] is not None:
        pattern = pattern * (1 - torch.tanh(part["raw"] / part["cap"]).square())
    return part | {"slope": pattern}


def spread_over(seen, factor):
    """Y ⊗ what is seen, for `moves`: ([b g a s (m d)], Y [b g 1 s d])."""
    product = seen[..., None] * factor[..., None, :]
    return product.flatten(-2), factor


def moves(pattern, product, part):
    """Σ_s F (Y ⊗ seen) − (Σ_s F Y) ⊗ mean: what a term of the shift moves, but for X [b g a t m d]."""
    whole, factor = (held[:, :, :, : pattern.shape[-1]] for held in product)
    found = (pattern @ whole).unflatten(-1, (-1, factor.shape[-1]))
    return found.addcmul_(part["mean"][..., None], (pattern @ factor)[..., None, :], value=-1)


def moves_alike(pattern, part):
    """`moves` where Y is 1: [b g a t m 1]."""
    return (pattern @ part["seen"] - pattern.sum(-1, keepdim=True) * part["mean"])[..., None]


def keys_of_queries(heads, rows, seen):
    return spread_over(seen, heads["key_turned"][rows])


def query_norms(part, product):
    """‖Δ output‖ by the components, for every channel of q [b g a t d]; the shift is that of `shifted_by_query`."""
    found = moves(part["slope"], product, part)
    around = quarter(found, part["turning"]).mul_(part["sin_query"][..., None, :])
    found = found.mul_(part["cos_query"][..., None, :]).sub_(around)
    leaving = part["scale"] * part["query"]
    if part["query_gain"] is None:
        return found.square_().sum(-2).sqrt_().mul_(leaving.abs())
    found.mul_(-leaving[..., None, :])
    if part["query_mean"] is not None:
        taken = moves_alike(part["slope"] * part["query_weight"][..., 0, :], part)
        found.addcmul_((part["scale"] * part["query_mean"])[..., None, :], taken)
    gain = part["query_gain"][..., None, :]
    found.mul_(gain).addcmul_(gain - 1, moves_alike(part["slope"] * part["raw"], part))
    return found.square_().sum(-2).sqrt_()


def keys_of_keys(heads, rows, seen):
    """Products for the two terms of the rotation, and for what a norm's gain and its mean add."""
    key, gain, mean = (None if heads[name] is None else heads[name][rows] for name in ("key", "key_gain", "key_mean"))
    leaving = heads["scale"] * (key if gain is None else key * gain)
    terms = {"cos": -leaving * heads["cos"][rows], "sin": leaving * heads["sin"][rows]}
    if gain is not None:
        terms["gain"] = gain - 1
    if mean is not None:
        terms["mean"] = heads["scale"] * mean * gain
    return {name: spread_over(seen, factor) for name, factor in terms.items()}


def key_norms(part, products):
    """As `query_norms` for every channel of k, the heads of a group together [b g 1 t d]."""
    found = moves(part["slope"], products["cos"], part).mul_(part["query_turned"][..., None, :])
    found.addcmul_(moves(part["slope"], products["sin"], part), part["query_quarter"][..., None, :])
    if "mean" in products:
        found.add_(moves(part["slope"] * part["key_weight"][..., 0, :], products["mean"], part))
    if "gain" in products:
        found.add_(moves(part["slope"] * part["raw"], products["gain"], part))
    return found.sum(2, keepdim=True).square_().sum(-2).sqrt_()


OVER_KEYS = {"q": keys_of_queries, "k": keys_of_keys}
NORMS = {"q": query_norms, "k": key_norms}


def exact_effects(heads, gram, weight, chosen):
    """{site: [b c]} of the neurons `chosen` [b c] of each prompt."""
    tokens, size = heads["value"].shape[2:]
    rep = gram.shape[1]
    first = tokens - weight.shape[1]
    effects = {site: weight.new_zeros(index.shape) for site, index in chosen.items()}
    per_query = tokens * max(index.shape[1] * (rep if site == "k" else 1) for site, index in chosen.items())
    most = WIDE if heads["value"].is_cuda else BLOCK
    measured = None
    for rows, queries in blocks(len(weight), first, tokens, per_query, most):
        part = block_of(heads, rows, queries)
        before = attend(part["scores"], part)
        if measured is None or measured[0] != rows:  # blocks of the same prompts share it
            metric, basis = metric_of(heads["value"][rows], gram)
            forms = {site: metric_of_chosen(metric, basis, index[rows], site, size) for site, index in chosen.items()}
            measured = (rows, forms)
        share = weight[rows, queries.start - first : queries.stop - first]
        for site, index in chosen.items():
            norms = norms_of_chosen(part, before, index[rows], site, measured[1][site])
            effects[site][rows] += einsum(norms, share, "b c t, b t -> b c")
    return effects


def norms_of_chosen(part, before, index, site, form):
    """‖Δ output‖ of chosen neurons [b c] at the queries of a block, by `metric_of_chosen`: [b c t]."""
    own, pattern = of_chosen(part, before, index, site)
    return moved(change_of(own, pattern, site), *form, jointly=site == "k")[:, :, 0, :, 0]


def places_of_chosen(index, site, rep, size):
    """Row, group, head within the group (of k: all) and channel of neurons [b c]."""
    row = torch.arange(len(index), device=index.device)[:, None]
    if site == "k":
        return row, index // size, slice(None), index % size
    return row, index // (rep * size), index // size % rep, index % size


def of_chosen(part, before, index, site):
    """A block for `change_of`, and its pattern, where chosen neurons stand in the place of groups: [b c a t 1 s]."""
    rep, size = part["query_turned"].shape[2], part["query_turned"].shape[4]
    row, group, head, channel = places_of_chosen(index, site, rep, size)

    def over_queries(held):
        found = held[row, group, head, :, channel]
        return (found if site == "k" else found[:, :, None])[..., None]

    def over_keys(held):
        found = held[row, 0 if held.shape[1] == 1 else group, 0, 0, channel]
        return found[:, :, None, None, None]

    def pairwise(held):
        return alike(held, index, site, size)

    if site == "q":
        taken = {over_queries: ("query", "query_gain", "query_mean"), over_keys: ("key_turned", "key_quarter")}
        taken |= {pairwise: ("query_weight", "scores")}
    else:
        taken = {over_queries: ("query_turned", "query_quarter"), over_keys: ("key", "key_gain", "key_mean")}
        taken |= {pairwise: ("key_weight", "scores")}
    own = part | {
        name: None if part.get(name) is None else take(part[name]) for take, names in taken.items() for name in names
    }
    if site == "q":
        angles = {name: part[name][row, 0, 0, :, channel][:, :, None, :, None] for name in ("cos_query", "sin_query")}
    else:
        angles = {name: over_keys(part[name]) for name in ("cos_key", "sin_key")}
    return own | angles, pairwise(before)


def alike(held, index, site, size):
    """What belongs to the heads of chosen neurons, of k to all of the group: [b g a …] as [b c a …]."""
    row = torch.arange(len(index), device=index.device)[:, None]
    if site == "k":
        held, place = held.flatten(0, 1), index // size + row * held.shape[1]
        return held.index_select(0, place.flatten()).unflatten(0, index.shape)
    held, place = held.flatten(0, 2), index // size + row * held.shape[1] * held.shape[2]
    return held.index_select(0, place.flatten()).unflatten(0, index.shape)[:, :, None]


def metric_of_chosen(metric, basis, index, site, size):
    """`metric_of`, where chosen neurons stand in the place of groups; of q, the own head's block of the metric."""
    rep = metric.shape[2]
    if basis is not None:
        basis = alike(basis, index if site == "k" else index // rep, "k", size)
    if site == "k":
        return alike(metric, index, site, size), basis
    own = torch.diagonal(metric, dim1=2, dim2=4)
    return alike(rearrange(own, "b g s z a -> b g a s z"), index, site, size)[:, :, :, :, None], basis
