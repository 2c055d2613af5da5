"""What one row of a batch, one sequence of `tokens` tokens, takes at the peak of each kind of work, in bytes.

A stage's intermediates are gone when the next begins, so a peak is what lasts plus the largest stage. Without gradients
that is the attention, the MLP or a norm of one layer; with gradients, what autograd saves of all layers comes first.
"""

from collections.abc import Sequence

from ssn_probe.model.memory.shape import Shape


def forward(shape: Shape, tokens: int, kept: int) -> int:
    """A forward pass without gradients and without a cache, with logits of the last `kept` positions."""
    # the logits, those in exact precision, and what logsumexp makes of them
    read = shape.vocabulary * kept * (_logits(shape) + shape.lifted + shape.exact)
    return lasting(shape, tokens) + max(_layer(shape, tokens), shape.stored * shape.hidden * tokens + read)


def generating(shape: Shape, tokens: int, new_tokens: int) -> int:
    """Greedy generation: the prompt's pass while the cache fills up, or the last step beside the full cache.

    A step appends to a layer's cache by copying it, and eager attention repeats the keys and values of every head.
    """
    read = shape.vocabulary * (_logits(shape) + 8)  # the copy that the next token is chosen from, and its processing
    prompt = lasting(shape, tokens) + max(_layer(shape, tokens), shape.stored * shape.hidden * tokens + read)
    total = tokens + new_tokens
    copied = shape.stored * total * (2 * shape.key + (2 * shape.query if shape.eager else 0))
    step = 48 * total + shape.stored * total + max(copied + _layer(shape, 1), read)
    return max(cached(shape, tokens, 0) + prompt, cached(shape, tokens, new_tokens) + step)


def cached(shape: Shape, tokens: int, new_tokens: int) -> int:
    """Keys and values of all layers. A sliding window frees nothing before the step after the prompt."""
    total = tokens + new_tokens
    rows = sum(total if window is None else max(tokens, min(total, window)) for window in shape.windows)
    return 2 * shape.key * shape.stored * rows


def differentiating(shape: Shape, tokens: int, kept: int, sites: Sequence[str]) -> int:
    """A forward pass that saves for the backward pass, and the backward pass.

    The peak is where they meet, unless the gradients of all sites, which are kept until the last is there, outweigh
    what has been saved by then.
    """
    stored, exact = shape.stored, shape.exact
    ends = tokens * shape.hidden * (4 + 2 * stored)  # final norm, embedding
    saved = lasting(shape, tokens) + shape.layers * (saved_by_layer(shape, tokens) + read_beside(shape, tokens)) + ends
    norm, mlp = 24 * shape.hidden, stored * 3 * (shape.inner + shape.hidden)
    back = tokens * max(norm, mlp)
    if shape.eager:
        pairs = _upcast(shape) * shape.heads * tokens**2
        back = max(back, tokens * stored * (2 * shape.query + 2 * shape.hidden + shape.inner) + pairs)
    odds = shape.vocabulary * kept * (_logits(shape) + shape.lifted + 4 * exact)
    width = shape.width(sites)
    shares = 2 * exact * shape.layers * width + 4 * exact * tokens * max(shape.inner, shape.query)
    gradients = lasting(shape, tokens) + 2 * shape.layers * stored * tokens * width + shares
    return max(saved + max(back, odds), gradients)


