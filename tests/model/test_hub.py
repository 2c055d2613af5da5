"""What is wrong with a model on the hub is said at once, after one question; a copy in the cache is read without it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers.utils.hub
from hub_server import hub
from huggingface_hub import constants

from ssn_probe.errors import ModelError
from ssn_probe.model import hub as ours
from ssn_probe.model.hub import ask_hub
from ssn_probe.model.subject import load_subject

COMMIT = "0123456789" * 4
ANSWERS = {
    "gated, without a token": (401, {"X-Error-Code": "GatedRepo"}, r"is gated: .* no token is set"),
    "gated, without access": (403, {"X-Error-Code": "GatedRepo"}, "is gated"),
    "no such model": (401, {"X-Error-Message": "Invalid username or password."}, "has no model 'owner/model', or it"),
    "no such model, with a token": (404, {"X-Error-Code": "RepoNotFound"}, "has no model 'owner/model', or it"),
    "a page of another server": (404, {}, "has no model 'owner/model', or it"),
    "no right": (403, {}, "answered 403"),
    "too many requests": (429, {}, "answered 429"),
    "a failure": (500, {}, "answered 500"),
    "no config": (404, {"X-Error-Code": "EntryNotFound"}, r"has no config\.json"),
    "no answer": (None, {}, "cannot be reached: .*timed out"),
}
HINTS = {
    "gated, without a token": ("/owner/model,", "hf auth login", "HF_TOKEN", "smollm2"),
    "no such model": ("Check the name", "HF_TOKEN"),
    "no right": ("The token may not read it",),
    "too many requests": ("hf auth login",),
    "a failure": ("Try again later", "--local-dir FOLDER"),
    "no answer": ("HF_ENDPOINT", "--local-dir FOLDER", "ssn-probe model fetch smollm2"),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The hub's cache is an empty folder, and there is no token."""
    for module in (constants, transformers.utils.hub, transformers.utils.hub.constants):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr(ours, "SECONDS", 0.3)
    yield tmp_path
    ours._silent.clear()


@pytest.mark.parametrize("what", ANSWERS)
def test_one_question_and_one_error(what: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, headers, message = ANSWERS[what]
    with hub(status, headers) as (address, asked):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        if what == "no config":
            monkeypatch.setattr("ssn_probe.model.foreign_adapters.hub_file", lambda *_: None)
            monkeypatch.setattr("ssn_probe.model.loading.hub_file", lambda *_: None)
        with pytest.raises(ModelError, match=message) as error:
            load_subject("owner/model")
    for part in HINTS.get(what, ()):
        assert part in str(error.value.hint)
    assert asked.count("/owner/model/resolve/main/config.json") == 1
    assert len([path for path in asked if "owner" in path]) == 1


def test_nobody_listens(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"cannot be reached: .*127\.0\.0\.1:9/owner/model") as error:
        load_subject("owner/model")
    assert "smollm2" in str(error.value.hint)


def test_a_hub_that_is_switched_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    with pytest.raises(ModelError, match=r"switched off \(HF_HUB_OFFLINE\)") as error:
        load_subject("owner/model")
    assert "--local-dir FOLDER" in str(error.value.hint)


@pytest.mark.parametrize("answer", [401, 500, None])
def test_the_cache_is_read_where_the_hub_does_not_answer(
    answer: Any, cache: Path, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `hf download` leaves it: the cache does not know which files the hub does not have."""
    place = cache / "models--owner--model"
    shutil.copytree(tiny_folder("llama"), place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    with hub(answer) as (address, asked):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        subject = load_subject("owner/model")
    assert subject.identity["commit"] == COMMIT
    assert len([path for path in asked if "owner" in path]) == 1
    assert constants.HF_HUB_OFFLINE is False


def test_the_commit_is_what_the_hub_says(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(200, {"X-Repo-Commit": COMMIT, "ETag": '"1"'}) as (address, _):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        assert ask_hub("owner/model") == COMMIT
