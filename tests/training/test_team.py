"""Two processes on CPUs train what one trains, beside a replicated base and beside a sharded one."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from expand_case import llama, quick
from expand_worker import LORA, OPTIONS, told

from ssn_probe.training.loop.processes import Team
from ssn_probe.training.loop.resuming import FILE

TESTS = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What both processes found; started in the environment that a launcher gives them."""
    folder = tmp_path_factory.mktemp("team")
    shared = {
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(TESTS / "expand_worker.py"), str(folder)]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in "01"
    ]
    try:
        for process in processes:
            said, _ = process.communicate(timeout=240)
            assert process.returncode == 0, said.decode()[-3000:]
    finally:
        for process in processes:
            process.kill()
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("base", ["replicated", "sharded"])
def test_two_processes_match_one(ranks: tuple[Path, list[dict[str, Any]]], base: str) -> None:
    alone = told(quick(llama(), **OPTIONS))
    for found in (rank[base] for rank in ranks[1]):
        assert found["base"] == alone["base"]
        assert found["parameters"] == alone["parameters"]
        for name, change in alone["changes"].items():
            assert change.abs().max() > 1e-3
            assert (found["changes"][name] - change).abs().max() < 1e-6, name
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)


def test_two_processes_match_one_with_adapters(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    alone, (first, second) = told(quick(llama(), adapter="lora", **LORA)), ranks[1]
    pairs = [
        (alone["changes"], first["lora"]["changes"], second["lora"]["changes"]),
        (alone["kept"][2], first["lora"]["kept"][2], second["lora"]["kept"][2]),
    ]
    for wanted, ours, theirs in pairs:
        assert wanted.keys() == ours.keys()
        for name, value in wanted.items():
            assert value.abs().max() > 1e-3
            assert (ours[name] - value).abs().max() < 1e-5, name
            assert torch.equal(ours[name], theirs[name])
    assert first["lora"]["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert first["lora"]["parameters"] == alone["parameters"]


def test_adapters_on_a_sharded_base_are_refused(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    assert all("LoRA of a sharded model" in rank["refused"] for rank in ranks[1])


def test_both_processes_hold_the_same_deltas_and_one_writes(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, (first, second) = ranks
    for name, change in first["replicated"]["changes"].items():
        assert torch.equal(change, second["replicated"]["changes"][name])
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [FILE]


def test_every_process_gets_as_many_micro_batches() -> None:
    rows = list(range(7))
    shares = [Team(rank=rank, size=3).shares(rows, 2) for rank in range(3)]
    assert shares == [[[0, 3], [6]], [[1, 4], []], [[2, 5], []]]
    assert Team().shares(rows, None) == [rows]
    assert [Team(rank=rank, size=2).shares([0], 4) for rank in range(2)] == [[[0]], [[]]]
