"""A delta in a file, in the weights, and out again bit for bit; on its own base and on no other."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny_module
from training_case import NEURONS, copies, equal, file_of, llama, logits, merge, quick, same

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.model.digests import module_digest
from ssn_probe.training.delta_file.comparison import diff, neuron_diff
from ssn_probe.training.delta_file.file import DeltaFile, read_delta, write_delta
from ssn_probe.training.export.merging import applied, unmerge, written
from ssn_probe.training.tensor_files import DIGEST, read_tensors, write_tensors
from ssn_probe.training.weights.delta import Delta, Part, rounding
from ssn_probe.training.weights.neuron_weights import Place, places_of
from ssn_probe.training.weights.trainable import Deltas, load_parameters


@pytest.fixture(scope="module")
def file() -> DeltaFile:
    return file_of(llama(), revision="abc", chosen="chosen by hand")


def test_merged_equals_the_trained_hooks(double: Any) -> None:
    """Weights with the delta compute what the model computed while it was trained."""
    base, delta = logits(double), quick(double, lr=1e-2).delta
    deltas = Deltas(double, places_of(double, NEURONS))
    load_parameters(deltas, {part.module: part.change for part in delta.parts})
    with deltas.attached():
        hooked = logits(double)
    with written(double, delta):
        merged = logits(double)
    assert (hooked - base).abs().max() > 1e-3
    assert torch.allclose(hooked, merged, atol=1e-9)
    assert torch.equal(logits(double), base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merge_and_unmerge_bit_for_bit(dtype: torch.dtype) -> None:
    module, file = llama().to(dtype), file_of(llama().to(dtype))
    before = copies(module)
    with applied(module, file):
        inside = copies(module)
    assert same(before, module)
    merge(module, file)
    assert same(inside, module)
    with pytest.raises(ModelError, match="not the base"):
        merge(module, file)
    unmerge(module, file)
    assert same(before, module)
    with pytest.raises(ModelError, match="does not have this delta"):
        unmerge(module, file)


def test_the_weights_come_back_when_something_fails_inside(file: DeltaFile) -> None:
    module = llama()
    before = copies(module)
    with pytest.raises(ZeroDivisionError), applied(module, file):
        _ = 1 / 0
    assert same(before, module)


def test_a_bfloat16_base_is_the_same_base_in_float32_and_rounded_float32_is_another() -> None:
    file = file_of(llama().bfloat16())
    module = llama().bfloat16().float()
    before = copies(module)
    with applied(module, file):
        assert not same(before, module)
    assert same(before, module)
    with pytest.raises(ModelError, match="float32 precision"), applied(llama().bfloat16(), file_of(llama())):
        pass


def test_another_base_is_refused_and_left_alone(file: DeltaFile) -> None:
    module = llama()
    with torch.no_grad():
        module.lm_head.weight[3, 3] += 1e-3  # not in the delta's rows: only the digest tells
    before = copies(module)
    for change in (lambda: merge(module, file), lambda: applied(module, file).__enter__()):
        with pytest.raises(ModelError, match=r"not the base .*\n.*tiny/llama at abc"):
            change()
    assert same(before, module)
    with pytest.raises(ModelError, match="Load the delta's own base"), written(llama(intermediate_size=8), file.delta):
        pass
    shallow = llama()
    shallow.model.layers = shallow.model.layers[:1]
    with pytest.raises(ModelError, match=r"has no model\.layers\.1"), written(shallow, file.delta):
        pass
    moved, mistral = llama(), tiny_module("mistral").float()
    with torch.no_grad():
        moved.model.layers[0].mlp.gate_proj.weight[3, 0] += 1e-3
    with pytest.raises(ModelError, match="already has it"), written(moved, file.delta):
        pass
    mistral.load_state_dict(llama().state_dict())  # with a window it computes something else
    with pytest.raises(ModelError, match="it is a mistral model, the base a llama model"), applied(mistral, file):
        pass


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rms_norm_eps": 1e-3}, "rms_norm_eps 0.001"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, "rope_parameters.rope_theta 7.0"),
    ],
)
def test_a_base_whose_config_computes_something_else_is_refused(
    file: DeltaFile, changes: dict[str, Any], name: str
) -> None:
    other = llama(**changes)
    other.load_state_dict(llama().state_dict())
    with pytest.raises(ModelError, match=f"config.json has {name}"), applied(other, file):
        pass
    older = replace(file, about=file.about | {"base": {**file.about["base"], "config": None}})
    with applied(other, older):
        pass
    with applied(llama(), file):
        pass


def test_unmerge_refuses_a_model_that_was_changed_elsewhere_too(file: DeltaFile) -> None:
    module = llama()
    merge(module, file)
    with torch.no_grad():
        module.lm_head.weight[0, 0] += 1
    merged = copies(module)
    with pytest.raises(ModelError, match="changed elsewhere"):
        unmerge(module, file)
    assert same(merged, module)


def test_a_file_holds_what_was_written(tmp_path: Path, file: DeltaFile) -> None:
    path = tmp_path / "deep" / "delta.safetensors"
    write_delta(path, file)
    back = read_delta(path)
    assert back.about == json.loads(json.dumps(file.about))
    assert back.delta.neurons == file.delta.neurons == sorted(NEURONS, key=file.delta.neurons.index)
    assert [part.place for part in back.rows.parts] == [part.place for part in file.rows.parts]
    assert equal(file.delta, back.delta)


def test_what_a_file_says_of_itself(tmp_path: Path, file: DeltaFile) -> None:
    write_delta(tmp_path / "delta.safetensors", file)
    with safe_open(tmp_path / "delta.safetensors", "pt") as opened:
        metadata = opened.metadata()
    about, places = json.loads(metadata["about"]), json.loads(metadata["places"])
    assert (metadata["format"], metadata["version"]) == ("ssn-probe delta", "1")
    assert about["base"] == {
        "name": "tiny/llama",
        "revision": "abc",
        "sha256": module_digest(llama()),
        "family": "llama",
        "dtype": "float32",
        "config": {
            "hidden_act": "silu",
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
            "rope_parameters.rope_theta": 10000.0,
            "rope_parameters.rope_type": "default",
        },
    }
    assert about["neurons"] == "chosen by hand"
    assert (about["method"], about["seed"], about["training"]["lr"]) == ("expand", 0, 1e-2)
    assert about["data"]["checked"].startswith("harmful: refused")
    assert about["parameters"][-1]["site"] == "all"
    assert about["parameters"][-1]["parameters"] == file.delta.parameters
    assert {"torch", "transformers"} <= about["made_with"].keys()
    assert {place["site"]: place["axis"] for place in places if "down" not in place["module"]} == {
        **dict.fromkeys(["q", "k", "v", "ffn"], "row"),
        "o": "column",
    }


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"format": "pt"}, "not a delta file"),
        ({"version": "2"}, "version 2"),
        ({"about": "{"}, "damaged"),
        ({"about": "[]"}, r"damaged: its record .* \(found \[\]\)"),
        ({"places": "{}"}, "damaged"),
        ({"about": '{"a": "\\ud800"}'}, "surrogates not allowed"),
        ({"about": '{"a": 1, "a": 2}'}, "twice"),
    ],
)
def test_files_that_are_not_a_delta(tmp_path: Path, file: DeltaFile, metadata: dict[str, str], words: str) -> None:
    path = tmp_path / "delta.safetensors"
    write_delta(path, file)
    whole, tensors = read_tensors(path, "")
    write_tensors(path, tensors, whole | metadata)
    with pytest.raises(ResultError, match=words):
        read_delta(path)


def test_one_other_byte_of_a_weight_is_damage(tmp_path: Path, file: DeltaFile) -> None:
    path = tmp_path / "delta.safetensors"
    write_delta(path, file)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(ResultError, match="does not have the SHA-256"):
        read_delta(path)
    path.write_bytes(whole)
    metadata, tensors = read_tensors(path, "")
    save_file(tensors, path, metadata={name: text for name, text in metadata.items() if name != DIGEST})
    assert equal(read_delta(path).delta, file.delta), "a file of an earlier release has none"


def test_tensors_that_do_not_fit(tmp_path: Path, file: DeltaFile) -> None:
    part, rest = file.delta.parts[0], file.delta.parts[1:]
    turned = replace(part, place=replace(part.place, axis="column"))
    infinite = replace(part, change=part.change / 0)
    twice = replace(part, place=replace(part.place, indices=(1,) * len(part.place.indices) + (1,)))
    none = Part(place=replace(part.place, indices=()), base=part.base[:0], change=part.change[:0])
    for parts, words in (
        ((turned, *rest), "rows, not columns"),
        ((infinite, *rest), "finite"),
        ((twice, *rest), "fit"),
        ((none, *rest), "fit"),
        ((replace(part, base=part.base.double()), *rest), "more than one precision"),
        ((part, part), "no change, or two of one matrix"),
        ((), "no change, or two of one matrix"),
    ):
        write_delta(tmp_path / "delta.safetensors", replace(file, delta=Delta(parts=parts)))
        with pytest.raises(ResultError, match=words):
            read_delta(tmp_path / "delta.safetensors")


def test_a_base_of_whole_numbers(tmp_path: Path, file: DeltaFile) -> None:
    path = tmp_path / "delta.safetensors"
    write_delta(path, file)
    metadata, tensors = read_tensors(path, "")
    name = f"base/{file.delta.parts[0].module}"
    write_tensors(path, tensors | {name: tensors[name].int()}, metadata)
    with pytest.raises(ResultError, match=r"is torch\.int32"):
        read_delta(path)


def test_the_difference_of_two_files() -> None:
    first = file_of(llama(), neurons=[(0, "ffn", 1), (0, "ffn", 4), (1, "o", 2)])
    second = file_of(llama(), neurons=[(0, "ffn", 4), (0, "ffn", 5), (0, "q", 0)])
    rows = {row["module"].split(".", 3)[-1]: row for row in diff(first, second).rows(named=True)}
    gate = rows["mlp.gate_proj"]
    assert (gate["only_first"], gate["only_second"], gate["shared"]) == (1, 1, 1)
    assert -1 <= gate["cosine"] <= 1
    assert (rows["self_attn.o_proj"]["shared"], rows["self_attn.o_proj"]["cosine"]) == (0, None)
    assert rows["self_attn.o_proj"]["norm_second"] == 0
    changed = first.delta.parts[-1].change
    assert rows["self_attn.o_proj"]["largest_difference"] == pytest.approx(float(changed.abs().max()))
    same_rows = diff(first, first)
    assert same_rows["cosine"].to_list() == pytest.approx([1.0] * 4)
    assert same_rows["largest_difference"].sum() == 0
    with pytest.raises(ModelError, match="different bases"):
        diff(first, file_of(llama(tie_word_embeddings=True), neurons=[(0, "q", 0)]))


def test_which_neurons_differ() -> None:
    first = file_of(llama(), neurons=[(0, "ffn", 1), (0, "ffn", 4), (1, "o", 2), (1, "q", 3)])
    second = file_of(llama(), neurons=[(0, "ffn", 5), (0, "ffn", 4), (0, "ffn", 0), (1, "q", 3)])
    assert neuron_diff(first, second).rows() == [
        (0, "ffn", 1, [1], [0, 5]),
        (1, "q", 1, [], []),
        (1, "o", 0, [2], []),
    ]
    with pytest.raises(ModelError, match="different bases"):
        neuron_diff(first, file_of(llama(tie_word_embeddings=True), neurons=[(0, "q", 0)]))


def test_what_rounding_to_bfloat16_costs() -> None:
    place = Place(module="m.mlp.gate_proj", layer=0, site="ffn", axis="row", indices=(0,))
    base, change = torch.ones(1, 4), torch.tensor([[1e-4, 0.0, 0.5, 1e-4]])
    delta = Delta(parts=(Part(place=place, base=base, change=change),))
    cost = rounding(delta, torch.bfloat16)
    assert cost.unmoved == pytest.approx(2 / 3)
    assert cost.error == pytest.approx((2e-8) ** 0.5 / (0.25 + 2e-8) ** 0.5, rel=1e-3)
    assert rounding(delta, torch.float32).unmoved == 0
