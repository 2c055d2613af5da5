"""Sites that are parts of one module (Phi-3's queries, keys and values), beside what is tested in every family."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.effects import score_refusal
from ssn_probe.tracing.means import mean_activations

from . import plain
from .test_effects import OPENINGS, PROMPTS, module_of


@pytest.fixture
def subject(tiny_subject: Callable[[str], Subject]) -> Subject:
    return tiny_subject("phi3")


def test_means_are_those_of_the_part(subject: Subject) -> None:
    found = mean_activations(subject, PROMPTS[:1])
    for site in ("q", "k", "v"):
        every = [(1, site, index) for index in range(subject.widths[site])]
        wanted = plain.activations(module_of(subject), PROMPTS[0], every).mean(0)
        assert torch.allclose(found[site][1].double(), wanted, atol=1e-5)


def test_a_module_may_also_hold_what_is_no_site(subject: Subject) -> None:
    joined = replace(subject.family, fused={"self_attn.qkv_proj": ("gate", "q", "k", "v")})
    modules = places_of(replace(subject, family=joined))["modules"]
    assert [modules[site][2:] for site in ("q", "k", "v")] == [(20, 44), (44, 56), (56, 68)]


@pytest.mark.parametrize(("row", "site"), [(23, "q"), (24, "k"), (35, "k"), (36, "v")])
def test_nan_is_named_by_the_part_in_which_it_begins(subject: Subject, row: int, site: str) -> None:
    weight = module_of(subject).get_parameter("model.layers.1.self_attn.qkv_proj.weight")
    kept = weight[row, 3].item()
    weight[row, 3] = float("nan")
    try:
        with pytest.raises(ModelError, match=f"site {site} of layer 1"):
            score_refusal(subject, PROMPTS, OPENINGS)
    finally:
        weight[row, 3] = kept
