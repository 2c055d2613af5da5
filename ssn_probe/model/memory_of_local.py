"""What local effects take: a forward pass with the closed forms inside, and the walk over the pattern, see `memory`."""

import math
from collections.abc import Sequence

from ssn_probe.model.footprint import Stage
from ssn_probe.model.memory_of_passes import lasting, layer, mlp, returned_pattern
from ssn_probe.model.shape import Shape

BLOCKS, BLOCK, WIDE = 2, 2**19, 2**25
"""How many blocks of `tracing.bodies.attention_form` are alive at once (with a soft-cap one more, where a norm is over
all heads three), and the elements of each, on a GPU `WIDE`."""
PROBES, SPANS, CHANGES = 8, 2, 4
"""Of `tracing.bodies.chosen_channels`: directions, blocks of queries at least, and how many tensors of changed patterns
are alive at once."""


def scoring(shape: Shape, tokens: int, sites: Sequence[str]) -> int:
    """The local effect, averaged over tokens: a forward pass with the closed forms inside."""
    stored, exact, lifted = shape.stored, shape.exact, shape.lifted
    effects = exact * shape.layers * shape.width(sites)
    pattern, seen = returned_pattern(shape, tokens), 0
    stages = [layer(shape, tokens), stored * shape.hidden * tokens + shape.vocabulary * shape.logit + effects]
    if {"q", "k"} & set(sites):
        seen = _seen(shape)
        stages.append(tokens * _laid_out(shape))
    if {"v", "o"} & set(sites):
        around = stored * (3 * shape.hidden + 2 * shape.query + 2 * shape.key + shape.unturned) + seen
        amounts = shape.query * (3 * exact if "v" in sites else lifted + exact)
        stages.append(tokens * (around + amounts) + pattern)
        seen += stored * shape.query
    if "ffn" in sites:
        around = stored * (4 * shape.hidden + shape.inner * (3 if shape.halves else 1)) + seen
        stages.append(tokens * (around + shape.inner * (lifted + exact)) + pattern)
    stages.append(tokens * seen + mlp(shape, tokens))
    return lasting(shape, tokens) + effects + max(stages)


def _seen(shape: Shape) -> int:
    """Queries, keys and values of a token, and what norms make of them."""
    return shape.stored * (shape.query + 2 * shape.key + (shape.query + shape.key) * shape.head_norms)


def _laid_out(shape: Shape) -> int:
    """What a token takes when queries and keys are turned: residual streams, `_seen`, and what turning them takes."""
    made = shape.query * (4 + shape.head_norms) + shape.key * (3 + shape.head_norms) + 2 * shape.head
    copies = shape.lifted * (shape.query + 2 * shape.key)
    return 3 * shape.stored * shape.hidden + _seen(shape) + shape.exact * made + copies


def _turned(shape: Shape) -> int:
    """What of that lasts while patterns change: what is turned, gains of a norm; its mean, weight and product."""
    sides = (1 + shape.head_norms + 3 * shape.centred) * (shape.query + shape.key) + 2 * shape.head
    copies = shape.lifted * (shape.query + 2 * shape.key)
    return 3 * shape.stored * shape.hidden + _seen(shape) + shape.exact * sides + copies


def measured(shape: Shape, sites: Sequence[str]) -> tuple[int, int]:
    """Column norms and Gram matrices of all layers (`closed_form.measure`), and what it takes to make them."""
    ffn, attention = "ffn" in sites, bool(set(sites) - {"ffn"})
    repeats = shape.query // shape.key
    numbers = shape.inner * ffn + shape.query * attention + shape.query * repeats * ("v" in sites)
    if {"q", "k"} & set(sites):
        numbers += shape.query * (shape.hidden if shape.together else repeats * shape.head)
    # a layer's weights in exact precision, and their squares or rearranged copies
    down = shape.hidden * shape.inner * (shape.lifted + shape.exact) * ffn
    out = shape.hidden * shape.query * (shape.lifted + 2 * shape.exact) * attention
    return shape.exact * shape.layers * numbers, max(down, out)


