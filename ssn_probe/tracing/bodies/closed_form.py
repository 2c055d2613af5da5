"""How far silencing a neuron would move its module's output, where it feeds a linear map: sites ffn, o, v. Exact.

- ffn, o: the output loses `activation × column`, so it moves by |activation| · ‖column‖.
- v: channel d of a group feeds channel d of every head of that group; ‖Σ_a o_a W_a‖² = oᵀ G o, G the columns' Gram
  matrix.

Axes, by letter: b prompt, t token, n neuron, g key-value group, a head within its group, d, e and f channels of a
head, x residual stream. The algebra runs in double precision for double-precision models, else in single.
"""

import torch
from einops import einsum, rearrange

from .site_access import reach


def exact(tensor):
    """At least single precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def measure(layer, places):
    """What the closed forms need of a layer's weights: column norms, and Gram matrices of the columns of o_proj.

    The full Gram matrices are needed for q and k only; v makes do with the blocks of equal channel.
    """
    known, sites = {}, places["sites"]
    if "ffn" in sites:
        known["ffn"] = column_norms(exact(reach(layer, places["modules"]["ffn"][0]).weight))
    if set(sites) - {"ffn"}:
        attention = reach(layer, places["attention"])
        columns = exact(reach(layer, places["modules"]["o"][0]).weight)
        known["o"] = column_norms(columns)
        heads = rearrange(columns, "x (g a d) -> x g a d", a=attention.num_key_value_groups, d=attention.head_dim)
        if "v" in sites:
            known["v"] = einsum(heads, heads, "x g a d, x g b d -> g d a b")
        if "q" in sites or "k" in sites:
            known["gram"] = einsum(heads, heads, "x g a e, x g b f -> g a e b f")
    return known


def column_norms(matrix):
    """The norms of a matrix's columns. On a CPU `norm(dim=0)` takes five times as long."""
    return matrix.square().sum(0).sqrt()


def token_weights(mask, position):
    """The weight of every token in a prompt's average [b t]: equal shares of real tokens, or the last one alone."""
    if position == "last":
        return torch.ones_like(mask[:, -1:], dtype=torch.float64)
    return mask.double() / mask.sum(-1, keepdim=True)


def linear_effects(activation, norms, weight):
    """Sites ffn and o: [b n]. Only the last tokens count, as many as have weights."""
    activation = exact(activation[:, -weight.shape[1] :])
    return weighted(activation.abs(), weight) * norms


def value_effects(heads, gram, weight):
    """Site v, from the input of o_proj: [b n]."""
    groups, _, rep, _ = gram.shape
    heads = rearrange(exact(heads[:, -weight.shape[1] :]), "b t (g a d) -> (g d) (b t) a", g=groups, a=rep)
    squared = ((heads @ gram.flatten(0, 1)) * heads).sum(-1)
    norms = rearrange(squared.clamp_min(0).sqrt(), "(g d) (b t) -> b t (g d)", g=groups, b=len(weight))
    return weighted(norms, weight)


def weighted(amounts, weight):
    """Each prompt's weighted sum over tokens [b n]. In this order of operands it is a product of matrices as stored."""
    return einsum(weight.to(amounts.dtype), amounts, "b t, b t n -> b n")
