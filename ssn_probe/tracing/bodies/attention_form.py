"""How far silencing a channel of a query or a key would move the output of o_proj: sites q and k. Exact.

- q: channel d leaves the scores of its head: S' = S − scale · q_td · (R_tᵀ k̃_s)_d, R_t the rotation at t, k̃ the
  rotated key.
- k: the mirror, S' = S − scale · k_sd · (R_sᵀ q̃_t)_d, in every head of the group.

With a norm on the head between projection and rotation, silencing one channel rescales the others: S' becomes γ S',
γ = rms / rms'. A LayerNorm, of standard deviation σ, also moves the mean by x_d / D, and what leaves with the channel
is (x_d / σ) (w_d e_d − w / D). Then come the soft-cap and the softmax, and the output moves by ‖ΔA v W‖, a quadratic
form in ΔA. Expanding the softmax to first order would cost as much and be 3–38 % off.

A norm over all heads together rescales every head with each channel: `moved_everywhere`.

Axes as in `closed_form`, and s the token of the key. Everything is laid out as [b g a t d s], which is never in
memory as a whole: it is walked in blocks of prompts, or of queries where one prompt is too long.
"""

import torch
from einops import einsum, rearrange
from torch.nn.functional import pad

from .closed_form import exact

BLOCK = 2**21
"""Elements of the largest intermediate: bounds memory whatever the batch, and suits a processor's cache."""
WIDE = 2**25
"""The same on a GPU, which is told of a small block more slowly than it computes it."""


def score_effects(seen, known, weight, wanted):
    """{"q": [b n], "k": [b n]}, for those in `wanted`.

    seen: what `heads_of` takes; known: "gram", or "matrix" where a norm is over all heads, of `closed_form.measure`;
    weight: [b t], for the last tokens, as many as count.
    """
    groups, rep, size = seen["heads"]
    heads = heads_of(seen)
    prompts, tokens = len(weight), heads["key"].shape[3]
    form = known["matrix" if seen["together"] else "gram"].to(heads["key"].device)
    weight = weight.to(form.device, form.dtype)
    first = tokens - weight.shape[1]
    effects = {site: weight.new_zeros(prompts, groups, rep if site == "q" else 1, size) for site in wanted}
    most, per_query = WIDE if weight.is_cuda else BLOCK, groups * rep * size * tokens
    if seen["together"]:  # one prompt at a time: the form over its heads and keys is as large as a block
        most = min(most, per_query * weight.shape[1])
    for rows, queries in blocks(prompts, first, tokens, per_query, most):
        share = weight[rows, queries.start - first : queries.stop - first]
        part = block_of(heads, rows, queries)
        before = attend(part["scores"], part)
        measured = metric_everywhere(part["value"], form, rep) if seen["together"] else metric_of(part["value"], form)
        for site in wanted:
            shifted, gain = shifted_by_query(part) if site == "q" else shifted_by_key(part)
            if seen["together"]:
                norms = moved_everywhere(shifted, gain, part, before, *measured)
            else:
                shifted = shifted if gain is None else shifted.mul_(gain)
                norms = moved(attend(shifted, part).sub_(before), *measured, jointly=site == "k")
            effects[site][rows] += einsum(norms, share, "b g a t d, b t -> b g a d")
    return {site: rearrange(effect, "b g a d -> b (g a d)") for site, effect in effects.items()}


def heads_of(seen):
    """Queries and keys, each `side_of` its site, values [b g s e], and what the pattern is made with.

    seen: "q", "k", "v" [b t n] as projected; "eps" of the norms on queries and keys, or None; with it "q_normed" and
    "k_normed" [b t n], "together", is it a norm over all heads, and, of a norm that takes away the mean, "q_weight" and
    "k_weight" [head d], which it multiplies by; "cos", "sin" [b t d], and "rotation", see `families.Family`; "growth"
    [b t], what queries are multiplied by, or None; "pairs", see `allowed_pairs`; "heads", "scale", "cap".
    """
    groups, rep, size = seen["heads"]
    value = exact(seen["v"])
    cos, sin, turned = angles_of(seen, size)
    angles = [
        rearrange(angle.to(value.device), "b t d -> b 1 1 t d").expand(len(value), -1, -1, -1, -1)
        for angle in (cos, sin)
    ]
    turning = (seen["rotation"] != "halves", turned)
    query, key = (side_of(seen, site, groups, rep if site == "q" else 1, angles, turning) for site in "qk")
    if seen["growth"] is not None:
        growth = rearrange(exact(seen["growth"]).to(value.device), "b t -> b 1 1 t 1")
        query |= {name: query[name] * growth for name in ("", "_turned", "_mean") if query[name] is not None}
    return {
        **{f"query{name}": held for name, held in query.items()},
        **{f"key{name}": held for name, held in key.items()},
        "value": rearrange(value, "b s (g e) -> b g s e", g=groups),
        "cos": angles[0],
        "sin": angles[1],
        "turning": turning,
        "together": seen["together"],
        "pairs": seen["pairs"].to(value.device),
        "scale": seen["scale"],
        "cap": seen["cap"],
    }


