"""What a silent channel of a query or a key does through the softmax: the exact ΔA of chosen channels.

A read-out's gradient at the input of o_proj, g_O, says how it moves with the attention pattern of a head: by
Σ_ts ΔA_ts C_ts, C = g_O vᵀ. Attribution patching puts the derivative of the softmax in the place of ΔA; the exact ΔA is
AtP*'s correction for queries and keys (Kramár et al. 2024, 2403.00745), here with rotation, norms and soft-cap as in
`attention_form`. It grows with the square of the length, so it is for a share of the channels, each prompt's own.

The rows of a pattern sum to one, so that Σ_s ΔA_ts C_ts = Σ_s A'_ts (C_ts − Σ_z A_tz C_tz): of a channel only its A' is
computed, and C is centred once for all of them.

Axes: n groups of heads that change together, h head of such a group, u run of channels of a group, r channel of a run,
p probe, t query, s key, x token of either, e channel of a value. A group is the query's head, all heads of a key's
group, or, where a norm is over all heads, all heads of the model.
"""

import math

import torch
from einops import rearrange
from torch.nn.functional import pad

from .attention_form import BLOCK, WIDE, attend, blocks, heads_of, masked, quarter, scores_of
from .closed_form import exact

TOGETHER = 4
"""Channels of a group that are computed together: few, since groups have unequally many."""
SHIFTING = 4
"""Factors whose products are a shift of scores; all of them for as many runs as fit a block are laid out at once."""


def strongest(size, share):
    """The channels that are largest: [prompt neuron], bool, ceil(share · neurons) of each; ties go to the first."""
    count = math.ceil(share * size.shape[-1] - 1e-9)
    order = size.argsort(dim=-1, descending=True, stable=True)[..., :count]
    return torch.zeros_like(size, dtype=torch.bool).scatter(-1, order, True)


def softmax_terms(seen, chosen, gradients, silent):
    """Σ_ts ΔA_ts C_ts, what silencing each chosen channel does to each read-out: {site: [probe prompt neuron]}.

    seen: what `heads_of` takes, off the graph; chosen: {"q" or "k": [prompt neuron], bool}; gradients: each probe's g_O
    [prompt token channel] at the last tokens, elsewhere it is 0; silent: [prompt token], bool, where the channel is
    silent. Neurons that are not chosen have 0, and so have those that are 0 wherever they fall silent.
    """
    heads = heads_of(seen)
    groups, rep, tokens = heads["query"].shape[1:4]
    gradient = rearrange([exact(one) for one in gradients], "p b t (g a e) -> b g a p t e", g=groups, a=rep)
    first = tokens - gradient.shape[4]
    silent = silent.to(heads["value"].device)[:, None, None, :, None]
    found = {site: gradient.new_zeros(len(gradients), *wanted.shape) for site, wanted in chosen.items()}
    most = WIDE if gradient.is_cuda else BLOCK
    for rows, queries in blocks(len(silent), first, tokens, len(gradients) * groups * rep * tokens, most):
        arrived = gradient[rows, :, :, :, queries.start - first : queries.stop - first]
        block = block_of(heads, rows, queries, arrived, silent)
        for site, wanted in chosen.items():
            found[site][:, rows] += block_terms(block, site, wanted[rows], most)
    return found


def block_of(heads, rows, queries, gradient, silent):
    """Some prompts, with some of their queries, and their keys up to the last of these.

    Of `heads_of` what belongs to them, and the same of "silent", "cos" and "sin", all by side, "query…" and "key…";
    "scores", as `attend` takes them, [b g a t s]; "read", the centred C, [b g a p t s]; "pairs" [b 1 1 t s].
    """
    block = {name: heads[name] for name in ("cap", "scale", "together", "turning")}
    for side, span in (("query", queries), ("key", slice(queries.stop))):
        own = {name: heads[side + name] for name in ("", "_turned", "_gain", "_mean", "_weight")}
        own |= {"_cos": heads["cos"], "_sin": heads["sin"], "_silent": silent}
        block |= {side + name: None if held is None else held[rows, :, :, span] for name, held in own.items()}
    block["pairs"] = rearrange(heads["pairs"][rows, queries, : queries.stop], "b t s -> b 1 1 t s")
    block["scores"] = masked(scored(block, "_turned", "_turned").mul_(block["scale"]), block)
    pattern = attend(block["scores"], block)
    shape, merged = gradient.shape[2:5], rearrange(gradient, "b g a p t e -> b g (a p t) e")
    block["read"] = (merged @ heads["value"][rows, :, : queries.stop].mT).unflatten(2, shape)
    for one in block["read"].unbind(3):
        one.sub_((one * pattern).sum(-1, keepdim=True))
    return block


