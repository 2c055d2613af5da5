"""What is particular to a family, from its row, in words."""

from collections.abc import Iterator

from ssn_probe.model.families import Family
from ssn_probe.text import listing

PAIRED = {
    "halves": "channels i and i + half of a head",
    "pairs": "channels 2i and 2i + 1 of a head",
    "pairs, angles in halves": "channels 2i and 2i + 1 of a head",
}
"""Which channels the values of `Family.rotation` turn together."""


def particulars(family: Family) -> Iterator[str]:
    """How models of the family differ from Llama."""
    if family.loader != "AutoModelForCausalLM" or family.layers != Family(name="").layers:
        yield "the text model beside a tower for images"
    if family.head_norms:
        yield norms_in_words(family) + (f" where {family.norm_switch} is true" if family.norm_switch else "")
    if family.rotation != "halves":
        yield "neighbouring channels rotated together"
    if family.rotates_if:
        yield "layers without rotation"
    if family.query_growth:
        yield "queries that may grow with their position"
    if family.score_cap:
        yield "capped scores"
    yield from modules_in_words(family)


def norms_in_words(family: Family) -> str:
    """Over what queries and keys are normalised."""
    means = ", less their mean" if family.norm_centred else ""
    return f"queries and keys normalised over {'each head' if family.norm_over == 'head' else 'all heads'}{means}"


def modules_in_words(family: Family) -> Iterator[str]:
    """Modules that hold several parts, and an MLP without a gate."""
    for path, parts in family.fused.items():
        yield f"{listing(parts)} in one module, {path}"
    if sum(len(family.fused.get(path, (path,))) for path in family.ffn_inputs) == 1:
        yield "an MLP without a gate"
