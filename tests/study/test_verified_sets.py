"""Sets that are screened and verified, against brute force over every neuron: `python -m benchmarks.verification`.

Gemma-2's organism is not shipped and takes minutes to make; its row is in docs/effects.md.
"""

import pytest

from benchmarks.verification import CASES, compared, measured, prompts_of
from ssn_probe.model.subject import load_subject


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "rule"), [("organism", "harmful, .5 % per site"), ("organism:planted-qwen3", "paper, 3 % per layer")]
)
def test_verified_sets_are_those_of_brute_force(model: str, rule: str) -> None:
    subject = load_subject(model)
    tokens = prompts_of(subject)
    found = compared(CASES[rule], measured(subject, tokens), tokens)
    assert found.found == (1.0, 1.0)
    assert min(found.screened) < 1  # else there was nothing to verify
    assert found.ablations <= 0.04
    assert found.size > 20
