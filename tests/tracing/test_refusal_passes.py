"""How far the passes of the refusal effect go, forward and back: as far as what decides it, with the same values."""

from typing import Any

import pytest
import torch
from tiny import write_tiny
from torch import Tensor

from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing import effects
from ssn_probe.tracing.bodies.softmax_term import runs_of, walk
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.effects import Scores, decode, score_refusal

from .test_effects import DIRECTION, HALF, OPENINGS, PROMPTS, assert_close, module_of

SINGLE = Openings(refusal=((10,), (12,)), compliant=((13,), (17,)))
KEPT = {"one token": 1, "several tokens": 4, "a direction": 1}
READOUTS: dict[str, Any] = {"one token": SINGLE, "several tokens": OPENINGS, "a direction": DIRECTION}


def scored(subject: Subject, readout: Any, at: float = 1.0, **rest: Any) -> Scores:
    return score_refusal(subject, PROMPTS, readout, at=at, candidates=0.2, exact_qk=0.25, **rest)


@pytest.mark.parametrize("at", [1.0, 0.5])
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("subject", ["llama", "gemma2", "cohere", "phi3", "olmo2"], indirect=True)
def test_a_last_layer_that_runs_where_it_is_read_has_the_same_effects(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, readout: str, at: float
) -> None:
    found = scored(subject, READOUTS[readout], at)
    monkeypatch.setattr(effects, "places_reading_last", places_of)
    wanted = scored(subject, READOUTS[readout], at)
    for site in SITES:
        assert_close(decode(found, site), decode(wanted, site), 2 * HALF)
    assert found.log_odds is not None
    assert wanted.log_odds is not None
    assert torch.allclose(found.log_odds, wanted.log_odds, atol=1e-5)


@pytest.mark.parametrize("readout", READOUTS)
def test_the_last_layer_runs_where_it_is_read(llama: Subject, monkeypatch: pytest.MonkeyPatch, readout: str) -> None:
    places, seen = {}, {}
    for number, layer in enumerate(module_of(llama).model.layers):
        parts = {"q": layer.self_attn.q_proj, "k": layer.self_attn.k_proj, "o": layer.self_attn.o_proj}
        places |= {id(part.weight): (number, name) for name, part in (parts | {"ffn": layer.mlp.gate_proj}).items()}
    linear = torch.nn.functional.linear

    def recorded(given: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        if id(weight) in places:
            seen.setdefault(places[id(weight)], set()).add(given.shape[1])
        return linear(given, weight, *rest)

    monkeypatch.setattr(torch.nn.functional, "linear", recorded)
    scored(llama, READOUTS[readout])
    whole, last = max(map(len, PROMPTS)) + KEPT[readout] - 1, llama.n_layers - 1
    assert len(seen) == len(places)
    for (layer, name), widths in seen.items():
        assert widths == {KEPT[readout] if layer == last and name != "k" else whole}


@pytest.mark.parametrize("sites", [SITES, ("ffn",), ("k", "o")])
def test_no_gradient_goes_back_beyond_the_first_activations(llama: Subject, sites: Any) -> None:
    """Nor do fewer sites have other effects."""
    arrived = []

    def watch(_module: Any, _given: Any, made: Any) -> None:
        if made.requires_grad:
            made.register_hook(arrived.append)

    first = module_of(llama).model.layers[0]
    every = scored(llama, SINGLE)
    hooks = [first.input_layernorm.register_forward_hook(watch)]
    try:
        found = scored(llama, SINGLE, sites=sites)
    finally:
        hooks[0].remove()
    assert not arrived
    for site in sites:
        assert_close(decode(found, site), decode(every, site), 2 * HALF)


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere"])
def test_dead_queries_and_keys_have_no_effect(tmp_path: Any, family: str) -> None:
    """Not even one of rounding: a score of 0 is never selected."""
    subject = load_subject(str(write_tiny(tmp_path / "model", family)), dtype="float32", device="cpu")
    with torch.no_grad():
        for layer in module_of(subject).model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                part.weight[1::2] = 0
    found = score_refusal(subject, PROMPTS, OPENINGS, at=1.0, exact_qk=1.0)
    for site in ("q", "k"):
        values = decode(found, site)
        assert not values[..., 1::2].any()
        assert values[..., ::2].any()


def test_runs_are_the_chosen_channels_and_pieces_are_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.tracing.bodies.softmax_term.TOGETHER", 3)
    chosen = torch.rand(7, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    counts, order = chosen.sum(-1).sort(descending=True)
    having, row, channels, known = runs_of(chosen[order], counts)
    found = torch.zeros_like(chosen)
    found[order[row][:, None].expand_as(channels)[known], channels[known]] = True
    assert found.equal(chosen)
    assert known.sum() == chosen.sum()
    pieces = list(walk(having, 2, 3))
    assert [run for start, stop, _ in pieces for run in range(start, stop)] == list(range(len(row)))
    for start, stop, some in pieces:
        assert list(range(some.start, some.stop)) == row[start:stop].tolist()
        assert stop - start <= 2
        assert start // 3 == (stop - 1) // 3
