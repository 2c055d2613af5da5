"""What local effects take: a forward pass with the closed forms inside, and the walk over the pattern, see `memory`."""

from collections.abc import Sequence

from ssn_probe.model.memory_of_passes import lasting, layer, mlp, returned_pattern
from ssn_probe.model.shape import Shape

BLOCKS, BLOCK, WIDE = 2, 2**19, 2**25
"""How many blocks of `tracing.bodies.attention_form` are alive at once (with a soft-cap one more, where a norm is over
all heads three), and the elements of each, on a GPU `WIDE`."""


def scoring(shape: Shape, tokens: int, sites: Sequence[str]) -> int:
    """The local effect, averaged over tokens: a forward pass with the closed forms inside."""
    stored, exact, lifted = shape.stored, shape.exact, shape.lifted
    effects = exact * shape.layers * shape.width(sites)
    pattern, seen = returned_pattern(shape, tokens), 0
    stages = [layer(shape, tokens), stored * shape.hidden * tokens + shape.vocabulary * shape.logit + effects]
    if {"q", "k"} & set(sites):
        seen = stored * (shape.query + 2 * shape.key + (shape.query + shape.key) * shape.head_norms)
        made = exact * (shape.query * (4 + shape.head_norms) + shape.key * (3 + shape.head_norms) + 2 * shape.head)
        copies = lifted * (shape.query + 2 * shape.key)
        stages.append(tokens * (3 * stored * shape.hidden + seen + made + copies))
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


def walked(shape: Shape, tokens: int, sites: Sequence[str], block: int) -> int:
    """The walk over [prompt, head, query, channel, key] in blocks (`attention_form.blocks`), at its largest."""
    row = shape.query * tokens
    queries = max(1, block // row)
    if shape.together:  # one prompt at a time
        return (BLOCKS + 3) * shape.exact * row * min(queries, tokens) if {"q", "k"} & set(sites) else 0
    size = row * (queries // tokens * tokens or queries)
    together = max(1, queries // tokens)  # prompts, whose keys are copied and multiplied by what they are turned by
    keys = together * tokens * (shape.key * (6 + 2 * shape.head_norms) + 2 * shape.head)
    return shape.exact * ((BLOCKS + bool(shape.score_cap)) * size + keys) if {"q", "k"} & set(sites) else 0
