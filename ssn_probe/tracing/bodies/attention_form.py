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
memory as a whole: it is walked in blocks of prompts, or of queries where one prompt is too long. A block has no key
later than its last query. A shift of scores is a sum of products of one factor over queries [b g a t d 1] and one over
keys [b g 1 1 d s], so that it is added to the scores in two passes over the block.
"""

import torch
from einops import einsum, rearrange
from torch.nn.functional import pad

from .closed_form import exact

BLOCK = 2**19
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
    tokens = heads["key"].shape[3]
    form = known["matrix" if seen["together"] else "gram"].to(heads["key"].device)
    weight = weight.to(form.device, form.dtype)
    first = tokens - weight.shape[1]
    effects = {site: weight.new_zeros(len(weight), groups, rep if site == "q" else 1, size) for site in wanted}
    measured = None
    for rows, queries, part in parts_of(heads, first):
        share = weight[rows, queries.start - first : queries.stop - first]
        before = attend(part["scores"], part)
        if seen["together"]:
            measured = (rows, metric_everywhere(part["value"], form, rep))
        elif measured is None or measured[0] != rows:  # blocks of the same prompts share it
            measured = (rows, metric_of(heads["value"][rows], form))
        for site in wanted:
            if seen["together"]:
                norms = moved_everywhere(*SHIFTED[site](part), part, before, *measured[1])
            else:
                norms = moved(change_of(part, before, site), *measured[1], jointly=site == "k")
            effects[site][rows] += einsum(norms, share, "b g a t d, b t -> b g a d")
    return {site: rearrange(effect, "b g a d -> b (g a d)") for site, effect in effects.items()}


def parts_of(heads, first):
    """The walk: (prompts, queries, `block_of` them), from query `first` on. Slices, each query once.

    For whoever wants changes of the pattern themselves: `attend(part["scores"], part)` is the pattern A of a block, and
    `change_of(part, A, site)` is A' − A for every channel, one head or group at a time.
    """
    value = heads["value"]
    prompts, groups, tokens, size = value.shape
    per_query = groups * heads["query"].shape[2] * size * tokens
    most = WIDE if value.is_cuda else BLOCK
    if heads["together"]:  # one prompt at a time: the form over its heads and keys is as large as a block
        most = min(most, per_query * (tokens - first))
    for rows, queries in blocks(prompts, first, tokens, per_query, most):
        yield rows, queries, block_of(heads, rows, queries)


def change_of(part, before, site):
    """A' − A once channel d of q or k (`site`) is silent [b g a t d s]; not where a norm is over all heads.

    before: A [b g a t 1 s]. The keys are those of the block, from the first token to its last query.
    """
    shifted, gain = SHIFTED[site](part)
    return attend(shifted if gain is None else shifted.mul_(gain), part).sub_(before)


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
    """`queried` some prompts and queries, and their keys, turned to [b g a t d s]; later keys are left out."""
    keys = slice(queries.stop)
    part = queried(heads, rows, queries)
    turned = heads["key_turned"][rows, :, :, keys]
    across = {name: heads[name] for name in ("key", "key_gain", "key_mean")} | {"key_turned": heads["key_turned"]}
    part |= {name: None if held is None else turned_over(held[rows, :, :, keys]) for name, held in across.items()}
    part["key_quarter"] = turned_over(quarter(turned, heads["turning"]))
    for name in ("cos", "sin"):
        part[f"{name}_key"] = turned_over(heads[name][rows, :, :, keys])
    return part


def queried(heads, rows, queries):
    """The heads of some prompts, with some of their queries, and their scores.

    Later keys, which no query attends to, are left out; scores of others that are not attended to are `ruled_out`.
    """
    keys = slice(queries.stop)
    part: dict = {
        name: None if heads[name] is None else heads[name][rows, :, :, queries]
        for name in ("query", "query_turned", "query_gain", "query_mean", "query_weight")
    }
    turned = heads["key_turned"][rows, :, :, keys]
    part["query_quarter"] = quarter(part["query_turned"], heads["turning"])
    for name in ("cos", "sin"):
        part[f"{name}_query"] = heads[name][rows, :, :, queries]
    part["pairs"] = rearrange(heads["pairs"][rows, queries, keys], "b t s -> b 1 1 t 1 s")
    part |= {name: heads[name] for name in ("scale", "cap", "turning")} | {"value": heads["value"][rows, :, keys]}
    part["scores"] = masked(scores_of(part["query_turned"], turned) * heads["scale"], part)
    if heads["query_mean"] is not None:
        part["query_weight"] = scores_of(part["query_weight"], turned)
        part["key_weight"] = scores_of(part["query_turned"], heads["key_weight"][rows, :, :, keys])
    return part


def turned_over(held):
    """What belongs to keys [b g 1 s d], as [b g 1 1 d s] in memory, along which blocks are computed."""
    return rearrange(held, "b g 1 s d -> b g 1 1 d s").contiguous()


def ruled_out(scores, pairs):
    """Scores so low where `pairs` says that a key is not attended to that no shift or γ brings them back."""
    return scores.masked_fill(~pairs, -(torch.finfo(scores.dtype).max ** 0.5))


def scores_of(query, key):
    """The products of queries [b g a t d] and keys [b g 1 s d]: [b g a t 1 s]."""
    return einsum(query, key[:, :, 0], "b g a t d, b g s d -> b g a t s")[..., None, :]


def shifted_by_query(part):
    """S' once channel d of the query is silent, but for γ, and γ, if any: [b g a t d s]."""
    leaving = part["scale"] * part["query"]  # it leaves with R_tᵀ k̃_s = cos k̃_s − sin (k̃_s turned by a quarter)
    shifted = torch.addcmul(part["scores"], (-leaving * part["cos_query"])[..., None], part["key_turned"])
    shifted.addcmul_((leaving * part["sin_query"])[..., None], part["key_quarter"])
    if part["query_mean"] is not None:
        shifted.addcmul_((part["scale"] * part["query_mean"])[..., None], part["query_weight"])
    return shifted, None if part["query_gain"] is None else part["query_gain"][..., None]


