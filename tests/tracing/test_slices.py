"""Sites that are parts of one module (Phi-3's queries, keys and values): what holds of a module holds of a part of it.

The tests that are imported are those of the other families, against the same plain hooks.
"""

from collections.abc import Callable

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.effects import score_refusal
from ssn_probe.tracing.means import mean_activations

from . import plain
from .hosted import hosted
from .test_ablations import test_it_is_what_silencing_the_neuron_takes_from_the_log_odds  # noqa: F401
from .test_edits import test_edits_equal_scaled_weights_in_every_logit  # noqa: F401
from .test_effects import (
    DIRECTION,
    OPENINGS,
    PROMPTS,
    along_direction,
    module_of,
    test_final_equals_ablation,  # noqa: F401
    test_refusal_equals_the_derivative_by_a_gate,  # noqa: F401
    test_refusal_is_the_slope_where_the_strongest_are_scaled,
)
from .test_hosted_bodies import RUNS
from .test_patch import (
    test_captured_steps_are_those_of_a_run_without_cache_or_padding,  # noqa: F401
    test_log_odds_are_patched_at_the_prompts_last_position_alone,  # noqa: F401
    test_patched_responses_are_those_of_plain_hooks,  # noqa: F401
)

ON_HOSTS = [name for name in RUNS if not name.startswith("local")]
slope_where_the_strongest_are_scaled = test_refusal_is_the_slope_where_the_strongest_are_scaled
del test_refusal_is_the_slope_where_the_strongest_are_scaled  # all its cases would take seconds


@pytest.fixture
def subject(tiny_subject: Callable[[str], Subject]) -> Subject:
    return tiny_subject("phi3")


def test_queries_are_scaled_and_keys_and_values_after_them(subject: Subject) -> None:
    slope_where_the_strongest_are_scaled(subject, DIRECTION, along_direction, 0.5, 0.1)


@pytest.mark.parametrize("sandbox", [False, True], ids=["trusted", "sandbox"])
@pytest.mark.parametrize("run", ON_HOSTS)
def test_a_host_computes_the_same(single: Callable[[str], Subject], run: str, sandbox: bool) -> None:
    subject = single("phi3")
    here, there = RUNS[run](subject), RUNS[run](hosted(subject, sandbox=sandbox))
    assert all(there[name].equal(wanted) for name, wanted in here.items())


def test_means_are_those_of_the_part(subject: Subject) -> None:
    found = mean_activations(subject, PROMPTS[:1])
    for site in ("q", "k", "v"):
        every = [(1, site, index) for index in range(subject.widths[site])]
        wanted = plain.activations(module_of(subject), PROMPTS[0], every).mean(0)
        assert torch.allclose(found[site][1].double(), wanted, atol=1e-5)


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
