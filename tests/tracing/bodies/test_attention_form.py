"""The blocks that bound memory, and the two bases of the quadratic form, change nothing."""

import pytest
import torch

from ssn_probe.model.subject import Subject
from ssn_probe.neurons import Site
from ssn_probe.tracing.bodies import attention_form as score_form

from .. import plain
from ..test_effects import assert_close, local, module_of

FORMS = ("llama", "qwen3", "gemma2", "olmo2", "cohere", "ministral3", "glm4")
"""Families that differ in what a block holds."""
LONG = [[1, 3, *range(7, 27), 4], [1, 3, 9, 8, 7, 4]]


@pytest.mark.parametrize("position", ["mean", "last"])
@pytest.mark.parametrize("block", [1, 4000, 12000, 10**9])
@pytest.mark.parametrize("subject", FORMS, indirect=True)
def test_the_size_of_a_block_changes_nothing(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, block: int, position: str
) -> None:
    wanted = local(subject, LONG, position)
    monkeypatch.setattr(score_form, "BLOCK", block)
    found = local(subject, LONG, position)
    for site in ("q", "k"):
        assert_close(found[site], wanted[site], 1e-9)


@pytest.mark.parametrize("site", ["q", "k"])
def test_prompts_longer_than_a_head_is_wide(subject: Subject, site: Site) -> None:
    """23 tokens, heads of 6 channels: the values become the basis."""
    found = local(subject, LONG)[site][0]
    for layer in range(subject.n_layers):
        wanted = plain.ablated_local(module_of(subject), LONG[0], layer, site)
        assert_close(found[layer], wanted.mean(0), 1e-6)


@pytest.mark.parametrize(
    ("prompts", "first", "tokens", "per_query"), [(5, 0, 8, 2**18), (3, 7, 8, 9), (2, 0, 9, 2**30)]
)
def test_blocks_cover_every_query_once(prompts: int, first: int, tokens: int, per_query: int) -> None:
    seen = torch.zeros(prompts, tokens)
    for rows, queries in score_form.blocks(prompts, first, tokens, per_query, score_form.BLOCK):
        seen[rows, queries] += 1
    assert (seen[:, first:] == 1).all()
    assert (seen[:, :first] == 0).all()
