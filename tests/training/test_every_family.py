"""Training in every row of the table: only the weights of the chosen neurons move, and they go back bit for bit.

Where these weights are is written out here, by the names and the order of the real modules.
"""

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_module, write_tiny
from torch import Tensor
from training_case import NEURONS, copies, equal, file_of, logits, merge, quick, same

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.model.families import FAMILIES as TABLE
from ssn_probe.spec import SITES
from ssn_probe.training.delta_file.comparison import diff
from ssn_probe.training.delta_file.file import DeltaFile, read_delta, write_delta
from ssn_probe.training.export.conversion import load_plain, merge_folder, unmerge_folder
from ssn_probe.training.export.merging import unmerge, written
from ssn_probe.training.export.peft_folder import save_adapter
from ssn_probe.training.tensor_files import read_tensors, write_tensors
from ssn_probe.training.weights.delta import Delta, Part
from ssn_probe.training.weights.neuron_weights import Place, places_of
from ssn_probe.training.weights.parameter_counts import fraction
from ssn_probe.training.weights.trainable import Deltas, load_parameters

WIDTHS = {"q": 24, "k": 12, "v": 12, "o": 24, "ffn": 20}
WHERE = {
    **{"q_proj": [("q", 0, 0)], "k_proj": [("k", 0, 0)], "v_proj": [("v", 0, 0)], "o_proj": [("o", 1, 0)]},
    **{"gate_proj": [("ffn", 0, 0)], "up_proj": [("ffn", 0, 0)], "down_proj": [("ffn", 1, 0)]},
    "qkv_proj": [("q", 0, 0), ("k", 0, 24), ("v", 0, 36)],
    "gate_up_proj": [("ffn", 0, 0), ("ffn", 0, 20)],
}
"""Module → its sites, the dimension along which their neurons lie, and where the first of them is."""
ROWS = tuple(TABLE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A base as it was, and the file of a training of NEURONS."""

    module: Any
    before: dict[str, Tensor]
    file: DeltaFile


@pytest.fixture(scope="module")
def trained() -> Callable[[str], Trained]:
    @cache
    def of(family: str) -> Trained:
        module = tiny_module(family).float()
        before = copies(module)
        return Trained(module=module, before=before, file=file_of(module))

    return of


def masks_of(module: Any) -> dict[str, Tensor]:
    """Name of a weight → where one of NEURONS has its own."""
    masks = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in module.named_parameters()}
    for name, mask in masks.items():
        found = re.fullmatch(r"model\.(?:language_model\.)?layers\.(\d)\.\w+\.(\w+)\.weight", name)
        number, path = found.groups() if found else ("", "")
        for site, dimension, first in WHERE.get(path, ()):
            for layer, own, index in NEURONS:
                if (str(layer), own) == (number, site):
                    mask.select(dimension, first + index).fill_(True)
    return masks


@pytest.mark.parametrize("family", ROWS)
def test_the_weights_of_the_neurons_move_and_go_back(trained: Callable[[str], Trained], family: str) -> None:
    found = trained(family)
    module = found.module
    assert same(found.before, module)
    base = logits(module)
    merge(module, found.file)
    masks = masks_of(module)
    assert sum(int(mask.sum()) for mask in masks.values()) == found.file.delta.parameters
    for name, weight in module.named_parameters():
        moved = weight != found.before[name]
        assert torch.equal(moved, masks[name]), f"{name}: not what the neurons have in it"
    assert not torch.allclose(logits(module), base, atol=1e-3)
    unmerge(module, found.file)
    assert same(found.before, module)


@pytest.mark.parametrize("family", ROWS)
def test_merged_is_what_was_trained_and_is_read_back(
    trained: Callable[[str], Trained], family: str, tmp_path: Path
) -> None:
    found = trained(family)
    write_delta(tmp_path / "delta.safetensors", found.file)
    file = read_delta(tmp_path / "delta.safetensors")
    assert equal(file.delta, found.file.delta)
    assert [part.place for part in file.rows.parts] == [part.place for part in found.file.rows.parts]
    assert file.rows.neurons == sorted(NEURONS, key=lambda neuron: (neuron[0], SITES.index(neuron[1]), neuron[2]))
    deltas = Deltas(found.module, places_of(found.module, NEURONS))
    load_parameters(deltas, {part.name: part.change for part in file.rows.parts})
    with deltas.attached():
        hooked = logits(found.module)
    with written(found.module, file.delta):
        assert torch.allclose(hooked, logits(found.module), atol=2e-4)


@pytest.mark.parametrize("family", ROWS)
def test_all_neurons_are_all_weights_of_their_sites(family: str) -> None:
    module = tiny_module(family)
    every = [(layer, site, index) for layer in range(2) for site in SITES for index in range(WIDTHS[site])]
    table = fraction(module, Deltas(module, places_of(module, every)).snapshot())
    assert table["percent_of_site"].to_list() == pytest.approx([100.0] * 6)
    assert table["neurons"].to_list() == [2 * n for n in (*WIDTHS.values(), sum(WIDTHS.values()))]
    inputs = 1 if family in ("apertus", "nemotron") else 2
    assert table["parameters"].to_list()[:5] == [2 * 24 * n for n in (24, 12, 12, 24, 20 * (1 + inputs))]


@pytest.mark.parametrize("family", ["phi3", "gemma3", "nemotron"])
def test_a_merged_folder_and_back(family: str, tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base", family)
    (base / "preprocessor_config.json").write_text('{"size": 8}', encoding="utf-8")
    module = load_plain(str(base), "float32").module
    file, before = file_of(module), copies(module)
    merge_folder(str(base), file, tmp_path / "merged")
    config = json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))
    assert not [name for name in config if name.startswith("_")], "of loading, and not of the model"
    with written(module, file.delta):
        assert same(copies(load_plain(str(tmp_path / "merged")).module), module)
    unmerge_folder(tmp_path / "merged", tmp_path / "back")
    assert same(before, load_plain(str(tmp_path / "back")).module)
    assert (tmp_path / "back" / "preprocessor_config.json").read_text(encoding="utf-8") == '{"size": 8}'


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
@pytest.mark.parametrize("family", ROWS)
def test_peft_loads_adapters_of_as_many_parameters(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    module = tiny_module(family).float()
    many = [*NEURONS, *((0, site, n) for site in ("q", "k", "v", "ffn") for n in range(12))]
    file = file_of(module, adapter="lora", neurons=many, warmup=0.0)
    budget = Deltas(module, places_of(module, many)).snapshot().parameters
    assert budget / 2 < file.delta.parameters <= budget
    save_adapter(tmp_path / "adapter", file)
    base = logits(module)
    with written(module, file.delta):
        wanted = logits(module)
    loaded = PeftModel.from_pretrained(tiny_module(family).float(), str(tmp_path / "adapter"))
    assert (logits(loaded) - wanted).abs().max() < 1e-4 < (base - wanted).abs().max()


# ── several projections in one module ────────────────────────────────────────────────────────────────────────────────


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    module = tiny_module("phi3").float()
    straight = quick(module)

    class Interruption(Exception):
        pass

    def interrupt(step: Any, _delta: Any) -> None:
        if step.step == 2:
            raise Interruption

    with pytest.raises(Interruption):
        quick(module, folder=tmp_path, checkpoint_every=1, watch=interrupt)
    resumed = quick(module, folder=tmp_path, checkpoint_every=1)
    assert equal(resumed.delta, straight.delta)
    assert resumed.record == straight.record


def test_an_adapter_of_a_shared_matrix_is_counted_once(tmp_path: Path) -> None:
    """At the site with most neurons, as a share of the whole matrices; the set pays for 15 ranks in two layers."""
    module = tiny_module("phi3").float()
    chosen = [(layer, site, n) for layer in (0, 1) for site, count in (("k", 11), ("v", 12)) for n in range(count)]
    file = file_of(module, adapter="lora", neurons=chosen, warmup=0.0)
    write_delta(tmp_path / "adapter.safetensors", file)
    (own, every) = read_delta(tmp_path / "adapter.safetensors").about["parameters"]
    assert (own["site"], every["site"]) == ("v", "all")
    assert own["parameters"] == every["parameters"] == 15 * (24 + 48)
    assert own["percent_of_site"] == pytest.approx(100 * 15 * 72 / (2 * 24 * 48))


def test_deltas_are_compared_part_by_part(trained: Callable[[str], Trained]) -> None:
    file = trained("phi3").file
    assert isinstance(file.delta, Delta)
    fewer = replace(file, delta=Delta(parts=file.delta.parts[1:]))
    table = diff(file, fewer)
    assert table["module"].to_list()[:2] == [f"model.layers.0.self_attn.qkv_proj/{site}" for site in ("q", "k")]
    assert table["only_first"].to_list() == [1] + [0] * (len(file.delta.parts) - 1)


@pytest.mark.parametrize(("index", "fits"), [(11, True), (12, False)])
def test_a_neuron_beyond_its_part_is_no_neuron_of_the_next(index: int, fits: bool) -> None:
    """Row 12 from the first of the keys is the first of the values."""
    module = tiny_module("phi3").float()
    path, row = "model.layers.0.self_attn.qkv_proj", 24 + index
    base = module.get_submodule(path).weight[row : row + 1].clone()
    place = Place(module=path, layer=0, site="k", axis="row", indices=(index,), part="k")
    delta = Delta(parts=(Part(place=place, base=base, change=torch.ones_like(base)),))
    expected = nullcontext() if fits else pytest.raises(ModelError, match="is not the base")
    with expected, written(module, delta):
        assert torch.equal(module.get_submodule(path).weight[row : row + 1], base + 1)


@pytest.mark.parametrize("part", ["v", "gate", None, 3])
def test_a_file_with_another_part_is_damaged(trained: Callable[[str], Trained], part: Any, tmp_path: Path) -> None:
    path = tmp_path / "delta.safetensors"
    write_delta(path, trained("phi3").file)
    told, tensors = read_tensors(path, "")
    places = json.loads(told["places"])
    assert places[0]["part"] == "q"
    places[0]["part"] = part
    write_tensors(path, tensors, told | {"places": json.dumps(places)})
    with pytest.raises(ResultError, match="damaged"):
        read_delta(path)


@pytest.mark.parametrize(
    ("family", "changes"), [("nemotron", {"mlp_bias": True, "attention_bias": True}), ("seed_oss", {}), ("glm4", {})]
)
def test_biases_stay_frozen(family: str, changes: dict[str, Any]) -> None:
    module = tiny_module(family, **changes).float()
    before = copies(module)
    with written(module, quick(module).delta):
        moved = {name for name, weight in module.named_parameters() if not torch.equal(weight, before[name])}
    assert any(name.endswith("q_proj.bias") for name in before)
    assert moved == {name for name, mask in masks_of(module).items() if mask.any()}
