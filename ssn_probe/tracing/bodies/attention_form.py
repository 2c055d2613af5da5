"""How far silencing a channel of a query or a key would move the output of o_proj: sites q and k. Exact.

- q: channel d leaves the scores of its head: S' = S − scale · q_td · (R_tᵀ k̃_s)_d, R_t the rotation at t, k̃ the
  rotated key.
- k: the mirror, S' = S − scale · k_sd · (R_sᵀ q̃_t)_d, in every head of the group.

With a norm on the head between projection and rotation, silencing one channel rescales the others: S' becomes γ S',
γ = rms / rms'. Then come the soft-cap and the softmax, and the output moves by ‖ΔA v W‖, a quadratic form in ΔA.
Expanding the softmax to first order would cost as much and be 3–38 % off.

Axes as in `closed_form`, and s the token of the key. Everything is laid out as [b g a t d s], which is never in
memory as a whole: it is walked in blocks of prompts, or of queries where one prompt is too long.
"""

import torch
from einops import einsum, rearrange

from .closed_form import exact

BLOCK = 2**21
"""Elements of the largest intermediate: bounds memory whatever the batch, and suits a processor's cache."""
WIDE = 2**25
"""The same on a GPU, which is told of a small block more slowly than it computes it."""


def score_effects(seen, gram, weight, wanted):
    """{"q": [b n], "k": [b n]}, for those in `wanted`.

    seen: what `heads_of` takes; weight: [b t], for the last tokens, as many as count.
    """
    groups, rep, size = gram.shape[:3]
    heads = heads_of(seen, groups, rep)
    prompts, tokens = len(weight), heads["key"].shape[3]
    gram = gram.to(heads["key"].device)
    weight = weight.to(gram.device, gram.dtype)
    first = tokens - weight.shape[1]
    effects = {site: gram.new_zeros(prompts, groups, rep if site == "q" else 1, size) for site in wanted}
    most = WIDE if weight.is_cuda else BLOCK
    for rows, queries in blocks(prompts, first, tokens, groups * rep * size * tokens, most):
        share = weight[rows, queries.start - first : queries.stop - first]
        part = block_of(heads, rows, queries)
        metric, basis = metric_of(part["value"], gram)
        before = attend(part["scores"], part, seen["cap"])
        for site in wanted:
            shifted = shifted_by_query(part) if site == "q" else shifted_by_key(part)
            change = attend(shifted, part, seen["cap"]).sub_(before)
            norms = moved(change, metric, basis, jointly=site == "k")
            effects[site][rows] += einsum(norms, share, "b g a t d, b t -> b g a d")
    return {site: rearrange(effect, "b g a d -> b (g a d)") for site, effect in effects.items()}


def heads_of(seen, groups, rep):
    """Queries [b g a t d] and keys [b g 1 t d], before and after rotation, with their gains under a head norm.

    seen: "q", "k", "v" [b t n] as projected; "q_normed", "k_normed" [b t head d] and "eps" where there is a head
    norm, else None; "cos", "sin" [b t d]; "pairs", see `allowed_pairs`; "scale".
    """
    query, key, value = (exact(seen[site]) for site in "qkv")
    query = rearrange(query, "b t (g a d) -> b g a t d", g=groups, a=rep)
    key = rearrange(key, "b s (g d) -> b g 1 s d", g=groups)
    gains = [None, None]
    if seen["eps"] is not None:
        gains = [rescaling(query, seen["eps"]), rescaling(key, seen["eps"])]
        query = rearrange(exact(seen["q_normed"]), "b t (g a) d -> b g a t d", g=groups)
        key = rearrange(exact(seen["k_normed"]), "b s g d -> b g 1 s d")
    cos, sin = (rearrange(exact(seen[name]).to(key.device), "b t d -> b 1 1 t d") for name in ("cos", "sin"))
    return {
        "query": query,
        "query_turned": query * cos + rotate_half(query) * sin,
        "query_gain": gains[0],
        "key": key,
        "key_turned": key * cos + rotate_half(key) * sin,
        "key_gain": gains[1],
        "value": rearrange(value, "b s (g e) -> b g s e", g=groups),
        "cos": cos.expand(len(query), -1, -1, -1, -1),
        "sin": sin.expand(len(query), -1, -1, -1, -1),
        "pairs": seen["pairs"].to(key.device),
        "scale": seen["scale"],
    }


def allowed_pairs(mask, padding):
    """Which keys each query may attend to, from the mask that the attention module was given: [b t s], bool.

    padding: [b t]. Without padding and window the module is given no mask, which means every earlier key.
    """
    prompts, tokens = padding.shape
    if mask is None:
        pairs = torch.ones(1, tokens, tokens, dtype=torch.bool, device=padding.device).tril()
    else:
        pairs = (mask if mask.dtype == torch.bool else mask == 0)[:, 0, :, :tokens]
    return pairs.expand(prompts, -1, -1)


