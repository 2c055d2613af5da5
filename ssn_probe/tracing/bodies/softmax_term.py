"""What a silent channel of a query or a key does through the softmax: the exact ΔA of chosen channels.

A read-out's gradient at the input of o_proj, g_O, says how it moves with the attention pattern of a head: by
Σ_ts ΔA_ts C_ts, C = g_O vᵀ. Attribution patching puts the derivative of the softmax in the place of ΔA; the exact ΔA is
AtP*'s correction for queries and keys (Kramár et al. 2024, 2403.00745), here with rotation, norms and soft-cap as in
`attention_form`. It grows with the square of the length, so it is for a share of the channels, each prompt's own.

Axes: n groups of heads that change together, h head of such a group, r channel, t query, s key, e channel of a value.
A group is the query's head, all heads of a key's group, or, where a norm is over all heads, all heads of the model.
"""

import math

import torch
from einops import rearrange

from .attention_form import BLOCK, WIDE, attend, blocks, heads_of, masked, quarter, scores_of
from .closed_form import exact

TOGETHER = 4
"""Channels of a group that are computed together: few, since groups have unequally many."""


def strongest(size, share):
    """The channels that are largest: [prompt neuron], bool, ceil(share · neurons) of each; ties go to the first."""
    count = math.ceil(share * size.shape[-1] - 1e-9)
    order = size.argsort(dim=-1, descending=True, stable=True)[..., :count]
    return torch.zeros_like(size, dtype=torch.bool).scatter(-1, order, True)


def softmax_terms(seen, chosen, gradients, silent):
    """Σ_ts ΔA_ts C_ts, what silencing each chosen channel does to each read-out: {site: [probe prompt neuron]}.

    seen: what `heads_of` takes, off the graph; chosen: {"q" or "k": [prompt neuron], bool}; gradients: each probe's g_O
    [prompt token channel], of which those that meet no token of the read-out's past are 0; silent: [prompt token],
    bool, where the channel is silent. Neurons that are not chosen have 0.
    """
    heads = heads_of(seen)
    gradient = rearrange([exact(one) for one in gradients], "p b t (h e) -> b h p t e", e=heads["value"].shape[-1])
    found = {site: gradient.new_zeros(len(gradients), *wanted.shape) for site, wanted in chosen.items()}
    prompts, heads_in_all, _, tokens, _ = gradient.shape
    most = WIDE if gradient.is_cuda else BLOCK
    for rows, queries in blocks(prompts, 0, tokens, len(gradients) * heads_in_all * tokens, most):
        for site, wanted in chosen.items():
            found[site][:, rows] += group_terms(
                grouped(heads, site, rows, queries, silent, gradient), wanted[rows], most
            )
    return found


