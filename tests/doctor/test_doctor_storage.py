"""The hub's cache and the results folder: full, closed, absent; a token is never shown."""

import errno
import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import hub_server
import pytest
from huggingface_hub import constants

from ssn_probe.doctor import storage
from ssn_probe.doctor.checks import Check, guarded
from ssn_probe.model.hub import why_unreachable

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch):
    """Pretend that a disk has so many bytes free."""

    def pretend(free: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(int(1e12), int(1e12 - free), int(free)))

    return pretend


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room) -> Path:
    """A hub cache of the test's own, online, without a token, on a large disk."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr(storage, "why_unreachable", lambda: None)
    room(1e11)
    return tmp_path / "hub"


# --- hub


def test_a_hub_cache(hub: Path) -> None:
    check = storage.check_hub()
    assert (check.status, check.found) == ("ok", f"{hub} not made yet, 100.0 GB free; online; no token")
    (hub / "models--a--b").mkdir(parents=True)
    (hub / "models--a--b" / "blob").write_bytes(bytes(3_000_000))
    (hub / "link").symlink_to(hub / "models--a--b" / "blob")
    assert f"{hub} holds 3 MB" in storage.check_hub().found


def test_a_token_is_counted_and_not_shown(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_abcdefgh")
    check = storage.check_hub()
    assert check.found.endswith("; a token")
    assert "abcdefgh" not in repr(check)


def test_a_hub_that_is_switched_off(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    check = storage.check_hub()
    assert (check.status, "offline (TRANSFORMERS_OFFLINE)" in check.found) == ("ok", True)


def test_a_hub_that_does_not_answer(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(storage, "why_unreachable", why_unreachable)
    check = storage.check_hub()
    assert (check.status, "; unreachable (" in check.found, "online" in check.found) == ("warning", True, False)
    assert "http://127.0.0.1:9 gives no answer" in check.meaning
    with hub_server.hub(500) as (address, _):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        assert "; online;" in storage.check_hub().found


@pytest.mark.parametrize(
    ("free", "writable", "meaning"), [(2e9, True, "would fill the disk"), (1e11, False, "cannot be downloaded")]
)
def test_a_hub_cache_that_takes_nothing(
    hub: Path, room, monkeypatch: pytest.MonkeyPatch, free: float, writable: bool, meaning: str
) -> None:
    room(free)
    monkeypatch.setattr(os, "access", lambda path, mode: writable or (path, mode) != (hub.parent, os.W_OK))
    check = storage.check_hub()
    assert (check.status, f"{free / 1e9:.1f} GB free" in check.found) == ("warning", True)
    assert meaning in check.meaning
    assert "HF_HOME" in check.remedy


# --- results


def results(out: Path) -> Check:
    (check,) = guarded("results", lambda: storage.check_results(out))
    return check


def test_a_results_folder_is_not_made_and_nothing_is_left_in_it(tmp_path: Path, room) -> None:
    room(1e11)
    out = tmp_path / "not" / "yet"
    check = results(out)
    assert (check.status, check.found) == ("ok", f"{out} can be written, 100.0 GB free, nothing cached")
    assert list(tmp_path.iterdir()) == []


def test_the_cache_of_a_results_folder(tmp_path: Path, room) -> None:
    room(1e11)
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "scores").write_bytes(bytes(5_000_000))
    assert results(tmp_path).found.endswith(f"5 MB in {tmp_path / 'cache'}")


@pytest.mark.parametrize(("free", "status", "meaning"), [(5e7, "failed", "almost full"), (5e8, "warning", "gigabytes")])
def test_a_disk_without_room(free: float, status: str, meaning: str, tmp_path: Path, room) -> None:
    room(free)
    check = results(tmp_path)
    assert (check.status, f"{free / 1e6:.0f} MB free" in check.found) == (status, True)
    assert meaning in check.meaning
    assert "-o DIR" in check.remedy


@pytest.mark.parametrize(
    ("code", "hint"),
    [(errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written"), (errno.ENOSPC, "disk is full")],
)
def test_a_disk_that_refuses(code: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_where):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    check = results(tmp_path / "results")
    assert check.status == "failed"
    assert check.found == f"cannot write {tmp_path / 'results'}: {os.strerror(code)}"
    assert "would stop" in check.meaning
    assert hint in check.remedy
    assert "-o DIR" in check.remedy


def test_a_full_disk_takes_an_empty_file_and_is_still_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def write(self, data: bytes) -> None:
            if data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def flush(self) -> None: ...

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_where: Full())
    check = results(tmp_path)
    assert (check.status, "disk is full" in check.remedy) == ("failed", True)


def test_a_results_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    check = results(tmp_path / "results")
    assert (check.status, "Not a directory" in check.found) == ("failed", True)
    assert "-o DIR" in check.remedy
