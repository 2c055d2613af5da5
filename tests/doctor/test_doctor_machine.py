"""Processor, memory and device, on machines that are not this one."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from ssn_probe.doctor import machine
from ssn_probe.doctor.checks import Check
from ssn_probe.model import usable_machine


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Check]:
    """The check on a CPU with so many cores, usable cores, torch threads, and such a load."""

    def check(count: int, usable: int, threads: int, load: float, device: str = "cpu") -> Check:
        monkeypatch.setattr(os, "cpu_count", lambda: count)
        monkeypatch.setattr(machine, "usable_cores", lambda: usable)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return machine.check_processor(device)

    return check


@pytest.mark.parametrize(
    "case", [(8, 8, 8, 0.3), (8, 8, 1, 9.0), (64, 64, 32, 20.0), (2, 2, 2, 0.9), (64, 4, 64, 60.0, "cuda")]
)
def test_a_processor_with_room_or_beside_a_gpu(case, cores) -> None:
    assert cores(*case).status == "ok"


@pytest.mark.parametrize(
    ("case", "why", "threads"),
    [((64, 4, 64, 0.0), "more threads than usable cores", 4), ((8, 8, 8, 7.0), "the cores are busy", 1)],
)
def test_threads_that_would_wait_for_each_other(case, why: str, threads: int, cores) -> None:
    check = cores(*case)
    assert check.status == "warning"
    assert f"{case[0]} cores, {case[1]} usable" in check.found
    assert why in check.meaning
    assert f"OMP_NUM_THREADS={threads} " in check.remedy


def test_usable_cores_are_those_of_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)
    for quota, usable in (("", 16), ("max 100000", 16), ("350000 100000", 3), ("50000 100000", 1)):
        monkeypatch.setattr(usable_machine, "_control_group", lambda _name, quota=quota: quota)
        assert usable_machine.usable_cores() == usable


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Check]:
    """The check on a machine with such memory, in bytes, and settings of its container."""

    def check(total: float, free: float, **settings: str) -> Check:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=int(total), available=int(free)))
        monkeypatch.setattr(usable_machine, "_control_group", lambda name: settings.get(name.partition(".")[2], ""))
        return machine.check_memory()

    return check


def test_memory(remembering) -> None:
    check = remembering(64e9, 40e9)
    assert (check.status, check.found) == ("ok", "40.0 GB free of 64.0 GB")
    check = remembering(64e9, 40e9, max="16000000000", current="4000000000")
    assert (check.status, check.found) == ("ok", "12.0 GB free of 16.0 GB")
    assert remembering(64e9, 40e9, max="max", current="4000000000").found == "40.0 GB free of 64.0 GB"


@pytest.mark.parametrize("case", [((64e9, 5e8), {}), ((64e9, 40e9), {"max": "4000000000", "current": "3900000000"})])
def test_little_memory_is_a_warning(case, remembering) -> None:
    check = remembering(*case[0], **case[1])
    assert check.status == "warning"
    assert "Killed" in check.meaning
    assert "scheduler" in check.remedy


# --- device


def test_the_processor_as_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "DRIVER", Path("/no/driver/here"))
    for device in ("auto", "cpu", "balanced"):
        (check,) = machine.check_device(device)
        assert (check.status, check.found) == ("ok", "cpu, no CUDA device")


def test_a_torch_without_cuda_beside_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    (tmp_path / "version").touch()
    (check,) = machine.check_device("auto")
    assert check.status == "warning"
    assert "built without CUDA" in check.meaning
    assert "CUDA build of torch" in check.remedy
    assert machine.check_device("cpu")[0].status == "ok", "asked for"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Check]:
    """The check on a machine with a GPU that has so much memory free, and bfloat16 or not."""

    def check(free: float, bfloat16: bool) -> Check:
        monkeypatch.setattr(
            "ssn_probe.model.loading.usable_device", lambda device: "cuda" if device == "auto" else device
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _index: (int(free), int(80e9)))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "Some GPU")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
        return machine.check_device("auto")[0]

    return check


def test_layers_over_all_gpus(gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(79e9, True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [check.found.partition(",")[0] for check in machine.check_device("balanced")] == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("free", "bfloat16", "status", "words"),
    [
        (79e9, True, "ok", ("cuda:0, Some GPU, 79.0 GB free of 80.0 GB, bfloat16", "", "")),
        (9e9, True, "warning", ("9.0 GB free", "Somebody else's process", "nvidia-smi")),
        (79e9, False, "warning", ("no bfloat16", "emulate", "--dtype float32")),
    ],
)
def test_a_gpu(gpu, free: float, bfloat16: bool, status: str, words: tuple[str, str, str]) -> None:
    check = gpu(free, bfloat16)
    assert check.status == status
    for text, word in zip((check.found, check.meaning, check.remedy), words, strict=True):
        assert word in text