def group_terms(group, wanted, most):
    """The terms of the chosen neurons: [probe prompt neuron], a few channels of every group at a time."""
    chosen = rearrange(wanted, "b (g d) -> (b g) d", d=group["own"].shape[1])
    order = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    counts = chosen.sum(-1)
    found = torch.zeros(group["gradient"].shape[2], *chosen.shape, dtype=group["scores"].dtype, device=chosen.device)
    per_channel = group["scores"][0].numel()
    for first in range(0, int(counts.max()), TOGETHER):
        active = (counts > first).nonzero()[:, 0]
        step = max(1, most // (per_channel * TOGETHER))
        for some in active.split(step):
            channels = order[some, first : first + TOGETHER]
            terms = changed_read_out(group, some, channels)
            known = torch.arange(channels.shape[1], device=some.device) + first < counts[some, None]
            found[:, some[:, None], channels] = torch.where(known, terms, 0)
    return rearrange(found, "p (b g) d -> p b (g d)", b=len(wanted))


def changed_read_out(group, some, channels):
    """Σ ΔA C of some channels [n r] of some groups [n]: [probe n r]."""
    part = {"cap": group["cap"], "pairs": group["pairs"][some]}
    change = attend(shifted_scores(group, some, channels), part).sub_(group["pattern"][some, :, None])
    terms = group["gradient"][some].flatten(-2) @ change.flatten(-2).mT  # [n h p r]
    return rearrange(terms.sum(1), "n p r -> p n r")


def shifted_scores(group, some, channels):
    """The scores of all heads of some groups once a channel is silent: [n h r t s]."""
    own = group["own"][some[:, None], channels]  # [n r token], where the channel is silent
    row, turned = group["row"][some], channels % group["cos"].shape[1]
    cos, sin = (group[name][row[:, None], turned] for name in ("cos", "sin"))
    other, quarters = (group[name][some[:, None], :, turned] for name in ("other", "quarter"))  # [n r h token]
    shift = outer(own * cos, other, group["of_keys"]) - outer(own * sin, quarters, group["of_keys"])
    if group["mean"] is not None:
        mean = group["mean"][some[:, None], channels][:, None]  # [n 1 r token]
        mean = mean[..., None, :] if group["of_keys"] else mean[..., None]
        shift.sub_(mean * group["weight"][some, :, None])
    if group["apart"] is not None:  # only the channel's own heads lose it
        shift.mul_(group["apart"][:, channels // group["cos"].shape[1]].transpose(0, 1)[..., None, None])
    shifted = group["scores"][some, :, None] - shift * group["scale"]
    if group["gain"] is not None:
        gain = group["gain"][some[:, None], channels][:, None]
        shifted.mul_(gain[..., None, :] if group["of_keys"] else gain[..., None])
    return shifted


def outer(own, other, of_keys):
    """The product of a channel's own side [n r token] and the other [n r h token]: [n h r t s]."""
    own, other = own[:, None], rearrange(other, "n r h x -> n h r x")
    return other[..., None] * own[..., None, :] if of_keys else own[..., None] * other[..., None, :]


def grouped(heads, site, rows, queries, silent, gradient):
    """What `group_terms` takes of some prompts, with some of their queries and all their keys: axes [n h …].

    It is `silenced_side`, `meeting_side` and the rest: "scores", as `attend` takes them, "pattern", and "gradient", its
    gradient C, [n h probe t s]; "row", the prompt of a group; "apart": [h, own head or group], 1 where a head has the
    channel, or None where all heads of a group do.
    """
    of_keys, together = site == "k", heads["together"]
    groups, rep = heads["query"].shape[1:3]
    per = groups * rep if together else rep if of_keys else 1
    queried = heads["query_turned"][rows, :, :, queries]
    scores = scores_of(queried, heads["key_turned"][rows])[..., 0, :] * heads["scale"]
    count = scores.shape[0] * groups * rep // per
    row = torch.arange(count, device=scores.device) // (count // scores.shape[0])
    part = {"cap": heads["cap"], "pairs": rearrange(heads["pairs"][rows, queries], "b t s -> b 1 1 t s")}
    scores = masked(scores, part)
    own = rearrange(gradient[rows][:, :, :, queries], "b (g a) p t e -> b g a p t e", a=rep)
    by_pattern = own @ heads["value"][rows, :, None, None].mT
    found = silenced_side(
        heads, "key" if of_keys else "query", rows, slice(None) if of_keys else queries, silent, count
    )
    found |= meeting_side(heads, of_keys, rows, queries, (count, per))
    return found | {
        "scores": by_group(scores, count, per),
        "pattern": by_group(attend(scores, part), count, per),
        "gradient": by_group(by_pattern, count, per),
        "pairs": part["pairs"][row, 0, None],
        "row": row,
        "apart": owners(groups, rep, of_keys, scores.device) if together else None,
        "of_keys": of_keys,
        "cap": heads["cap"],
        "scale": heads["scale"],
    }


def silenced_side(heads, side, rows, span, silent, count):
    """What leaves with a channel, of so many groups, at the tokens in `span`.

    "own": the channels that may fall silent, 0 where they do not, [n channel token]; "gain": by how much a norm
    enlarges the others there, and "mean", what of the mean each takes along, or None; "cos", "sin": [prompt channel
    token].
    """
    where = silent[rows, span].to(heads["value"].device)[:, None, None, :, None]

    def laid_out(name, change):
        held = heads[f"{side}{name}"]
        if held is None:
            return None
        changed = rearrange(change(held[rows, :, :, span]), "b g a t d -> b g a d t")
        return changed.reshape(count, -1, changed.shape[-1])

    return {
        "own": laid_out("", lambda held: held * where),
        "gain": laid_out("_gain", lambda held: torch.where(where, held, 1)),
        "mean": laid_out("_mean", lambda held: held * where),
        "cos": heads["cos"][rows, 0, 0, span].transpose(1, 2),
        "sin": heads["sin"][rows, 0, 0, span].transpose(1, 2),
    }


def meeting_side(heads, of_keys, rows, queries, shape):
    """What meets a channel: "other" and its quarter turn, "quarter" [n h d token]; "weight" of the mean, or None.

    shape: the number of groups, and of the heads of each.
    """
    queried, keyed = heads["query_turned"][rows, :, :, queries], heads["key_turned"][rows]
    meets, rep = queried if of_keys else keyed, heads["query"].shape[2]
    weight = None
    if heads["query_mean"] is not None:
        weighted = (queried, heads["key_weight"][rows])
        weighted = weighted if of_keys else (heads["query_weight"][rows, :, :, queries], keyed)
        weight = by_group(scores_of(*weighted)[..., 0, :], *shape)

    def laid_out(side):
        return by_group(every_head(rearrange(side, "b g a t d -> b g a d t"), rep), *shape)

    return {"other": laid_out(meets), "quarter": laid_out(quarter(meets, heads["turning"])), "weight": weight}


def every_head(held, rep):
    """What all heads of a group have, for each of them: [b g a · ·]."""
    return held.expand(-1, -1, rep, -1, -1)


def by_group(held, count, per):
    """[b g a …] as [n h …]: so many groups of so many heads."""
    return held.reshape(count, per, *held.shape[3:])


def owners(groups, rep, of_keys, device):
    """Of all heads [h] together, which have a channel of each head, or of each group: 1, else 0."""
    if of_keys:
        return torch.eye(groups, device=device).repeat_interleave(rep, 0)
    return torch.eye(groups * rep, device=device)