def side_of(seen, site, groups, rep, angles, turning):
    """What scores are made of on the side of queries or of keys, by the end of its name in `heads_of`: [b g a t d].

    "": what leaves with a channel; "_turned": all channels, rotated; "_gain": by how much a norm enlarges the other
    channels; "_mean" and "_weight": what of the mean each channel takes along, and the rotated weight that it is
    multiplied by. None where there is no norm, or none that takes away the mean.
    """

    def laid_out(x):
        return rearrange(x, "b t (g a d) -> b g a t d", g=groups, a=rep)

    raw = exact(seen[site])
    own = laid_out(raw)
    found: dict = {"": own, "_gain": None, "_mean": None, "_weight": None}
    whole = own
    if seen["eps"] is not None:
        whole = found[""] = laid_out(exact(seen[f"{site}_normed"]))
        found["_gain"] = laid_out(rescaling(raw, seen["eps"])) if seen["together"] else rescaling(own, seen["eps"])
    if f"{site}_weight" in seen:
        weight = rearrange(exact(seen[f"{site}_weight"]), "(g a) d -> 1 g a 1 d", g=groups)
        spread, found["_gain"] = centred(own, seen["eps"])
        amount = own / spread
        found |= {"": amount * weight, "_mean": amount / own.shape[-1], "_weight": turn(weight, angles, turning)}
    return found | {"_turned": turn(whole, angles, turning)}


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


def angles_of(seen, size):
    """The cosine and the sine of every channel's angle [b t d], and how many of the channels are turned."""
    cos, sin = exact(seen["cos"]), exact(seen["sin"])
    if seen["rotation"] == "pairs, angles in halves":
        cos, sin = (angle[..., : angle.shape[-1] // 2].repeat_interleave(2, -1) for angle in (cos, sin))
    if not seen["turned"]:
        cos, sin = torch.ones_like(cos), torch.zeros_like(sin)
    still = (0, size - cos.shape[-1])
    return pad(cos, still, value=1.0), pad(sin, still), cos.shape[-1]


def turn(x, angles, turning):
    """The channels [b g a t d] rotated."""
    cos, sin = angles
    return x * cos + quarter(x, turning) * sin


def quarter(x, turning):
    """The quarter turn of every pair of channels; those that are not turned, the last ones, meet a sine of zero.

    turning: whether neighbours are a pair, rather than one of each half; and how many channels are turned.
    """
    neighbours, turned = turning
    x, still = x[..., :turned], x[..., turned:]
    if neighbours:
        return torch.cat((torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2), still), -1)
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first, still), -1)


def rescaling(raw, eps):
    """γ = rms / rms': by how much a head norm enlarges the other channels once channel d is silent; shape of `raw`."""
    mean = raw.square().mean(-1, keepdim=True)
    return ((mean + eps) / (mean - raw.square() / raw.shape[-1] + eps)).sqrt()


def centred(raw, eps):
    """A LayerNorm's standard deviation, and by how much it enlarges what is left once channel d is silent."""
    size = raw.shape[-1]
    mean, variance = raw.mean(-1, keepdim=True), raw.var(-1, correction=0, keepdim=True)
    left = (variance - (raw.square() * (1 + 1 / size) - 2 * mean * raw) / size).clamp_min(0)
    return (variance + eps).sqrt(), ((variance + eps) / (left + eps)).sqrt()


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
    """The heads of some prompts, with some of their queries; what belongs to keys is turned to [b g a t d s].

    Where all heads move together, without later keys, which would cost as much as those that are attended to.
    """
    keys = slice(queries.stop) if heads["together"] else slice(None)
    part: dict = {
        name: None if heads[name] is None else heads[name][rows, :, :, queries]
        for name in ("query", "query_turned", "query_gain", "query_mean", "query_weight")
    }
    part |= {
        name: None if heads[name] is None else rearrange(heads[name][rows, :, :, keys], "b g 1 s d -> b g 1 1 d s")
        for name in ("key", "key_turned", "key_gain", "key_mean")
    }
    turned = heads["key_turned"][rows, :, :, keys]
    part["key_quarter"] = rearrange(quarter(turned, heads["turning"]), "b g 1 s d -> b g 1 1 d s")
    for name in ("cos", "sin"):
        part[f"{name}_query"] = heads[name][rows, :, :, queries, :, None]
        part[f"{name}_key"] = rearrange(heads[name][rows, :, :, keys], "b 1 1 s d -> b 1 1 1 d s")
    part["pairs"] = rearrange(heads["pairs"][rows, queries, keys], "b t s -> b 1 1 t 1 s")
    part |= {name: heads[name] for name in ("scale", "cap", "turning")} | {"value": heads["value"][rows, :, keys]}
    part["scores"] = scores_of(part["query_turned"], turned) * heads["scale"]
    if heads["query_mean"] is not None:
        part["query_weight"] = scores_of(part["query_weight"], turned)
        part["key_weight"] = scores_of(part["query_turned"], heads["key_weight"][rows, :, :, keys])
    return part