def rotate_half(x):
    """The quarter turn of every pair of channels (half-split rotary embedding)."""
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def rescaling(raw, eps):
    """γ = rms / rms': by how much a head norm enlarges the other channels once channel d is silent; shape of `raw`."""
    mean = raw.square().mean(-1, keepdim=True)
    return ((mean + eps) / (mean - raw.square() / raw.shape[-1] + eps)).sqrt()


def blocks(prompts, first, tokens, per_query, most):
    """Slices of prompts and of query tokens, such that no block exceeds `most` elements (but for a single query)."""
    queries, span = max(1, most // per_query), tokens - first
    if queries >= span:
        step = queries // span
        for start in range(0, prompts, step):
            yield slice(start, start + step), slice(first, tokens)
        return
    for row in range(prompts):
        for start in range(first, tokens, queries):
            yield slice(row, row + 1), slice(start, min(start + queries, tokens))


def block_of(heads, rows, queries):
    """The heads of some prompts, with some of their queries; what belongs to keys is turned to [b g a t d s]."""
    part: dict = {
        name: None if heads[name] is None else heads[name][rows, :, :, queries]
        for name in ("query", "query_turned", "query_gain")
    }
    part |= {
        name: None if heads[name] is None else rearrange(heads[name][rows], "b g 1 s d -> b g 1 1 d s")
        for name in ("key", "key_turned", "key_gain")
    }
    part["key_quarter"] = rearrange(rotate_half(heads["key_turned"][rows]), "b g 1 s d -> b g 1 1 d s")
    for name in ("cos", "sin"):
        part[f"{name}_query"] = heads[name][rows, :, :, queries, :, None]
        part[f"{name}_key"] = rearrange(heads[name][rows], "b 1 1 s d -> b 1 1 1 d s")
    part["pairs"] = rearrange(heads["pairs"][rows, queries], "b t s -> b 1 1 t 1 s")
    part |= {"value": heads["value"][rows], "scale": heads["scale"]}
    scores = einsum(part["query_turned"], heads["key_turned"][rows, :, 0], "b g a t d, b g s d -> b g a t s")
    part["scores"] = scores[..., None, :] * heads["scale"]
    return part


def shifted_by_query(part):
    """S' once channel d of the query is silent: [b g a t d s]."""
    key = part["key_turned"] * part["cos_query"] - part["key_quarter"] * part["sin_query"]  # R_tᵀ k̃_s
    shifted = part["scores"] - (part["scale"] * part["query"])[..., None] * key
    return shifted if part["query_gain"] is None else shifted.mul_(part["query_gain"][..., None])


def shifted_by_key(part):
    """S' once channel d of every key of the group is silent: [b g a t d s]."""
    quarter = rotate_half(part["query_turned"])[..., None]
    query = part["query_turned"][..., None] * part["cos_key"] - quarter * part["sin_key"]  # R_sᵀ q̃_t
    shifted = part["scores"] - (part["scale"] * part["key"]) * query
    return shifted if part["key_gain"] is None else shifted.mul_(part["key_gain"])


def attend(scores, part, cap):
    """The attention pattern of raw scores [b g a t d s]."""
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    return scores.masked_fill(~part["pairs"], torch.finfo(scores.dtype).min).softmax(-1)


def metric_of(value, gram):
    """A basis and the metric M in it such that a change of the pattern moves the output by √(cᵀ M c), c = ΔA @ basis.

    Short prompts: no basis, M = v G vᵀ over keys. Long ones: the values are the basis, M = G. M: [b g a · a' ·].
    """
    if value.shape[2] <= value.shape[3]:
        return einsum(value, gram, value, "b g s e, g a e c f, b g z f -> b g a s c z"), None
    return gram.expand(len(value), *gram.shape), value


def moved(change, metric, basis, jointly):
    """‖Δ output‖ of a change of the pattern [b g a t d s].

    Head by head [b g a t d], or jointly for the heads of a group [b g 1 t d].
    """
    if basis is not None:
        tokens = change.shape[3]
        change = rearrange(change, "b g a t d s -> b g (a t d) s") @ basis
        change = rearrange(change, "b g (a t d) e -> b g a t d e", a=metric.shape[2], t=tokens)
    if jointly:
        change = rearrange(change, "b g a t d s -> b g 1 t d (a s)")
        metric = rearrange(metric, "b g a s c z -> b g 1 (a s) (c z)")
    else:
        metric = torch.diagonal(metric, dim1=2, dim2=4)  # the heads' own blocks: [b g s z a]
        metric = rearrange(metric, "b g s z a -> b g a s z")
    image = einsum(change, metric, "b g a t d s, b g a s z -> b g a t d z")
    return image.mul_(change).sum(-1).clamp_min(0).sqrt()