def screened(shape: Shape, tokens: int, sites: Sequence[str], exact_qk: float, block: int) -> Stage:
    """The walk over patterns with first order for all q and k, and exact for a share: `chosen_channels`."""
    wanted = [site for site in ("q", "k") if site in sites]
    walks = [_first_order(shape, tokens, wanted, block), _chosen(shape, tokens, wanted, exact_qk, block)]
    measures, _ = measured(shape, sites)
    lasting_here = lasting(shape, tokens) + shape.exact * shape.layers * shape.width(sites)
    return Stage(
        per_prompt=lasting_here + tokens * _turned(shape),
        blocks=(
            (measures, measures),
            (max(taken // prompts for prompts, taken in walks), max(taken for _, taken in walks)),
        ),
    )


def walked(shape: Shape, tokens: int, sites: Sequence[str], block: int) -> int:
    """The walk with all q and k exact, in blocks over [prompt, head, query, channel, key] (`attention_form.blocks`)."""
    if not {"q", "k"} & set(sites):
        return 0
    row = shape.query * tokens
    queries = max(1, block // row)
    if shape.together:  # one prompt at a time
        return (BLOCKS + 3) * shape.exact * row * min(queries, tokens)
    size = row * (queries // tokens * tokens or queries)
    together = max(1, queries // tokens)  # prompts, whose keys are copied and multiplied by what they are turned by
    keys = together * tokens * (shape.key * (6 + 2 * shape.head_norms) + 2 * shape.head)
    return shape.exact * ((BLOCKS + bool(shape.score_cap)) * size + keys)


def _first_order(shape: Shape, tokens: int, wanted: Sequence[str], block: int) -> tuple[int, int]:
    """(prompts together, bytes) of `first_order`: products over keys of some groups, and what queries make of them."""
    groups, repeats = shape.key // shape.head, shape.query // shape.key
    most, head = block // 2, repeats * shape.head * PROBES
    prompts, some = max(1, most // (head * groups * tokens)), min(groups, max(1, most // (head * tokens)))
    queries = max(1, min(-(-tokens // SPANS), most // (some * max(head, repeats * tokens))))
    heads = prompts * some * repeats
    products = (2 + shape.head_norms + shape.centred) if "k" in wanted else 1
    over_keys = heads * tokens * (products * shape.head * PROBES + 2 * PROBES) + prompts * some * tokens * shape.key
    pairs, moves = heads * queries * tokens, heads * queries * shape.head * PROBES
    raw = bool(shape.score_cap or shape.head_norms)
    scoring = pairs * (2 + 2 * shape.score_cap + 2 * shape.centred)
    moving = pairs * (1 + 2 * raw + 2 * shape.centred) + round(2.5 * moves)
    return prompts, shape.exact * (over_keys + max(scoring, moving))


def _chosen(shape: Shape, tokens: int, wanted: Sequence[str], exact_qk: float, block: int) -> tuple[int, int]:
    """(prompts together, bytes) of `exact_effects`: each chosen neuron's pattern, and what that is measured with."""
    repeats = shape.query // shape.key
    counts = {"q": math.ceil(exact_qk * shape.query), "k": math.ceil(exact_qk * shape.key)}
    patterns = {"q": counts["q"], "k": counts["k"] * repeats}
    row = tokens * max(patterns[site] for site in wanted)
    queries = max(1, block // row)
    prompts = max(1, queries // tokens)
    queries = min(queries, tokens)
    # the metric: of the own head, or of a group's heads jointly, over keys, or over channels with the values as basis
    width, basis = min(tokens, shape.head), tokens > shape.head
    metric = {"q": width**2, "k": (repeats * width) ** 2}
    forms = prompts * sum(counts[site] * (metric[site] + basis * tokens * shape.head) for site in wanted)
    forms += prompts * shape.key // shape.head * metric["k"]
    keys = prompts * tokens * (shape.key * (4 + shape.head_norms + shape.centred) + 2 * shape.head)
    scores = 2 * (1 + shape.centred) * prompts * shape.heads * queries * tokens
    size = prompts * queries * row
    factors = (8 + 2 * shape.head_norms + 2 * shape.centred) * size // tokens  # of the shift, without keys
    changes = (CHANGES + shape.score_cap + shape.centred) * size
    return prompts, shape.exact * (forms + keys + scores + factors + changes)
