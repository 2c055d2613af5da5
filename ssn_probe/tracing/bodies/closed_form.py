"""How far silencing a neuron would move its module's output, where it feeds a linear map: sites ffn, o, v. Exact.

- ffn, o: the output loses `activation × column`, so it moves by |activation| · ‖column‖.
- v: channel d of a group feeds channel d of every head of that group; ‖Σ_a o_a W_a‖² = oᵀ G o, G the columns' Gram
  matrix.

Axes, by letter: b prompt, t token, n neuron, g key-value group, a head within its group, d, e and f channels of a
head, x residual stream. The algebra runs in double precision for double-precision models, else in single.
"""

import torch
from einops import einsum, rearrange

from .site_access import reach, weight_of

UNITS = 1024
"""Unit vectors that are mapped at once."""
PROBES = 8
"""Random directions along which effects of q and k are estimated, see `chosen_channels`."""


def exact(tensor):
    """At least single precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def measure(layer, places, known, wanted=("ffn", "o", "v", "gram", "probes", "matrix")):
    """What the closed forms need of a layer's weights, but for what is known: norms and Gram matrices of columns.

    "ffn": column norms of down_proj [n]; of o_proj, "o": column norms [n], "v": the Gram matrices of equal channels
    [g d a a], "gram" all of it [g a d a d], and "probes" the columns' components along `directions` [g a d m], which q
    and k need; or, where a norm is over all heads, the "matrix" itself [x n].
    """
    sites, found = places["sites"], dict(known)
    scored = ("matrix",) if places["norm_over"] == "all heads" else ("gram", "probes")
    needed = {"ffn": {"ffn"}, "o": {"o"}, "v": {"v"}} | {name: {"q", "k"} for name in scored}
    missing = [name for name in wanted if name not in known and needed.get(name, set()) & set(sites)]
    if "ffn" in missing:
        found["ffn"] = torch.cat([column_norms(part) for part in columns(layer, places, "ffn")])
    if set(missing) - {"ffn"}:
        matrix = torch.cat(list(columns(layer, places, "o")), 1)
        groups, rep, size = places["heads"]
        heads = rearrange(matrix, "x (g a d) -> x g a d", g=groups, a=rep, d=size)
        if "o" in missing:
            found["o"] = column_norms(matrix)
        if "v" in missing:
            found["v"] = einsum(heads, heads, "x g a d, x g b d -> g d a b")
        if "gram" in missing:
            found["gram"] = einsum(heads, heads, "x g a e, x g b f -> g a e b f")
        if "probes" in missing:
            found["probes"] = einsum(heads, directions(matrix), "x g a d, x m -> g a d m")
        if "matrix" in missing:
            found["matrix"] = matrix
    return found


def directions(matrix):
    """`PROBES` directions of the residual stream that a matrix [x n] writes to: signs [x m], the same at all times.

    By a hash of their place: no generator, so that every host and version of torch has the same.
    """
    code = torch.arange(len(matrix) * PROBES, device=matrix.device)
    for _ in range(2):
        code = ((code ^ (code >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return (((code >> 16) & 1) * 2 - 1).to(matrix.dtype).view(len(matrix), PROBES)


def columns(layer, places, site):
    """The matrix of the linear map that reads a site, in blocks of its columns [x n]."""
    linear = reach(layer, places["modules"][site][0])
    weight = stored_weight(linear)
    if weight is not None:
        yield exact(weight)
        return
    # In the sandbox of a host a job may call a module and not read it: a unit vector is mapped to a column.
    width, dtype = places["widths"][site], getattr(torch, places["dtype"])
    nothing = linear(torch.zeros(1, width, dtype=dtype))  # a bias
    for first in range(0, width, UNITS):
        last = min(first + UNITS, width)
        yield (exact(linear(unit_vectors(first, last, width, dtype))) - exact(nothing)).flip(0).T


def stored_weight(linear):
    """A module's weight where it is between calls: its own, or what accelerate offloaded; None where a job has none."""
    weight = weight_of(linear)
    if weight is None or weight.device.type != "meta":
        return weight
    offloaded = getattr(getattr(linear, "_hf_hook", None), "weights_map", None)
    return None if offloaded is None else offloaded["weight"]


def unit_vectors(first, last, width, dtype):
    """Unit vectors number `last` − 1 down to `first` [n width], in the memory of two of them: they travel."""
    line = torch.zeros(width + last - first - 1, dtype=dtype)
    line[last - 1] = 1
    return line.as_strided((last - first, width), (1, 1))


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
    return weighted(activation.abs(), weight) * norms.to(activation.device)


def value_effects(heads, gram, weight):
    """Site v, from the input of o_proj: [b n]."""
    groups, _, rep, _ = gram.shape
    heads = rearrange(exact(heads[:, -weight.shape[1] :]), "b t (g a d) -> (g d) (b t) a", g=groups, a=rep)
    squared = ((heads @ gram.to(heads.device).flatten(0, 1)) * heads).sum(-1)
    norms = rearrange(squared.clamp_min(0).sqrt(), "(g d) (b t) -> b t (g d)", g=groups, b=len(weight))
    return weighted(norms, weight)


def weighted(amounts, weight):
    """Each prompt's weighted sum over tokens [b n]. In this order of operands it is a product of matrices as stored."""
    return einsum(weight.to(amounts.device, amounts.dtype), amounts, "b t, b t n -> b n")
