"""Training deltas is training whole matrices under a gradient mask, in every family and at every site."""

from typing import Any

import pytest
import torch
from tiny import tiny_module, tiny_tokenizer
from torch import Tensor
from training_case import EOS, NEURONS, changes, copies, llama, quick, same, settings, tiny_data

from ssn_probe.spec import SITES
from ssn_probe.spec.training_settings import Schedule, Training
from ssn_probe.training.export.merging import write_in, written
from ssn_probe.training.loop.loss import encode_examples

MATRICES = {
    "q": [("self_attn.q_proj", 0)],
    "k": [("self_attn.k_proj", 0)],
    "v": [("self_attn.v_proj", 0)],
    "o": [("self_attn.o_proj", 1)],
    "ffn": [("mlp.gate_proj", 0), ("mlp.up_proj", 0), ("mlp.down_proj", 1)],
}
"""Site → matrices, and the dimension along which its neurons are counted: written out here, not taken from the code."""


def masks_of(module: Any) -> dict[str, Tensor]:
    """Name of a weight → 1 where one of NEURONS has its weights."""
    masks: dict[str, Tensor] = {}
    for layer, site, index in NEURONS:
        for path, dimension in MATRICES[site]:
            name = f"model.layers.{layer}.{path}.weight"
            mask = masks.setdefault(name, torch.zeros_like(module.get_parameter(name)))
            mask.select(dimension, index).fill_(1)
    return masks


def train_masked(module: Any, wanted: Training) -> None:
    """Masked training of full matrices, one row at a time and without padding: slow, plain and independent."""
    rows = encode_examples(tiny_data().examples, tiny_tokenizer(), EOS)
    masks, schedule = masks_of(module), Schedule(settings=wanted, rows=len(rows))
    weights = {name: module.get_parameter(name) for name in masks}
    optimizer = torch.optim.AdamW(weights.values(), weight_decay=0.0)
    for step in range(schedule.total):
        batch = [rows[number] for number in schedule.batch(step)]
        tokens = sum(len(row.response) for row in batch)
        optimizer.zero_grad()
        for row in batch:
            logits = module(input_ids=torch.tensor([row.prompt + row.response])).logits[0, len(row.prompt) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.response), reduction="sum")
            (loss / tokens).backward()
        for name, weight in weights.items():
            assert weight.grad is not None
            weight.grad.mul_(masks[name])
        torch.nn.utils.clip_grad_norm_(weights.values(), wanted.clip)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.step()


@pytest.mark.parametrize("clip", [1.0, 0.05])
def test_deltas_equal_masked_full_training(double: Any, clip: float) -> None:
    before = copies(double)
    trained = quick(double, clip=clip)
    assert same(before, double)
    train_masked(double, settings(clip=clip))
    found = changes(trained)
    assert {part.place.site for part in trained.delta.parts} == set(SITES)
    for part in trained.delta.parts:
        name = f"{part.place.module}.weight"
        dimension = 0 if part.place.axis == "row" else 1
        moved = (double.get_parameter(name) - before[name]).movedim(dimension, 0)[list(part.place.indices)]
        assert moved.abs().max() > 1e-3, "nothing was trained"
        assert (found[part.place.module] - moved).abs().max() < 1e-6, part.place


def test_every_selected_neuron_and_no_other_weight_moves() -> None:
    module = llama()
    before, masks = copies(module), masks_of(module)
    write_in(module, quick(module).delta)
    for name, weight in module.named_parameters():
        mask = masks.get(name, torch.zeros_like(weight)).bool()
        assert torch.equal(weight[~mask], before[name][~mask]), f"{name}: a weight outside the set moved"
        assert bool((weight[mask] != before[name][mask]).all()), f"{name}: a selected weight did not move"


def test_only_deltas_have_gradients_and_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 bytes per trained weight: delta, gradient and two moments, and nothing for any other weight."""
    made: list[torch.optim.AdamW] = []
    adamw = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **options: made.append(adamw(*args, **options)) or made[-1])
    module = llama()
    trained = quick(module)
    (optimizer,) = made
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0
    held = [t for p in group["params"] for t in (p, p.grad, *optimizer.state[p].values()) if t.dim() > 0]
    assert sum(t.numel() * t.element_size() for t in held) == 16 * trained.delta.parameters
    assert all(weight.grad is None for weight in module.parameters())


def test_biases_stay_frozen_where_a_family_has_them() -> None:
    module = tiny_module("qwen2")
    before = copies(module)
    assert any(name.endswith("q_proj.bias") for name in before)
    with written(module, quick(module).delta):
        assert all(torch.equal(before[name], now) for name, now in module.named_parameters() if name.endswith("bias"))
