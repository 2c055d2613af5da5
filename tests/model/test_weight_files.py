"""Which files a model is read from: exactly those of its digest, and no folder that is read in two ways."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_tiny

from ssn_probe.errors import ModelError
from ssn_probe.model.digests import folder_digest
from ssn_probe.model.model_files import stamp
from ssn_probe.model.shape import shape_of
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.model.weight_files import INDEX, SINGLE, weight_files

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
Spoil = Callable[[Path], Any]


@pytest.fixture
def folder(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama that a test may spoil."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The tiny Llama in two files and an index."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    places = {name: FIRST if number % 2 else SECOND for number, name in enumerate(sorted(tensors))}
    for file in (FIRST, SECOND):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return folder


def decoy(folder: Path, name: str = "consolidated.safetensors") -> None:
    save_file({"model.norm.weight": torch.zeros(24)}, folder / name)


def replace_in_index(old: str, new: str) -> Spoil:
    def spoil(folder: Path) -> None:
        text = (folder / INDEX).read_text(encoding="utf-8")
        (folder / INDEX).write_text(text.replace(old, new), encoding="utf-8")

    return spoil


def place_wrongly(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    index["weight_map"]["model.norm.weight"] = {FIRST: SECOND, SECOND: FIRST}[index["weight_map"]["model.norm.weight"]]
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def hold_twice(folder: Path) -> None:
    save_file(load_file(folder / FIRST) | load_file(folder / SECOND), folder / SECOND)


@pytest.mark.parametrize("layout", ["folder", "sharded"])
def test_a_decoy_is_neither_read_nor_part_of_the_digest(layout: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(layout)
    before, files = folder_digest(model), weight_files(model)
    decoy(model)
    decoy(model, "zzz.safetensors")
    assert (folder_digest(model), weight_files(model)) == (before, files)
    assert load_subject(str(model), weights=False).identity["digest"] == before
    save_file(load_file(files[0]) | {"model.embed_tokens.weight": torch.ones(62, 24).double()}, files[0])
    assert folder_digest(model) != before


def same(one: Subject, two: Subject) -> bool:
    """Have two models the same weights?"""
    ours, theirs = (subject.model._module.state_dict() for subject in (one, two))
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_shards_load_as_one_file_does(sharded: Path, llama: Subject) -> None:
    assert same(load_subject(str(sharded)), llama)


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
STORED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "once": lambda tensors: None,
    "twice": lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}),
    "under the head's name": lambda tensors: tensors.update({HEAD: tensors.pop(EMBEDDING)}),
}


@pytest.mark.parametrize("store", STORED.values(), ids=STORED)
def test_tied_weights_are_one_however_they_are_stored(store: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", "llama", tie_word_embeddings=True)
    before, tensors = load_subject(str(folder)), load_file(folder / SINGLE)
    store(tensors)
    save_file(tensors, folder / SINGLE)
    found = load_subject(str(folder))
    assert same(found, before)
    once = sum(8 * weight.numel() for weight in before.model._module.parameters())
    assert once <= shape_of(found.model._module, found.family).weights < once + 1000  # buffers


def cut_off(folder: Path) -> None:
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-8])


AMBIGUOUS: dict[str, tuple[Spoil, str]] = {
    "a subfolder": (replace_in_index(f'"{FIRST}"', f'"sub/{FIRST}"'), "no safetensors file in the same folder"),
    "outside the folder": (replace_in_index(f'"{FIRST}"', f'"../{FIRST}"'), "no safetensors file in the same folder"),
    "an absolute path": (replace_in_index(f'"{FIRST}"', f'"/tmp/{FIRST}"'), "no safetensors file in the same folder"),
    "a pickle": (replace_in_index(f'"{FIRST}"', '"weights.bin"'), "no safetensors file in the same folder"),
    "a missing shard": (lambda folder: (folder / FIRST).unlink(), f"lacks {FIRST}"),
    "a weight in the wrong shard": (place_wrongly, "places model.norm.weight in"),
    "a weight in two shards": (hold_twice, "and again in"),
    "a shard that is cut off": (cut_off, "cannot be loaded: .*not fully covered"),
    "an index and a single file": (lambda folder: decoy(folder, SINGLE), "both model.safetensors and"),
    "no map": (lambda folder: (folder / INDEX).write_text("[]", encoding="utf-8"), "no weight_map"),
    "nested too deeply": (lambda folder: (folder / INDEX).write_text("[" * 10**5, encoding="utf-8"), "as JSON"),
    "a distributed checkpoint": (
        lambda folder: decoy(folder, "shard-00001-model-00001-of-00001.safetensors"),
        "distributed training",
    ),
    "only a file of another name": (
        lambda folder: [(folder / INDEX).unlink(), (folder / SECOND).unlink()],
        "would not read model-00001",
    ),
}


@pytest.mark.parametrize(("spoil", "problem"), AMBIGUOUS.values(), ids=AMBIGUOUS)
@pytest.mark.parametrize("weights", [True, False])
def test_a_folder_whose_weights_are_not_clear_is_refused(
    sharded: Path, spoil: Spoil, problem: str, weights: bool
) -> None:
    spoil(sharded)
    with pytest.raises(ModelError, match=problem):
        load_subject(str(sharded), weights=weights)


def test_a_snapshot_of_the_hubs_cache_is_a_folder(folder: Path, tmp_path: Path) -> None:
    """Its files are links to others outside of it."""
    snapshot, blobs = tmp_path / "snapshots" / "0", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    identity = load_subject(str(snapshot)).identity
    weights = (snapshot / SINGLE).resolve()
    save_file(load_file(weights) | {"model.norm.weight": torch.ones(24).double()}, weights)
    assert load_subject(str(snapshot)).identity["digest"] != identity["digest"]


def test_the_hubs_commit_is_part_of_the_identity(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """Two commits under one name are two models."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = []
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(folder, tmp_path / "models--some--model" / "snapshots" / commit)
        refs = tmp_path / "models--some--model" / "refs"
        refs.mkdir(exist_ok=True)
        (refs / "main").write_text(commit, encoding="utf-8")
        found.append(load_subject("some/model").identity)
    asked = tmp_path / "models--some--model" / "snapshots" / commit / "generation_config.json"
    asked.write_text('{"eos_token_id": [2, 5], "temperature": 2.0, "do_sample": true}', encoding="utf-8")
    loaded, described = (load_subject("some/model", weights=weights) for weights in (True, False))
    assert described.identity == loaded.identity, "show must find what was measured"
    assert (described.turns.overridden, described.eos_ids[:2]) == (loaded.turns.overridden, (2, 5))
    assert [one["commit"] for one in found] == ["a" * 40, "b" * 40]
    assert {**found[0], "commit": None} == {**found[1], "commit": None}


def test_a_file_that_is_replaced_with_its_time_kept_is_noticed(folder: Path) -> None:
    before = stamp(folder, weight_files(folder))
    other = shutil.copy2(folder / SINGLE, folder / "other")
    assert stamp(folder, weight_files(folder)) == before, "a file that is not read may change"
    os.replace(other, folder / SINGLE)
    assert stamp(folder, weight_files(folder)) != before


def test_a_token_that_the_template_writes_by_its_role_is_part_of_the_identity(folder: Path) -> None:
    """No file that is digested says which token it is, and the ends of generation_config.json stay the same."""
    generation, config = folder / "generation_config.json", folder / "tokenizer_config.json"
    generation.write_text(json.dumps({"eos_token_id": 2}), encoding="utf-8")
    usual = load_subject(str(folder), weights=False).identity
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("<user>", "{{ eos_token }}<user>"), encoding="utf-8")
    written = load_subject(str(folder), weights=False).identity
    assert usual.keys() == written.keys()
    content = json.loads(config.read_text(encoding="utf-8")) | {"eos_token": "w1"}
    config.write_text(json.dumps(content), encoding="utf-8")
    assert load_subject(str(folder), weights=False).identity["template_tokens"] == {"eos_token": "w1"}
