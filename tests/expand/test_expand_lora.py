"""LoRA of as many parameters: peft's layers, our loop, and a model that is given back as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from expand_case import EOS, NEURONS, copies, llama, logits, quick, same, settings, tiny_data
from tiny import tiny_tokenizer

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.expand.adapter import Adapter, Factors, save_adapter
from ssn_probe.expand.file import DeltaFile, delta_file, read_delta, write_delta
from ssn_probe.expand.fraction import fraction
from ssn_probe.expand.lora import ranks_of
from ssn_probe.expand.loss import batch_of, encode_examples, response_loss, response_tokens
from ssn_probe.expand.merge import merge, written
from ssn_probe.expand.places import places_of
from ssn_probe.expand.settings import Schedule

STRONG = {"lr": 1e-2, "warmup": 0.0}


def cost(module: Any, ranks: dict[str, int]) -> int:
    return sum(rank * sum(module.get_submodule(path).weight.shape) for path, rank in ranks.items())


def lora_file(module: Any, **options: Any) -> DeltaFile:
    found = quick(module, adapter="lora", **STRONG, **options)
    return delta_file(found, model="tiny", revision=None, neurons="some")


@pytest.mark.parametrize(
    "chosen", [NEURONS, NEURONS[:3], [(0, "ffn", n) for n in range(20)], [(1, "v", 3), (1, "o", 2)]]
)
def test_it_spends_what_the_set_spends_to_whole_ranks(chosen: list) -> None:
    module = llama()
    places, budget = places_of(module, chosen), fraction(module, chosen)["parameters"][-1]
    ranks = ranks_of(module, places)
    cheapest = min(sum(module.get_submodule(place.module).weight.shape) for place in places)
    assert set(ranks) <= {place.module for place in places}
    assert budget - 2 * cheapest * len(places) < cost(module, ranks) <= max(budget, cheapest)


def test_a_set_that_is_too_small_for_a_rank_gets_the_cheapest_one() -> None:
    module = llama()
    places = places_of(module, [(0, "v", 0)])
    assert ranks_of(module, places) == {places[0].module: 1}


def test_it_trains_what_a_loop_written_by_hand_trains() -> None:
    """Under torch's AdamW, from the same beginning, with the adapters added to the outputs of the layers."""
    module, data = llama(), tiny_data()
    found = quick(module, adapter="lora", data=data, **STRONG)
    start = quick(module, adapter="lora", data=data, **(STRONG | {"lr": 1e-30})).last
    assert isinstance(found.last, Adapter)
    assert isinstance(start, Adapter)
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
        assert (part.a - a[part.module]).abs().max() < 1e-5
        assert (part.b - b[part.module]).abs().max() < 1e-5


def interrupted(step: Any, _delta: Callable) -> None:
    if step.step == 2:
        raise KeyboardInterrupt


def test_the_model_is_given_back_as_it_was() -> None:
    module = llama()
    before, modules = copies(module), dict(module.named_modules())
    quick(module, adapter="lora")
    with pytest.raises(KeyboardInterrupt):
        quick(module, adapter="lora", watch=interrupted)
    assert same(before, module)
    assert dict(module.named_modules()) == modules, "the very objects, and nothing of peft"
    assert not hasattr(module, "peft_config")
    assert all(weight.requires_grad for weight in module.parameters())


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


def test_its_file_says_what_it_is_and_reads_back(tmp_path: Path) -> None:
    module = llama()
    file = lora_file(module)
    write_delta(tmp_path / "x.safetensors", file)
    again = read_delta(tmp_path / "x.safetensors")
    assert isinstance(file.delta, Adapter)
    assert isinstance(again.delta, Adapter)
    for mine, theirs in zip(again.delta.parts, file.delta.parts, strict=True):
        assert (mine.module, mine.layer, mine.site, mine.scale) == (theirs.module, theirs.layer, theirs.site, 1.0)
        assert torch.equal(mine.a, theirs.a)
        assert torch.equal(mine.b, theirs.b)
    about = again.about
    assert about["method"] == "lora"
    assert about["parameters"][-1]["parameters"] == again.delta.parameters == cost(module, about["lora"]["ranks"])
    assert about["lora"]["matched_parameters"] == fraction(module, NEURONS)["parameters"][-1] >= again.delta.parameters
    with pytest.raises(ModelError, match="LoRA adapters"):
        merge(module, again)


@pytest.mark.parametrize("change", [{"a": torch.zeros(2, 3)}, {"b": torch.full((4, 1), torch.nan)}])
def test_a_damaged_file_is_refused(change: dict, tmp_path: Path) -> None:
    from dataclasses import replace

    file = lora_file(llama())
    assert isinstance(file.delta, Adapter)
    first: Factors = replace(file.delta.parts[0], **change)
    broken = replace(file, delta=Adapter(parts=(first, *file.delta.parts[1:])))
    write_delta(tmp_path / "x.safetensors", broken)
    with pytest.raises(ResultError, match="damaged"):
        read_delta(tmp_path / "x.safetensors")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
def test_peft_loads_the_folder(tmp_path: Path) -> None:
    from peft import PeftModel

    module = llama()
    file = lora_file(module)
    save_adapter(tmp_path / "adapter", file)
    with written(module, file.delta):
        wanted = logits(module)
    loaded = PeftModel.from_pretrained(llama(), str(tmp_path / "adapter"))
    assert (logits(loaded) - wanted).abs().max() < 1e-5


def test_a_training_that_was_stopped_goes_on(tmp_path: Path) -> None:
    whole = quick(llama(), adapter="lora", keep=(1, 3))
    with pytest.raises(KeyboardInterrupt):
        quick(llama(), adapter="lora", keep=(1, 3), folder=tmp_path, checkpoint_every=1, watch=interrupted)
    found = quick(llama(), adapter="lora", keep=(1, 3), folder=tmp_path)
    pairs = [(whole.last, found.last), *((whole.kept[step], found.kept[step]) for step in (1, 3))]
    for one, other in pairs:
        assert isinstance(one, Adapter)
        assert isinstance(other, Adapter)
        for mine, theirs in zip(one.parts, other.parts, strict=True):
            assert torch.equal(mine.a, theirs.a)
            assert torch.equal(mine.b, theirs.b)
    with pytest.raises(ResultError, match="another training"):
        quick(llama(), keep=(1, 3), folder=tmp_path)


def test_the_beginning_follows_the_seed() -> None:
    first, again, other = (quick(llama(), adapter="lora", seed=seed, lr=1e-30).last for seed in (1, 1, 2))
    a = [one.parts[0].a for one in (first, again, other) if isinstance(one, Adapter)]
    assert torch.equal(a[0], a[1])
    assert not torch.equal(a[0], a[2])
