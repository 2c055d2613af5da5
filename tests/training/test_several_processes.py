"""Two processes on CPUs train what one trains, beside a replicated and a sharded base: one file, one report."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from delta_command_case import done, prepare, run, write_data
from training_case import llama, quick
from training_worker import LORA, result

import ssn_probe
from ssn_probe.api import delta_training
from ssn_probe.errors import ModelError, RecipeError
from ssn_probe.model.out_of_memory import OutOfMemory
from ssn_probe.training.delta_file.file import read_delta
from ssn_probe.training.loop import processes, train_within_memory
from ssn_probe.training.loop.processes import Team
from ssn_probe.training.loop.resuming import FILE

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent
PACKAGE = Path(ssn_probe.__file__).parents[1]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def ranks(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]
) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of two processes, started in the environment of a launcher, and what each of them found."""
    folder = tmp_path_factory.mktemp("processes")
    prepare(folder, tiny_folder("llama"))
    write_data(folder / "unsafe", reference="w1")
    shared = {
        "PYTHONPATH": os.pathsep.join(map(str, (PACKAGE, TESTS, TESTS.parent))),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(TESTS / "training_worker.py"), str(folder)],
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in "01"
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert [process.returncode for process in started] == [0, 0], b"\n".join(outputs).decode()[-3000:]
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_match_one_with_adapters(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    alone, (first, second) = result(quick(llama(), adapter="lora", **LORA)), [rank["lora"] for rank in ranks[1]]
    assert alone["tensors"].keys() == first["tensors"].keys() == second["tensors"].keys()
    for name, value in alone["tensors"].items():
        assert value.abs().max() > 1e-3
        assert (first["tensors"][name] - value).abs().max() < 1e-5, name
        assert torch.equal(first["tensors"][name], second["tensors"][name])
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert first["parameters"] == alone["parameters"]
    assert [path.name for path in (ranks[0] / "checkpoints").iterdir()] == [FILE]


def test_adapters_on_a_sharded_base_are_refused(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    assert all("LoRA of a sharded model" in rank["refused"] for rank in ranks[1])


def test_every_process_gets_as_many_micro_batches() -> None:
    rows = list(range(7))
    shares = [Team(rank=rank, size=3).shares(rows, 2) for rank in range(3)]
    assert shares == [[[0, 3], [6]], [[1, 4], []], [[2, 5], []]]
    assert Team().shares(rows, None) == [rows]
    assert [Team(rank=rank, size=2).shares([0], 4) for rank in range(2)] == [[[0]], [[]]]


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("base", ["replicated", "sharded"])
def test_two_processes_write_what_one_writes(ranks: Any, base: str) -> None:
    folder, _ = ranks
    done(run("--micro-batch", "2", out="alone"))
    alone, found = read_delta(Path("alone")), read_delta(folder / base)
    for ours, theirs in zip(found.rows.parts, alone.rows.parts, strict=True):
        assert theirs.change.abs().max() > 1e-3
        assert (ours.change - theirs.change).abs().max() < 1e-6
    assert found.base_digest == alone.base_digest
    assert found.about["held_out_loss"] == pytest.approx(alone.about["held_out_loss"], rel=1e-5)
    assert replace(found, about={**found.about, "held_out_loss": None}).about == {**alone.about, "held_out_loss": None}


def test_one_process_reports_and_writes(ranks: Any) -> None:
    first, second = (rank["command"] for rank in ranks[1])
    assert first["split"] == second["split"] == [False, True]
    assert (first["wrote"], second["wrote"]) == (["replicated", "sharded"], [])
    for name, ours, theirs in zip(first["wrote"], first["outputs"], second["outputs"], strict=False):
        assert ours[0] == theirs[0] == 0
        assert f"Written to {name}." in ours[1]
        assert "training: 30 prompts" in ours[1]
        assert theirs[1:] == ("", "")
    known = {"0.pt", "1.pt", "checkpoints", "data", "model", "n.csv", "replicated", "sharded", "unsafe"}
    assert {path.name for path in ranks[0].iterdir()} == known


def test_an_error_ends_every_process_with_one_message(ranks: Any) -> None:
    last = [rank["command"]["outputs"][2] for rank in ranks[1]]
    assert [code for code, _, _ in last] == [1, 1]
    errors = [error for _, _, error in last if error]
    assert len(errors) == 1
    assert "do not fit their request" in errors[0]


def test_every_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        processes, "usable_device", lambda device: "cuda" if device == "auto" else opened.append(device) or device
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(processes.own_device(device)) for device in ("auto", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    opened.clear()
    assert [str(processes.own_device(device)) for device in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    assert opened == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(RecipeError, match="2 processes cannot share the device 'cuda:0'"):
        processes.own_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ModelError, match="3 processes and 2 GPUs"):
        processes.own_device("cuda")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert str(processes.own_device("auto")) == "cpu"


def test_the_first_process_that_fails_reports_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before they are connected."""

    def fails() -> None:
        with processes.single_error():
            raise RecipeError("wrong")

    with pytest.raises(RecipeError):
        fails()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, error in (("0", RecipeError), ("1", SystemExit)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(error):
            fails()


def test_a_process_that_has_ended_is_not_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> None:
        raise RuntimeError("Connection reset by peer")

    for name in ("all_reduce", "barrier"):
        monkeypatch.setattr(torch.distributed, name, gone)
    for call in (lambda: processes.Team(size=2).add_up([], 1.0), processes.Team(size=2).wait):
        with pytest.raises(ModelError, match=r"Another process .* has ended: Connection reset") as caught:
            call()
        assert "same command continues" in str(caught.value.hint)


@pytest.mark.usefixtures("prepared")
def test_several_processes_do_not_start_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    def full(*_: Any, micro_batch: int | None, **__: Any) -> None:
        asked.append(micro_batch)
        raise OutOfMemory("full", "less", 4)

    monkeypatch.setattr(train_within_memory, "train", full)
    monkeypatch.setattr(delta_training, "gather_team", lambda device: processes.Team(size=2, device=device))
    assert run().exit_code == 1
    assert asked == [None]
