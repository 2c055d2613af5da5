"""Local effects in every family that computes scores in its own way: without weights to read, and in lower precision.

That they equal ablation, whatever the batch and the blocks, is tested wherever the fixture `subject` is.
"""

from collections.abc import Callable

import pytest
from tiny import EVERY_FAMILY, FAMILIES

from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing.effects import decode, score_local

from ..hosted import hosted
from ..test_effects import HALF, PROMPTS, assert_close, local

NEAR = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.16}
"""By the steps of the dtypes, twice what the worst family has (Nemotron, .09 in bfloat16)."""
LATER = [name for name in EVERY_FAMILY if name not in FAMILIES]


@pytest.mark.parametrize("family", ["olmo2", "cohere", "ministral3", "glm4", "phi3"])
def test_a_host_that_shows_no_weights_gives_the_same(single: Callable[[str], Subject], family: str) -> None:
    """Norms over all heads, norms that take away the mean, queries that grow, pairs of channels, fused projections."""
    subject = single(family)
    here, there = score_local(subject, PROMPTS), score_local(hosted(subject, sandbox=True), PROMPTS)
    for site in SITES:
        assert_close(decode(there, site), decode(here, site), HALF)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", LATER)
def test_lower_precision_is_near(tiny_folder: Callable, tiny_subject: Callable, family: str, dtype: str) -> None:
    rough = local(load_subject(str(tiny_folder(family)), dtype=dtype), PROMPTS)
    exact = local(tiny_subject(family), PROMPTS)
    for site in SITES:
        assert_close(rough[site].double(), exact[site], NEAR[dtype])
