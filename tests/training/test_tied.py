"""One change for all neurons of a cluster: what it trains, what it leaves alone, and its file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_tokenizer
from training_case import EOS, copies, equal, file_of, llama, logits, merge, quick, same, settings, tiny_data

from ssn_probe.errors import RecipeError, ResultError
from ssn_probe.spec.training_settings import Schedule
from ssn_probe.training.delta_file.file import read_delta, write_delta
from ssn_probe.training.export.merging import unmerge, written
from ssn_probe.training.loop.loss import batch_of, encode_examples, response_loss, response_tokens
from ssn_probe.training.tensor_files import read_tensors, write_tensors
from ssn_probe.training.weights.delta import Delta

FFN = [(0, "ffn", 3), (0, "ffn", 11), (0, "ffn", 4), (1, "ffn", 0), (1, "ffn", 7)]
CLUSTERS = dict(zip(FFN, (0, 1, 0, 0, 0), strict=True))
"""Neurons 3 and 4 of layer 0 share a change, and both of layer 1."""
TIED: dict[str, Any] = {"neurons": FFN, "clusters": CLUSTERS}
STRONG: dict[str, Any] = {"lr": 1e-2, "warmup": 0.0}


def tied_delta(module: Any, **options: Any) -> Delta:
    found = quick(module, **TIED | STRONG | options).delta
    assert isinstance(found, Delta)
    return found


def test_neurons_of_a_cluster_get_one_change_and_nothing_else_moves() -> None:
    module = llama()
    delta, before = tied_delta(module), copies(module)
    assert {part.name.rsplit(".", 1)[1] for part in delta.parts} == {"gate_proj", "up_proj"}, "columns are frozen"
    for part in delta.parts:
        rows = dict(zip(part.place.indices, part.change, strict=True))
        if part.layer == 0:
            assert torch.equal(rows[3], rows[4])
            assert not torch.allclose(rows[3], rows[11])
        else:
            assert torch.equal(rows[0], rows[7])
        assert part.change.abs().max() > 1e-3
    width = module.config.hidden_size
    assert delta.parameters == 2 * (2 + 1) * width
    assert sorted(delta.neurons) == sorted(FFN)
    with written(module, delta):
        assert not torch.allclose(logits(module), logits(llama()))
    assert same(before, module)


def test_it_trains_what_a_loop_written_by_hand_trains() -> None:
    """Autograd through weights in which the cluster's row is added to each of its neurons."""
    data, plan = tiny_data(), Schedule(settings=settings(**STRONG), rows=12)
    found = tied_delta(llama(), data=data)
    by_hand = llama()
    shared = {part.name: torch.zeros(2, part.change.shape[1]).requires_grad_() for part in found.parts}
    optimizer = torch.optim.AdamW(shared.values(), weight_decay=0.0)
    rows = encode_examples(data.examples, tiny_tokenizer(), EOS, None)
    for step in range(plan.total):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        weights = {}
        for part in found.parts:
            assert part.clusters is not None
            base = by_hand.get_submodule(part.name).weight.detach()
            spread = shared[part.name][part.clusters.long()]
            weights[f"{part.name}.weight"] = base.index_add(0, torch.tensor(part.place.indices), spread)
        batch = [rows[number] for number in plan.batch(step)]
        optimizer.zero_grad()
        tried = Called(by_hand, weights)
        (response_loss(tried, batch_of(batch, 0, torch.device("cpu"))) / response_tokens(batch)).backward()
        torch.nn.utils.clip_grad_norm_(list(shared.values()), 1.0)
        optimizer.step()
    for part in found.parts:
        assert part.clusters is not None
        assert (part.change - shared[part.name][part.clusters.long()]).abs().max() < 1e-6


class Called(torch.nn.Module):
    """A model with other weights in the place of its own."""

    def __init__(self, module: Any, weights: dict[str, torch.Tensor]):
        super().__init__()
        self.inner, self.weights = [module], weights

    def forward(self, **inputs: Any) -> Any:
        return torch.func.functional_call(self.inner[0], self.weights, kwargs=inputs)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("training", "_modules") else getattr(self.inner[0], name)


def test_it_is_written_and_taken_out_in_every_family(double: Any) -> None:
    module = double
    before = copies(module)
    file = file_of(module, warmup=0.0, **TIED)
    base = logits(module)
    merge(module, file)
    assert not torch.allclose(logits(module), base)
    unmerge(module, file)
    assert same(before, module)
    told = {row["site"]: row for row in file.about["parameters"]}
    assert told["ffn"]["neurons"] == len(FFN)
    assert told["all"]["parameters"] == file.delta.parameters


def test_its_file_says_what_it_is_and_reads_back(tmp_path: Path) -> None:
    file = file_of(llama(), warmup=0.0, **TIED)
    write_delta(tmp_path / "x.safetensors", file)
    again = read_delta(tmp_path / "x.safetensors")
    assert again.about["method"] == "nest"
    assert equal(again.delta, file.delta)
    assert again.delta.parameters == file.delta.parameters
    assert [part.clusters.tolist() for part in again.rows.parts if part.clusters is not None] == [
        *([[0, 0, 1]] * 2), *([[0, 0]] * 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda clusters: clusters[:1], "do not share"),
        (lambda clusters: clusters * 0, "do not share|other neurons or parameters"),
        (lambda clusters: clusters + 1, "do not share"),
        (lambda clusters: clusters.float(), "do not share"),
        (lambda _: None, "only some of its neurons"),
    ],
)
def test_a_damaged_file_is_refused(broken: Any, why: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_delta(path, file_of(llama(), warmup=0.0, **TIED))
    told, tensors = read_tensors(path, "")
    name = next(name for name in tensors if name.startswith("clusters/") and ".0." in name)
    changed = tensors | {name: broken(tensors[name])}
    write_tensors(path, {name: value for name, value in changed.items() if value is not None}, told)
    with pytest.raises(ResultError, match=f"damaged: .*({why})"):
        read_delta(path)


def test_neurons_of_attention_are_refused() -> None:
    neurons = [*FFN, (0, "q", 1), (0, "k", 1)]
    with pytest.raises(RecipeError, match="in this way, and the set has neurons at k, q"):
        quick(llama(), neurons=neurons, clusters=dict.fromkeys(neurons, 0))


def test_a_training_that_was_stopped_goes_on_only_with_the_same_clusters(tmp_path: Path) -> None:
    whole = quick(llama(), **TIED | STRONG)
    with pytest.raises(KeyboardInterrupt):
        quick(llama(), **TIED | STRONG, folder=tmp_path, checkpoint_every=1, watch=_stop)
    again = quick(llama(), **TIED | STRONG, folder=tmp_path)
    assert equal(again.last, whole.last)
    with pytest.raises(ResultError):
        quick(llama(), neurons=FFN, clusters=dict.fromkeys(FFN, 0), **STRONG, folder=tmp_path)


def _stop(step: Any, _change: Any) -> None:
    if step.step == 3:
        raise KeyboardInterrupt
