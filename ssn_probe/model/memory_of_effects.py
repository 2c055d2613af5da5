"""What a prompt takes while its effects on a read-out or on the final state are computed, see `memory`."""

from collections.abc import Sequence

from ssn_probe.model.footprint import Stage
from ssn_probe.model.memory_of_passes import backward, forward, lasting
from ssn_probe.model.shape import Shape

SHIFTS, TOGETHER = 2, 4
"""How many tensors of shifted scores `tracing.bodies.softmax_term` has at once, without a soft-cap, and of how many
channels of a head."""


def differentiating(
    shape: Shape, tokens: int, kept: int, sites: Sequence[str], softmax: bool, block: int
) -> tuple[int, Stage]:
    """A pass that saves for the backward pass, and the backward pass: the peak is where they meet. See `_patterns`.

    Of two passes it is the second, beside which the activations of the first are kept.
    """
    exact, width = shape.exact, shape.width(sites)
    softmax = softmax and bool({"q", "k"} & set(sites))
    watched = sorted({*sites, *("qkv" if softmax else "")})
    saved, back, product = backward(shape, tokens, watched)
    saved -= narrowed(shape, tokens - kept, sites) if shape.narrow else 0
    saved += shape.stored * tokens * shape.width(watched)  # the first layer's scaled ones, up to which it goes back
    shares = 3 * exact * shape.layers * width
    odds = shape.vocabulary * kept * (shape.logit + shape.lifted + 4 * exact)
    row = saved + shares + max(back, odds, product)
    return (row + seen(shape, tokens), patterns(shape, tokens, 1, shares, block)) if softmax else (row, Stage())


def narrowed(shape: Shape, tokens: int, sites: Sequence[str]) -> int:
    """What of the last layer's MLP and sites is not there of so many tokens that are not read."""
    here = {"o", "ffn"} & set(sites)
    return tokens * shape.stored * round(shape.saved * shape.inner + shape.width(sorted(here)))


def sketching(shape: Shape, tokens: int, sites: Sequence[str], probes: int, block: int) -> tuple[int, Stage]:
    """The final effect: a pass back for every probe, of which the products of all layers are kept. See `_patterns`.

    For q and k the gradients at the input of o_proj are kept, too.
    """
    softmax = bool({"q", "k"} & set(sites))
    watched = sorted({*sites, *("qkvo" if softmax else "")})
    saved, back, product = backward(shape, tokens, watched)
    kept = probes * shape.layers * shape.exact * shape.width(sites)
    row = saved + max(back, product) + kept
    if not softmax:
        return row, Stage()
    arrived = probes * shape.layers * shape.stored * tokens * shape.query
    return row + seen(shape, tokens) + arrived, patterns(shape, tokens, probes, kept, block)


def seen(shape: Shape, tokens: int) -> int:
    """Beside queries, keys and values, what `local.seen_by_attention` keeps of all layers: what norms make of heads."""
    return shape.layers * shape.stored * tokens * (shape.query + shape.key) * shape.head_norms


def patterns(shape: Shape, tokens: int, probes: int, kept: int, block: int) -> Stage:
    """When passes back are done patterns change, layer by layer.

    Of every layer there are queries, keys and values, and each probe's gradient at the input of o_proj; beside them
    `kept`, and what `softmax_term` makes of one layer.
    """
    exact, query, key, norms = shape.exact, shape.query, shape.key, shape.head_norms
    held = shape.layers * shape.stored * tokens * (query + 2 * key + probes * query) + seen(shape, tokens) + kept
    copies = shape.lifted * (query + 2 * key + norms * (query + key))
    sides = (1 + norms + 3 * shape.centred) * (query + key)  # turned; gains of a norm; its mean, weight and product
    meeting = 4 * query * (not shape.together) + (norms + shape.centred) * query + key  # what `changes` gives
    numbers = copies + exact * (sides + meeting + 3 * probes * query)
    # a block: scores, pattern, what they are made by, and the pattern's gradients; and what single channels change
    rows = max(1, block // (probes * shape.heads * tokens))
    pairs = exact * shape.heads * tokens * (4 + shape.centred + probes)
    shifts, many = exact * (SHIFTS + shape.score_cap), TOGETHER * shape.heads * tokens
    wide = 4 * exact * shape.together * shape.heads * query  # what meets every channel, of all heads
    group = (many if shape.together else TOGETHER * query // key * tokens) * min(rows, tokens)
    most = min(many * rows, group * max(1, block // group))
    return Stage(
        per_prompt=held + tokens * numbers,
        blocks=(
            (tokens * pairs, rows * pairs),
            (tokens * shifts * many, shifts * most),
            (tokens * wide, exact * shape.together * block),
        ),
    )


def ablating(shape: Shape, tokens: int) -> int:
    """A row of the brute force: a forward pass, then the whole final state and its difference from the first row's."""
    moved = tokens * shape.hidden * (2 * shape.stored + shape.lifted + 2 * shape.exact)
    last = shape.stored * tokens * max(shape.inner, shape.query)  # the site that was changed last is still at hand
    return max(forward(shape, tokens, 1), lasting(shape, tokens) + moved) + last
