"""What is stored is what was measured: half precision with a scale, batch by batch and as a whole."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ssn_probe.errors import ModelError
from ssn_probe.tracing.batching import Memory
from ssn_probe.tracing.bodies.encoding import encoded
from ssn_probe.tracing.effect_store import Scores, decode, gathered, mean
from ssn_probe.tracing.kept_values import added_up, mean_effects, place


def stored(effects: torch.Tensor, log_odds: torch.Tensor | None = None) -> Scores:
    values, scale = encoded(effects)
    return Scores(values={"ffn": values}, scale={"ffn": scale}, log_odds=log_odds)


def random_scores(seed: int, log_odds: bool = True) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    effects = torch.randn(4, 2, 9, generator=generator, dtype=torch.float64)
    return stored(effects, torch.randn(4, generator=generator) if log_odds else None)


def test_an_effect_of_a_billionth_survives() -> None:
    effects = torch.tensor([[[1e-9, -3e-9, 2e-10], [1e-9, 5e-3, 0.0]]], dtype=torch.float64)
    found = decode(stored(effects), "ffn").double()
    assert torch.allclose(found[0, 0], effects[0, 0], rtol=1e-3, atol=0)
    assert found[0, 1, 0].item() == pytest.approx(1e-9, rel=0.2)
    assert found[0, 1, 2] == 0


@example([0.0, 0.0])
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_storing_errs_by_at_most_half_precision_of_the_largest(effects: list[float]) -> None:
    wanted = torch.tensor([[effects]], dtype=torch.float64)
    found = decode(stored(wanted), "ffn").double()
    assert (found - wanted).abs().max() <= 2**-11 * wanted.abs().max() + 1e-30


def test_mean_over_all_prompts_and_over_some() -> None:
    scores = random_scores(2)
    effects = decode(scores, "ffn").double()
    assert torch.allclose(mean(scores, "ffn"), effects.mean(0))
    assert torch.allclose(mean(scores, "ffn", [3, 1]), effects[[1, 3]].mean(0))
    assert torch.equal(decode(scores, "ffn", [2]), decode(scores, "ffn")[2:3])
    with pytest.raises(ModelError, match="no prompts"):
        mean(scores, "ffn", [])


@pytest.mark.parametrize("log_odds", [True, False])
def test_batches_are_put_together_in_the_order_of_the_prompts(log_odds: bool) -> None:
    scores, shelf = random_scores(3, log_odds), Memory()
    for rows in ([3, 1], [0], [2]):
        values = {"values.ffn": scores.values["ffn"][rows], "scale.ffn": scores.scale["ffn"][rows]}
        shelf.put(rows, values | ({"log_odds": scores.log_odds[rows]} if log_odds else {}))
    whole = gathered(shelf.parts(), ["ffn"], (4, 2), {"ffn": 9})
    assert torch.equal(whole.values["ffn"], scores.values["ffn"])
    assert torch.equal(whole.scale["ffn"], scores.scale["ffn"])
    assert (whole.log_odds is None) is not log_odds
    if log_odds:
        assert torch.equal(whole.log_odds, scores.log_odds)
    assert np.array_equal(place(shelf.parts(), 1, "ffn"), decode(scores, "ffn")[:, 1].numpy())
    assert np.array_equal(mean_effects(shelf.parts(), "ffn"), mean(scores, "ffn").numpy())


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 48, 255, 256, 300, 800])
def test_what_is_added_up_without_torch_is_the_same_to_the_last_bit(count: int) -> None:
    """What was computed with torch keeps its digest; columns beyond a multiple of 16 torch adds up in other orders."""
    terms = torch.randn(count, 3, 32, generator=torch.Generator().manual_seed(count)) ** 5
    found = added_up(count, lambda some: terms[some].numpy())
    assert np.array_equal(found, terms.sum(0, dtype=torch.float64).numpy())
