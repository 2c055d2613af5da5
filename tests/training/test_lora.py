"""LoRA of as many parameters: peft's layers, our loop, and a model that is given back as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import FAMILIES, tiny_module, tiny_tokenizer
from training_case import EOS, NEURONS, copies, equal, file_of, llama, logits, quick, same, settings, tiny_data

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.spec.rendering import as_text
from ssn_probe.spec.training_settings import Schedule
from ssn_probe.training.delta_file.comparison import diff
from ssn_probe.training.delta_file.file import DeltaFile, read_delta, write_delta
from ssn_probe.training.export.merging import rounding_in, unmerge, written
from ssn_probe.training.export.peft_folder import save_adapter
from ssn_probe.training.loop.loss import batch_of, encode_examples, response_loss, response_tokens
from ssn_probe.training.tensor_files import read_tensors, write_tensors
from ssn_probe.training.weights.adapter import Adapter
from ssn_probe.training.weights.lora import ranks_of
from ssn_probe.training.weights.neuron_weights import places_of
from ssn_probe.training.weights.trainable import Deltas

STRONG = {"lr": 1e-2, "warmup": 0.0}
GROUPED = [(layer, site, n) for layer in (0, 1) for site in ("k", "v", "o") for n in (1, 5, 9)]
"""Where key-value heads are shared, a row of k or v and a column of o cost different ranks."""
MANY = [*NEURONS, *((0, "ffn", n) for n in range(12))]
"""Enough for adapters of several ranks."""


def cost(module: Any, ranks: dict[str, int]) -> int:
    return sum(rank * sum(module.get_submodule(path).weight.shape) for path, rank in ranks.items())


def lora_file(module: Any, **options: Any) -> DeltaFile:
    return file_of(module, adapter="lora", warmup=0.0, **options)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chosen", [NEURONS, NEURONS[:3], [(0, "ffn", n) for n in range(20)], GROUPED])
def test_it_spends_what_the_set_spends_to_whole_ranks(family: str, chosen: list) -> None:
    module = tiny_module(family)
    places = places_of(module, chosen)
    ranks, budget = ranks_of(module, places), Deltas(module, places).snapshot().parameters
    sizes = {place.module: module.get_submodule(place.module).weight.shape for place in places}
    for place in places:
        spent = len(place.indices) * sizes[place.module][1 if place.axis == "row" else 0]
        assert ranks.get(place.module, 0) - spent // sum(sizes[place.module]) in (0, 1)
    assert set(ranks) <= set(sizes)
    assert budget - max(map(sum, sizes.values())) < cost(module, ranks) <= budget, "no rank more would fit"


def test_what_rounding_leaves_goes_where_it_took_most() -> None:
    """Costs: q 48 per rank, k 36, each of ffn 44. The set spends 72 in q, 24 in each other, 168 in all."""
    places = places_of(llama(), [*((0, "q", n) for n in range(3)), (0, "k", 4), (0, "ffn", 6)])
    found = {path.rsplit(".", 1)[1]: rank for path, rank in ranks_of(llama(), places).items()}
    assert found == {"q_proj": 1, "k_proj": 1, "gate_proj": 1}


def test_a_set_that_is_too_small_for_a_rank_gets_the_cheapest_one() -> None:
    module = llama()
    places = places_of(module, [(0, "v", 0)])
    assert ranks_of(module, places) == {places[0].module: 1}


def test_it_trains_what_a_loop_written_by_hand_trains() -> None:
    """Under torch's AdamW, from the same beginning, with the adapters added to the outputs of the layers."""
    module, data = llama(), tiny_data()
    found = quick(module, adapter="lora", neurons=MANY, data=data, **STRONG)
    start = quick(module, adapter="lora", neurons=MANY, data=data, **(STRONG | {"lr": 1e-30})).last
    assert isinstance(found.last, Adapter)
    assert isinstance(start, Adapter)
    assert {len(part.a) for part in start.parts} > {1}
    plan = Schedule(settings=settings(**STRONG), rows=len(data.examples))
    a = {part.module: part.a.clone().requires_grad_() for part in start.parts}
    b = {part.module: torch.zeros_like(part.b).requires_grad_() for part in start.parts}
    optimizer = torch.optim.AdamW([*a.values(), *b.values()], weight_decay=0.0)
    rows = encode_examples(data.examples, tiny_tokenizer(), EOS, None)

    class Added(torch.nn.Module):
        def __init__(self, path: str):
            super().__init__()
            self.path, self.layer = path, llama().get_submodule(path)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + x @ a[self.path].T @ b[self.path].T

    by_hand = llama()
    for path in a:
        by_hand.set_submodule(path, Added(path))
    for step in range(plan.total):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        batch = [rows[number] for number in plan.batch(step)]
        optimizer.zero_grad()
        (response_loss(by_hand, batch_of(batch, 0, torch.device("cpu"))) / response_tokens(batch)).backward()
        torch.nn.utils.clip_grad_norm_([*a.values(), *b.values()], 1.0)
        optimizer.step()
    for part in found.last.parts:
        assert part.b.abs().max() > 1e-3
        assert (part.a - a[part.module]).abs().max() < 1e-6
        assert (part.b - b[part.module]).abs().max() < 1e-6


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_it_is_given_back_when_something_fails_while_the_adapters_are_in_it(error: type[BaseException]) -> None:
    module = llama()
    module.lm_head.requires_grad_(False)
    before, modules = copies(module), dict(module.named_modules())
    asked = [weight.requires_grad for weight in module.parameters()]

    def fail(given: Any) -> float:
        assert any("lora_A" in name for name, _ in given.named_parameters())
        raise error

    with pytest.raises(error):
        quick(module, adapter="lora", held_out=0.3, probe=fail)
    assert same(before, module)
    assert dict(module.named_modules()) == modules, "the very objects, and nothing of peft"
    assert not hasattr(module, "peft_config")
    assert [weight.requires_grad for weight in module.parameters()] == asked


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_written_into_the_weights_and_taken_out(dtype: torch.dtype) -> None:
    module = llama().to(dtype)
    found = quick(module, adapter="lora", **STRONG)
    before, untouched = copies(module), logits(module)
    assert isinstance(found.delta, Adapter)
    assert all(part.a.dtype == torch.float32 for part in found.delta.parts)
    with written(module, found.delta):
        for part in found.delta.parts:
            wide = before[f"{part.module}.weight"].float() + part.b @ part.a
            assert torch.equal(module.get_submodule(part.module).weight, wide.to(dtype))
        assert not torch.allclose(logits(module), untouched)
    assert same(before, module)


