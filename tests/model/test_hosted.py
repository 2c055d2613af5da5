"""A model that a host runs is the same model: its identity is that of a local load, and another config is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers.utils.hub
from hub_server import hub
from huggingface_hub import constants
from ndif_stand_in import host_that_says, key, replica, status

from ssn_probe.errors import ModelError, RemoteError
from ssn_probe.model import hub as ours
from ssn_probe.model.subject import Subject, load_subject

COMMIT, OTHER = "0123456789" * 4, "abcdef0123" * 4


def hosted(name: str, *, asked: str = "auto", weights: bool = False, **fields: Any) -> Subject:
    """The model as a host has it that runs it in bfloat16, unless the fields say otherwise."""
    with host_that_says(status(replica(name, **fields))) as (url, _):
        return load_subject(name, dtype=asked, remote=url, weights=weights)


@pytest.fixture
def config(tiny_folder: Callable[[str], Path]) -> dict[str, Any]:
    """What a host says of the tiny model's config: that which differs from the defaults."""
    from transformers import AutoConfig

    return json.loads(AutoConfig.from_pretrained(tiny_folder("llama")).to_json_string())


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_identity_is_that_of_a_local_load(family: str, tiny_folder: Callable[[str], Path]) -> None:
    name = str(tiny_folder(family))
    there, here = hosted(name, weights=True), load_subject(name, dtype="bfloat16")
    assert (there.identity, there.widths, there.turns) == (here.identity, here.widths, here.turns)
    assert {str(weight.device) for weight in there.model._module.parameters()} == {"meta"}
    assert (there.calls is not None, here.calls, here.place) == (True, None, here.device)
    assert there.place.startswith("http://127.0.0.1:")
    described = hosted(name)
    assert (described.identity, described.model, described.calls) == (here.identity, None, None)


def test_a_folder_without_weights_is_another_model_of_that_host(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder("llama"), folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    with pytest.raises(ModelError, match=r"has no \*\.safetensors"):
        load_subject(str(folder))
    identity = hosted(str(folder)).identity
    assert identity["folder"] == str(folder)
    assert identity["host"].startswith("http://127.0.0.1:")
    assert "digest" not in identity


def test_the_dtype_is_the_hosts(tiny_folder: Callable[[str], Path]) -> None:
    name = str(tiny_folder("llama"))
    assert hosted(name, asked="float16", dtype="float16").identity["dtype"] == "float16"
    with pytest.raises(ModelError, match="in bfloat16, not in float32"):
        hosted(name, asked="float32")


OTHERS = {
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "vocab_size": 100,
    "tie_word_embeddings": True,
    "model_type": "mistral",
    "rope_parameters": {"rope_theta": 5.0},
    "rms_norm_eps": 1e-3,
}


@pytest.mark.parametrize("field", OTHERS)
def test_another_config_is_refused_by_the_name_of_its_field(
    field: str, config: dict[str, Any], tiny_folder: Callable[[str], Path]
) -> None:
    name = str(tiny_folder("llama"))
    assert hosted(name, config=json.dumps(config)).identity
    with pytest.raises(RemoteError, match=rf"its {field} is ") as error:
        hosted(name, config=json.dumps(config | {field: OTHERS[field]}))
    assert "revision main" in str(error.value.hint)


def test_a_field_that_a_host_leaves_out_has_its_default(
    config: dict[str, Any], tiny_folder: Callable[[str], Path]
) -> None:
    with pytest.raises(RemoteError, match="its intermediate_size is 11008"):
        hosted(
            str(tiny_folder("llama")),
            config=json.dumps({name: value for name, value in config.items() if name != "intermediate_size"}),
        )


# ── names on the hub ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cache(tmp_path: Path, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with one model in two revisions, without weights; main is COMMIT."""
    for module in (constants, transformers.utils.hub, getattr(transformers.utils.hub, "constants")):  # noqa: B009
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(ours, "SECONDS", 0.3)
    monkeypatch.setattr(ours, "_silent", set())
    place = tmp_path / "models--owner--model"
    for commit in (COMMIT, OTHER):
        ignored = shutil.ignore_patterns("*.safetensors*")
        shutil.copytree(tiny_folder("llama"), place / "snapshots" / commit, ignore=ignored)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("revision", "commit"), [(None, COMMIT), ("main", COMMIT), (OTHER, OTHER)])
def test_config_and_tokenizer_are_those_of_the_revision_that_the_host_runs(
    revision: str | None, commit: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub(500) as (address, asked):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        subject = hosted("owner/model", model_key=key(revision=revision))
    assert (subject.identity["id"], subject.identity["commit"]) == ("owner/model", commit)
    assert subject.identity["dtype"] == "bfloat16"
    assert [path for path in asked if "owner" in path] == [f"/owner/model/resolve/{revision or 'main'}/config.json"]


def test_without_hub_and_cache_two_kinds_of_files_are_asked_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be reached") as error:
        hosted("owner/other")
    assert "its config and tokenizer are all that is needed" in str(error.value.hint)
    assert "--exclude '*.safetensors'" in str(error.value.hint)
