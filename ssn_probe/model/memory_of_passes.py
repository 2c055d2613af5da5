"""What a row of a batch takes in a forward pass, in generation, and in a pass that goes back, see `memory`."""

from collections.abc import Sequence

from ssn_probe.model.shape import Shape


def lasting(shape: Shape, tokens: int) -> int:
    """Ids, masks and positions, and the angles of the rotation: made once per pass."""
    kinds = len(set(shape.windows))
    masks = 1 + shape.stored * kinds if shape.eager else kinds + shape.stored
    return tokens * (48 + masks * tokens + 2 * kinds * shape.stored * shape.head)


def layer(shape: Shape, tokens: int) -> int:
    """The largest stage of a layer: a norm, its argument in single precision; the attention; the MLP."""
    norm = tokens * shape.hidden * (3 * shape.stored + 8)
    return max(norm, attention(shape, tokens), mlp(shape, tokens))


def attention(shape: Shape, tokens: int) -> int:
    stored, pairs = shape.stored, shape.heads * tokens**2
    around = tokens * stored * (3 * shape.hidden + 2 * shape.key + shape.unturned)
    # queries, then keys, before, during and after the rotation; what it puts together attention must rearrange
    turned = around + tokens * stored * max((4 + shape.partly) * shape.query, 2 * shape.query + 3 * shape.key)
    if shape.single:
        turned = around + tokens * (shape.query * (stored + shape.single) + shape.key * shape.lifted)
    if shape.eager:  # the softmax, and what it makes of the values, which is then rearranged
        numbers = tokens * stored * shape.query
        return max(turned, around + 3 * numbers + pairs * shape.upcast, around + 5 * numbers + pairs * stored)
    normed = (
        tokens * (stored * (3 * shape.hidden + shape.query) + (shape.normed + 4) * shape.query)
        if shape.head_norms
        else 0
    )
    return max(turned, normed)


def returned_pattern(shape: Shape, tokens: int) -> int:
    """What eager attention has returned beside its output."""
    return shape.stored * shape.heads * tokens**2 if shape.eager else 0


def mlp(shape: Shape, tokens: int) -> int:
    """Gate, up and their product, or what an activation alone takes, beside the residual streams."""
    return round(tokens * shape.stored * (4 * shape.hidden + shape.alive * shape.inner)) + returned_pattern(
        shape, tokens
    )


def forward(shape: Shape, tokens: int, kept: int) -> int:
    """A pass without gradients and without a cache, with logits of the last `kept` positions."""
    # the logits, those in exact precision, and what logsumexp makes of them
    read = shape.vocabulary * kept * (shape.logit + shape.lifted + shape.exact)
    return lasting(shape, tokens) + max(layer(shape, tokens), shape.stored * shape.hidden * tokens + read)


def generating(shape: Shape, tokens: int, new_tokens: int) -> int:
    """Greedy generation: the prompt's pass while the cache fills up, or the last step beside the full cache.

    A step appends to a layer's cache by copying it, and eager attention repeats the keys and values of every head.
    """
    read = shape.vocabulary * (shape.logit + 8)  # the copy that the next token is chosen from, and its processing
    prompt = lasting(shape, tokens) + max(layer(shape, tokens), shape.stored * shape.hidden * tokens + read)
    total = tokens + new_tokens
    copied = shape.stored * total * (2 * shape.key + (2 * shape.query if shape.eager else 0))
    step = 48 * total + shape.stored * total + max(copied + layer(shape, 1), read)
    return max(cached(shape, tokens, 0) + prompt, cached(shape, tokens, new_tokens) + step)


def cached(shape: Shape, tokens: int, new_tokens: int) -> int:
    """Keys and values of all layers. A sliding window frees nothing before the step after the prompt."""
    total = tokens + new_tokens
    rows = sum(total if window is None else max(tokens, min(total, window)) for window in shape.windows)
    return 2 * shape.key * shape.stored * rows


def backward(shape: Shape, tokens: int, sites: Sequence[str]) -> tuple[int, int, int]:
    """What a pass saves, activations of sites included; what goes back beside it; a gradient times its activation."""
    stored, exact = shape.stored, shape.exact
    ends = tokens * shape.hidden * (4 + 2 * stored)  # final norm, embedding
    layers = shape.layers * (saved(shape, tokens) + stored * tokens * shape.width(sites))
    whole = lasting(shape, tokens) + layers + ends
    back = tokens * max(24 * shape.hidden, stored * 3 * (shape.inner + shape.hidden))  # a norm, the MLP
    if shape.eager:
        pairs = shape.upcast * shape.heads * tokens**2
        back = max(back, tokens * stored * (2 * shape.query + 2 * shape.hidden + shape.inner) + pairs)
    product = 2 * (exact + shape.lifted) * max(shape.inner, shape.query) + stored * (shape.inner + 3 * shape.hidden)
    return whole, back, tokens * product


def saved(shape: Shape, tokens: int) -> int:
    """What autograd saves of a layer, parameters being frozen: a product saves both factors, a norm its argument.

    Gate, its activation and up; rotated queries, keys and values; the attention's output, or all scores where it is
    eager; the arguments and means of norms in single precision.
    """
    stored = shape.stored
    numbers = round(shape.saved * shape.inner) + shape.query + 2 * (shape.query if repeats_keys(shape) else shape.key)
    norms = shape.normed * (shape.norms * shape.hidden + (shape.query + shape.key) * shape.head_norms)
    norms += 4 * (shape.norms + (shape.query + shape.key) // shape.head * shape.head_norms)  # their means
    if not shape.eager:
        return tokens * (stored * (numbers + shape.query + tokens) + norms + 4 * shape.heads)
    scores = 4 + (0 if stored == 4 else stored) + (stored if shape.score_cap else 0)
    return tokens * (stored * numbers + norms + scores * shape.heads * tokens)


def repeats_keys(shape: Shape) -> bool:
    """Are keys and values copied for every query head? A single key head is seen by all of them as it is."""
    return shape.eager or shape.query > shape.key > shape.head