def block_terms(block, site, wanted, most):
    """The terms of the chosen neurons: [probe prompt neuron], a run of a few channels of every group at a time.

    Groups are in the order of how many of their channels are chosen, so that those that have some left are the first.
    """
    groups, rep = block["scores"].shape[1:3]
    per = groups * rep if block["together"] else rep if site == "k" else 1
    chosen = rearrange(wanted, "b (n d) -> (b n) d", n=groups * rep // per)
    counts, order = chosen.sum(-1).sort(descending=True)
    having, row, channels, known = runs_of(chosen[order], counts)
    ordered = in_order(block, site, per, order)
    terms = block["read"].new_zeros(block["read"].shape[3], *channels.shape)
    step = max(1, most // (ordered["scores"][0].numel() * TOGETHER))
    span = max(1, most // (SHIFTING * per * TOGETHER * block["scores"].shape[4]))
    change = {}
    for start, stop, some in walk(having, step, span):
        if start % span == 0:
            those = slice(start, start + span)
            change = changes(block, site, per, order[row[those]], channels[those])
            known[those] &= change["active"]
        runs = slice(start % span, start % span + stop - start)
        terms[:, start:stop] = changed_read_out(ordered, some, change, runs)
    found = terms.new_zeros(len(terms), *chosen.shape)
    owner = order[row][:, None].expand_as(channels)
    found[:, owner[known], channels[known]] = terms[:, known]
    return rearrange(found, "p (b n) d -> p b (n d)", b=len(wanted))


def runs_of(chosen, counts):
    """The chosen channels of every group, by runs: first one run of every group, then a second of those that have it.

    chosen: [n d], bool, and how many, [n], descending. Gives how many groups have a first run, a second …; of each run
    its group [u], its channels [u r], and which of these are chosen [u r], for a last run may have fewer.
    """
    places = torch.arange(0, chosen.shape[1], TOGETHER, device=chosen.device)
    channels = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    channels = pad(channels, (0, -channels.shape[1] % TOGETHER)).unflatten(1, (-1, TOGETHER))
    having = counts > places[:, None]
    number, row = having.nonzero().unbind(1)
    place = places[number][:, None] + torch.arange(TOGETHER, device=chosen.device)
    return having.sum(1).tolist(), row, channels[row, number], place < counts[row, None]


def walk(having, step, span):
    """The runs in pieces: the first, the one after the last, and their groups, of which no more than `step`.

    No piece has a run from before a multiple of `span` and one from after it. having: see `runs_of`.
    """
    first = 0
    for active in having:
        start = first
        while start < first + active:
            stop = min(start + step, first + active, start - start % span + span)
            yield start, stop, slice(start - first, stop - first)
            start = stop
        first += active


def in_order(block, site, per, order):
    """ "scores" [n h 1 t s] and "read" [n h p t s] of groups of so many heads, in that order.

    And "weight" [n h 1 t s], what meets the mean that a channel takes along, and "pairs" [n 1 1 t s], which a soft-cap
    needs; each may be None.
    """

    def by_group(held):
        return held.reshape(len(order), per, -1, *held.shape[-2:])[order]

    weight = None
    if block["query_mean"] is not None:
        weight = by_group(scored(block, *(("_weight", "_turned") if site == "q" else ("_turned", "_weight"))))
    prompt = order // (len(order) // len(block["pairs"]))
    return {
        "scores": by_group(block["scores"]),
        "read": by_group(block["read"]),
        "weight": weight,
        "pairs": None if block["cap"] is None else block["pairs"][prompt],
        "cap": block["cap"],
    }


def scored(block, queries, keys):
    """The products of what queries and what keys have by these names: [b g a t s]."""
    return scores_of(block[f"query{queries}"], block[f"key{keys}"])[..., 0, :]


def changed_read_out(ordered, some, change, runs):
    """Σ A' C of a run of channels each of some groups, over queries, keys and heads: [p u r]."""
    (own, met), (crossed, partner) = change["shifts"]
    shifted = torch.addcmul(ordered["scores"][some], own[runs], met[runs])  # [u h r t s]
    shifted.addcmul_(crossed[runs], partner[runs])
    if ordered["weight"] is not None:
        shifted.addcmul_(change["mean"][runs], ordered["weight"][some])
    if change["gain"] is not None:
        shifted.mul_(change["gain"][runs])
    pairs = None if ordered["cap"] is None else ordered["pairs"][some]
    changed = attend(shifted, {"cap": ordered["cap"], "pairs": pairs})
    terms = ordered["read"][some].flatten(-2) @ changed.flatten(-2).mT  # [u h p r]
    return rearrange(terms.sum(1), "u p r -> p u r")


def changes(block, site, per, group, channels):
    """How scores change with the channels [u r] of a group [u], which has so many heads.

    "shifts": they move by the sum of the products of two pairs, [u h r t 1] and [u h r 1 s]; "mean" [u 1 r t 1], by
    whose product with a weight, too; "gain", what multiplies them then; None where there is none. "active" [u r]: does
    the channel do anything? Of keys, t and s change places.
    """
    side, others, rep = "query" if site == "q" else "key", "key" if site == "q" else "query", block["scores"].shape[2]
    size, own_heads = block["query"].shape[-1], per // rep if site == "k" else per
    head = group[:, None] * own_heads + channels // size  # [u r]
    meeting = group[:, None] * per + torch.arange(per, device=group.device)
    meeting = (meeting // rep if site == "q" else meeting)[:, :, None]  # [u h 1]
    prompt = group[:, None] // (block["scores"].shape[:3].numel() // per // len(block["scores"]))
    turned = channels % size
    partner, sign = quarters(size, block["turning"], group.device)

    def own(held, rows=head):
        return on_axis(picked(held, rows, turned)[:, None], site == "q")

    def met(channel):
        return on_axis(picked(block[f"{others}_turned"], meeting, channel[:, None]), site == "k")

    silent = block[f"{side}_silent"]
    leaving = own(block[side] * silent) * block["scale"]
    cos, sin = (own(block[side + name], prompt) for name in ("_cos", "_sin"))
    shifts = [
        (-leaving * cos, met(turned)),
        (leaving * sin * sign[turned][:, None, :, None, None], met(partner[turned])),
    ]
    mean, gain = block[f"{side}_mean"], block[f"{side}_gain"]
    mean = None if mean is None else own(mean * silent) * block["scale"]
    gain = None if gain is None else own(torch.where(silent, gain, 1))
    moved = [leaving, *([] if mean is None else [mean]), *([] if gain is None else [gain - 1])]
    if block["together"]:  # only the channel's own heads lose it
        heads = torch.arange(per, device=group.device)[:, None] // (rep if site == "k" else 1)
        apart = heads == (channels // size)[:, None]  # [u h r]
        shifts = [(one * apart[..., None, None], other) for one, other in shifts]
    active = torch.stack([one.flatten(3).abs().amax(-1)[:, 0] != 0 for one in moved]).any(0)
    return {"shifts": shifts, "mean": mean, "gain": gain, "active": active}


def picked(held, rows, channels):
    """Of heads [b g a x d], numbered one after the other, the channels: [… x], as the numbers have axes."""
    return rearrange(held, "b g a x d -> (b g a) d x")[rows, channels]


def on_axis(held, queries):
    """What belongs to tokens [… x], as queries [… t 1] or as keys [… 1 s]."""
    return held[..., None] if queries else held[..., None, :]


def quarters(size, turning, device):
    """The quarter turn of a head's channels: which one stands in the place of each, and with which sign."""
    numbers = quarter(torch.arange(1, size + 1, device=device), turning)
    return numbers.abs() - 1, numbers.sign()