def shifted_by_key(part):
    """S' once channel d of every key of the group is silent, but for γ, and γ, if any: [b g a t d s]."""
    leaving = part["scale"] * part["key"]  # it leaves with R_sᵀ q̃_t
    query, turned = part["query_turned"][..., None], part["query_quarter"][..., None]
    shifted = torch.addcmul(part["scores"], query, -leaving * part["cos_key"])
    shifted.addcmul_(turned, leaving * part["sin_key"])
    if part["key_mean"] is not None:
        shifted.addcmul_(part["scale"] * part["key_mean"], part["key_weight"])
    return shifted, part["key_gain"]


SHIFTED = {"q": shifted_by_query, "k": shifted_by_key}
"""How silencing a channel moves the scores, by its site."""


def attend(scores, part):
    """The attention pattern of the raw scores of a "part", which `masked` has been at: [… s].

    part: "cap", the soft-cap or None, and "pairs", which keys may be attended to.
    """
    cap = part["cap"]
    if cap is not None:
        scores = ruled_out(cap * torch.tanh(scores / cap), part["pairs"])
    return scores.softmax(-1)


def masked(scores, part):
    """Raw scores as `attend` takes them, shifted or not: `ruled_out` already, but for a soft-cap, which comes first."""
    return scores if part["cap"] is not None else ruled_out(scores, part["pairs"])


def metric_of(value, gram):
    """A basis and the metric M in it such that a change of the pattern moves the output by √(cᵀ M c), c = ΔA @ basis.

    Short prompts: no basis, M = v G vᵀ over keys. Long ones: the values are the basis, M = G. M: [b g a · a' ·].
    """
    if value.shape[2] <= value.shape[3]:
        return einsum(value, gram, value, "b g s e, g a e c f, b g z f -> b g a s c z"), None
    return gram.expand(len(value), *gram.shape), value


def moved(change, metric, basis, jointly):
    """‖Δ output‖ of a change of the pattern [b g a t d s], whose keys may be the first ones only.

    Head by head [b g a t d], or jointly for the heads of a group [b g 1 t d].
    """
    rep, tokens, _, keys = change.shape[2:]
    if basis is not None:
        change = rearrange(change, "b g a t d s -> b g (a t d) s") @ basis[:, :, :keys]
        change = rearrange(change, "b g (a t d) e -> b g a t d e", a=rep, t=tokens)
    else:
        metric = metric[:, :, :, :keys, :, :keys]
    if jointly:
        change = rearrange(change, "b g a t d s -> b g 1 (t d) (a s)")
        metric = rearrange(metric, "b g a s c z -> b g 1 (a s) (c z)")
    else:
        change = rearrange(change, "b g a t d s -> b g a (t d) s")
        metric = rearrange(torch.diagonal(metric, dim1=2, dim2=4), "b g s z a -> b g a s z")  # the heads' own blocks
    squared = (change @ metric).mul_(change).sum(-1)
    return rearrange(squared.clamp_min(0).sqrt(), "b g a (t d) -> b g a t d", t=tokens)


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