def scores_of(query, key):
    """The products of queries [b g a t d] and keys [b g 1 s d]: [b g a t 1 s]."""
    return einsum(query, key[:, :, 0], "b g a t d, b g s d -> b g a t s")[..., None, :]


def shifted_by_query(part):
    """S' once channel d of the query is silent, but for γ, and γ, if any: [b g a t d s]."""
    key = part["key_turned"] * part["cos_query"] - part["key_quarter"] * part["sin_query"]  # R_tᵀ k̃_s
    shifted = part["scores"] - (part["scale"] * part["query"])[..., None] * key
    if part["query_mean"] is not None:
        shifted.add_((part["scale"] * part["query_mean"])[..., None] * part["query_weight"])
    return shifted, None if part["query_gain"] is None else part["query_gain"][..., None]


def shifted_by_key(part):
    """S' once channel d of every key of the group is silent, but for γ, and γ, if any: [b g a t d s]."""
    turned = quarter(part["query_turned"], part["turning"])[..., None]
    query = part["query_turned"][..., None] * part["cos_key"] - turned * part["sin_key"]  # R_sᵀ q̃_t
    shifted = part["scores"] - (part["scale"] * part["key"]) * query
    if part["key_mean"] is not None:
        shifted.add_((part["scale"] * part["key_mean"]) * part["key_weight"])
    return shifted, part["key_gain"]


def attend(scores, part):
    """The attention pattern of raw scores [b g a t d s]."""
    cap = part["cap"]
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


def metric_everywhere(value, matrix, rep):
    """As `metric_of`, for all heads together: M [b (g a s) (g a s)], or for long prompts o_proj's matrix [x n]."""
    groups, tokens, size = value.shape[1:]
    if tokens > size:
        return matrix, value
    columns = rearrange(matrix, "x (g a e) -> x g a e", g=groups, a=rep)
    images = rearrange(einsum(value, columns, "b g s e, x g a e -> b g a s x"), "b g a s x -> b (g a s) x")
    return images @ images.mT, None


def moved_everywhere(shifted, gain, part, before, metric, basis):
    """‖Δ output‖ where a norm is over all heads, so that every channel rescales the scores of every head: [b g a t d].

    One head's channels at a time (of keys, one group's), in the memory of a few blocks. For each channel and query it
    takes the softmax of every head, where other norms take that of one, and a product with all of M.
    """
    groups, rep = gain.shape[1:3]
    norms = []
    for group in range(groups):
        for head in range(rep):
            own = (slice(None), slice(group, group + 1), slice(head, head + 1) if rep > 1 else slice(None))
            scores = part["scores"].expand_as(shifted).clone()
            scores[own] = shifted[own]
            change = attend(scores.mul_(gain[:, group, head, None, None]), part).sub_(before)
            norms.append(moved_together(change, metric, basis))
    return rearrange(norms, "(g a) b t d -> b g a t d", g=groups)


def moved_together(change, metric, basis):
    """‖Δ output‖ of a change of the pattern in all heads [b g a t d s]: [b t d]."""
    if basis is not None:
        heads = einsum(change, basis, "b g a t d s, b g s e -> b t d g a e")
        return (heads.flatten(3) @ metric.T).norm(dim=-1)
    tokens = change.shape[3]
    change = rearrange(change, "b g a t d s -> b (t d) (g a s)")
    squared = (change @ metric).mul_(change).sum(-1)
    return rearrange(squared.clamp_min(0).sqrt(), "b (t d) -> b t d", t=tokens)