def test_what_rounding_to_bfloat16_costs() -> None:
    module = llama().bfloat16()
    found = quick(module, adapter="lora").delta
    assert isinstance(found, Adapter)
    cost, before = rounding_in(module, found), copies(module)
    wanted = torch.cat([(part.b @ part.a).flatten() for part in found.parts])
    with written(module, found):
        after = copies(module)
    paths = [f"{part.module}.weight" for part in found.parts]
    moved = torch.cat([(after[path].float() - before[path].float()).flatten() for path in paths])
    assert cost.unmoved == pytest.approx(float(((moved == 0) & (wanted != 0)).sum() / (wanted != 0).sum()))
    assert cost.error == pytest.approx(float((moved - wanted).norm() / wanted.norm()), rel=1e-4)
    assert cost.error > 0.2
    assert rounding_in(llama(), found).error < 1e-3


def test_its_file_says_what_it_is_and_reads_back(tmp_path: Path) -> None:
    module = llama()
    file = lora_file(module)
    write_delta(tmp_path / "x.safetensors", file)
    again = read_delta(tmp_path / "x.safetensors")
    assert isinstance(file.delta, Adapter)
    assert isinstance(again.delta, Adapter)
    places = [[(part.layer, part.site, part.scale) for part in one.parts] for one in (again.delta, file.delta)]
    assert places[0] == places[1]
    assert equal(again.delta, file.delta)
    about = again.about
    assert about["method"] == "lora"
    assert about["parameters"][-1]["parameters"] == again.delta.parameters == cost(module, about["lora"]["ranks"])
    of_the_neurons = Deltas(module, places_of(module, NEURONS)).snapshot().parameters
    assert about["lora"]["matched_parameters"] == of_the_neurons >= again.delta.parameters


@pytest.mark.parametrize(
    ("kind", "broken", "why"),
    [
        ("A", lambda a: a[:, :0], "other neurons or parameters"),
        ("A", lambda a: a.T.contiguous(), "do not fit each other"),
        ("A", lambda a: torch.cat([a, a]), "do not fit each other"),
        ("B", lambda b: b * torch.nan, "not finite float32"),
        ("B", lambda b: b.to(torch.float16), "not finite float32"),
        ("B", lambda b: b[0], "do not fit each other"),
        ("B", lambda _: None, "lacks"),
    ],
)
def test_a_damaged_file_is_refused(kind: str, broken: Callable, why: str, tmp_path: Path) -> None:
    path, file = tmp_path / "x.safetensors", lora_file(llama())
    write_delta(path, file)
    told, tensors = read_tensors(path, "")
    name = next(name for name in tensors if name.startswith(f"{kind}/"))
    changed = tensors | {name: broken(tensors[name])}
    write_tensors(path, {name: value for name, value in changed.items() if value is not None}, told)
    with pytest.raises(ResultError, match=f"damaged: .*{why}"):
        read_delta(path)


def test_what_needs_base_rows_says_that_there_are_none() -> None:
    module, file = llama(), lora_file(llama())
    with pytest.raises(ModelError, match="LoRA adapters"):
        unmerge(module, file)
    with pytest.raises(ModelError, match="LoRA adapters"):
        diff(file, file)
    assert isinstance(file.delta, Adapter)
    card = as_text(file)
    assert "lora" in card
    assert f"{file.delta.parameters:,}" in card


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
def test_peft_loads_the_folder(tmp_path: Path) -> None:
    from peft import PeftModel

    module = llama()
    file = lora_file(module, neurons=MANY)
    save_adapter(tmp_path / "adapter", file)
    with written(module, file.delta):
        wanted = logits(module)
    loaded = PeftModel.from_pretrained(llama(), str(tmp_path / "adapter"))
    assert (logits(loaded) - wanted).abs().max() < 1e-5


def test_peft_has_no_folder_for_a_delta_of_neurons(tmp_path: Path) -> None:
    file = file_of(llama())
    with pytest.raises(ModelError, match="not LoRA adapters"):
        save_adapter(tmp_path / "adapter", file)
    assert not (tmp_path / "adapter").exists()


def test_the_beginning_follows_the_seed() -> None:
    first, again, other = (quick(llama(), adapter="lora", seed=seed, lr=1e-30).last for seed in (1, 1, 2))
    a = [one.parts[0].a for one in (first, again, other) if isinstance(one, Adapter)]
    assert torch.equal(a[0], a[1])
    assert not torch.equal(a[0], a[2])
