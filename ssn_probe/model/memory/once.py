"""What the local effect takes once, however many prompts run: measures of the weights, and blocks of exact scores."""

from collections.abc import Sequence

from ssn_probe.model.memory.shape import Shape

BLOCK = 2**21
"""`tracing.remote.score_form.BLOCK`, which imports torch."""

BLOCKS = 5
"""Blocks that are alive at once, with those of the queries that are still bound when the keys are walked."""


def measures(shape: Shape, sites: Sequence[str]) -> int:
    """Column norms, and Gram matrices of the columns of o_proj, of all layers: see `closed_form.measure`."""
    numbers = shape.inner if "ffn" in sites else 0
    if set(sites) - {"ffn"}:
        numbers += shape.query
    if "v" in sites:
        numbers += shape.query * shape.repeats
    if "q" in sites or "k" in sites:
        numbers += shape.query * shape.repeats * shape.head
    return shape.exact * shape.layers * numbers


def measuring(shape: Shape, sites: Sequence[str]) -> int:
    """What it takes to make them: a layer's weights in exact precision, and their squares or rearranged copies."""
    down = shape.hidden * shape.inner * (shape.lifted + shape.exact) if "ffn" in sites else 0
    out = shape.hidden * shape.query * (shape.lifted + 2 * shape.exact) if set(sites) - {"ffn"} else 0
    return measures(shape, sites) + max(down, out)


def blocks(shape: Shape, tokens: int, sites: Sequence[str]) -> int:
    """The walk over [prompt, head, query, channel, key] in blocks: see `score_form.blocks`.

    Of small models a batch may be less than a block, and this an overestimate, of some dozen megabytes at most.
    """
    if not {"q", "k"} & set(sites):
        return 0
    row = shape.query * tokens
    queries = max(1, BLOCK // row)
    size = row * (queries // tokens * tokens or queries)
    return BLOCKS * shape.exact * size