def saved_by_layer(shape: Shape, tokens: int) -> int:
    """What autograd saves of a layer for the backward pass to activations, parameters being frozen.

    The arguments of norms in single precision; gate, its activation and up; rotated queries, keys and values (a copy
    for every query head, where a mask or eager attention asks for it), and the attention's output, or all of its
    scores where it is eager.
    """
    stored = shape.stored
    numbers = 3 * shape.inner + shape.query + 2 * (shape.query if shape.copied else shape.key)
    norms = 4 * shape.norms * shape.hidden
    if shape.head_norms:
        norms += 4 * (shape.query + shape.key)
    means = 4 * (shape.norms + (shape.query + shape.key) // shape.head * shape.head_norms)
    if not shape.eager:
        logsumexp, mask = 4 * shape.heads, stored * tokens
        return tokens * (stored * (numbers + shape.query) + norms + means + logsumexp + mask)
    scores = 4 + (0 if stored == 4 else stored) + (stored if shape.score_cap else 0)
    return tokens * (stored * numbers + norms + means + scores * shape.heads * tokens)


def read_beside(shape: Shape, tokens: int) -> int:
    """The sites of a layer that autograd does not save and that are kept for their gradients to be multiplied with."""
    numbers = shape.inner
    if not (shape.head_norms and shape.stored == 4):  # else the norm has saved them
        numbers += shape.query + shape.key
    if shape.copied:
        numbers += shape.key
    if shape.eager:
        numbers += shape.query
    return shape.stored * tokens * numbers


def scoring(shape: Shape, tokens: int, sites: Sequence[str], averaged: int) -> int:
    """The local effect: a forward pass with the closed forms inside; `averaged` is how many tokens count."""
    stored, exact, lifted = shape.stored, shape.exact, shape.lifted
    effects = exact * shape.layers * shape.width(sites)
    pattern = stored * shape.heads * tokens**2 if shape.eager else 0
    seen = 0
    logits = shape.vocabulary * _logits(shape) + effects
    stages = [_layer(shape, tokens), shape.stored * shape.hidden * tokens + logits]
    if "q" in sites or "k" in sites:
        seen = stored * (shape.query + 2 * shape.key + (shape.query + shape.key) * shape.head_norms)
        made = exact * (shape.query * (4 + shape.head_norms) + shape.key * (3 + shape.head_norms) + 2 * shape.head)
        copies = lifted * (shape.query + 2 * shape.key)
        stages.append(tokens * (3 * stored * shape.hidden + seen + made + copies))
    if "v" in sites or "o" in sites:
        around = tokens * (stored * (3 * shape.hidden + 2 * shape.query + 2 * shape.key) + seen) + pattern
        stages.append(around + averaged * shape.query * (lifted + (3 if "v" in sites else 1) * exact))
        seen += stored * shape.query
    if "ffn" in sites:
        around = tokens * (stored * (4 * shape.hidden + shape.inner) + seen) + pattern
        stages.append(around + averaged * shape.inner * (lifted + exact))
    stages.append(tokens * seen + _mlp(shape, tokens))
    return lasting(shape, tokens) + effects + max(stages)


def ablating(shape: Shape, tokens: int) -> int:
    """A row of the brute force: a forward pass, then the whole final state and its difference from the first row's."""
    moved = tokens * shape.hidden * (2 * shape.stored + shape.lifted + 2 * shape.exact)
    last = shape.stored * tokens * max(shape.inner, shape.query)  # the site that was changed last is still at hand
    return max(forward(shape, tokens, 1) + last, lasting(shape, tokens) + moved + last)


def lasting(shape: Shape, tokens: int) -> int:
    """Ids, masks and positions, and the angles of the rotation: made once per pass."""
    kinds = len(set(shape.windows))
    mask = 1 + shape.stored * (kinds if shape.eager else 1)
    return tokens * (48 + mask * tokens + 2 * shape.stored * shape.head)


def _layer(shape: Shape, tokens: int) -> int:
    return max(_norm(shape, tokens), _attention(shape, tokens), _mlp(shape, tokens))


def _norm(shape: Shape, tokens: int) -> int:
    """The embedding, a layer's input and its residual stream; the argument in single precision, and its multiple."""
    return tokens * shape.hidden * (3 * shape.stored + 8)


def _attention(shape: Shape, tokens: int) -> int:
    stored, pairs = shape.stored, shape.heads * tokens**2
    around = tokens * stored * (3 * shape.hidden + 2 * shape.key)
    # queries, then keys, before, during and after the rotation
    turned = around + tokens * stored * max(4 * shape.query, 2 * shape.query + 3 * shape.key)
    if shape.eager:  # the softmax, and what it makes of the values, which is then rearranged
        numbers = tokens * stored * shape.query
        return max(turned, around + 3 * numbers + pairs * _upcast(shape), around + 5 * numbers + pairs * stored)
    normed = tokens * (stored * (3 * shape.hidden + shape.query) + 8 * shape.query) if shape.head_norms else 0
    return max(turned, normed)


def _mlp(shape: Shape, tokens: int) -> int:
    """Gate, up and their product beside the residual streams, and the pattern that eager attention has returned."""
    pattern = shape.stored * shape.heads * tokens**2 if shape.eager else 0
    return tokens * shape.stored * (4 * shape.hidden + 3 * shape.inner) + pattern


def _logits(shape: Shape) -> int:
    """Bytes per logit in the model's own dtype; a soft-cap makes two more of them."""
    return shape.stored * (3 if shape.logit_cap else 1)


def _upcast(shape: Shape) -> int:
    """Bytes per query and key of eager attention's softmax, which is in single precision."""
    return max(2 * shape.stored, shape.stored + 4 + shape.lifted)
