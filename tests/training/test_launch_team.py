"""`ssn-probe delta train` in several processes: the same delta, one file, one voice.

Run as a script, this file is one of two processes that train together.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from launch_case import done, prepare, run, write_data
from test_team import free_port

from ssn_probe.api import delta_training as launch
from ssn_probe.errors import ModelError, RecipeError
from ssn_probe.model.out_of_memory import OutOfMemory
from ssn_probe.training.delta_file.file import read_delta
from ssn_probe.training.loop import processes as team
from ssn_probe.training.loop import train_within_memory

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[[str], Path]) -> None:
    """Every command is short, and its lines are not wrapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    prepare(tmp_path, tiny_folder("llama"))


def test_every_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        team, "usable_device", lambda device: "cuda" if device == "auto" else opened.append(device) or device
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(team.own_device(device)) for device in ("auto", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    opened.clear()
    assert [str(team.own_device(device)) for device in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    assert opened == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(RecipeError, match="2 processes cannot share the device 'cuda:0'"):
        team.own_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ModelError, match="3 processes and 2 GPUs"):
        team.own_device("cuda")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert str(team.own_device("auto")) == "cpu"


def test_the_first_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before they are connected."""

    def fails() -> None:
        with team.single_error():
            raise RecipeError("wrong")

    with pytest.raises(RecipeError):
        fails()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, error in (("0", RecipeError), ("1", SystemExit)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(error):
            fails()


def test_a_process_that_is_gone_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> None:
        raise RuntimeError("Connection reset by peer")

    for name in ("all_reduce", "barrier"):
        monkeypatch.setattr(torch.distributed, name, gone)
    for call in (lambda: team.Team(size=2).add_up([], 1.0), team.Team(size=2).wait):
        with pytest.raises(ModelError, match=r"Another process .* has ended: Connection reset") as caught:
            call()
        assert "the same command goes on" in str(caught.value.hint)


def test_several_processes_do_not_start_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    def full(*_: Any, micro_batch: int | None, **__: Any) -> None:
        asked.append(micro_batch)
        raise OutOfMemory("full", "less", 4)

    monkeypatch.setattr(train_within_memory, "train", full)
    monkeypatch.setattr(launch, "gather_team", lambda device: team.Team(size=2, device=device))
    assert run().exit_code == 1
    assert asked == [None]


def worker(folder: Path) -> None:
    """What each process does: the same commands, the last of them with data that cannot be learned."""
    os.chdir(folder)
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        split, wrote = notes(patch)
        found = [run(*TOGETHER, out="replicated")]
        patch.setenv("ACCELERATE_USE_FSDP", "true")
        found.append(run("--gradient-checkpointing", *TOGETHER, out="sharded"))
        patch.delenv("ACCELERATE_USE_FSDP")
        found.append(run(*TOGETHER, data="unsafe", out="never"))
    told = [(one.exit_code, one.stdout, one.stderr) for one in found]
    Path(f"{os.environ['RANK']}.json").write_text(
        json.dumps({"told": told, "split": split, "wrote": wrote}), encoding="utf-8"
    )
    torch.distributed.destroy_process_group()


def notes(patch: pytest.MonkeyPatch) -> tuple[list[bool], list[str]]:
    """Of every training in this process: is its base sharded, and which files does it write?"""
    split: list[bool] = []
    wrote: list[str] = []
    train, write = train_within_memory.train, launch.write_delta

    def trains(module: Any, *given: Any, **options: Any) -> Any:
        split.append(team.is_sharded(module))
        return train(module, *given, **options)

    def writes(out: Path, file: Any) -> None:
        wrote.append(str(out))
        write(out, file)

    patch.setattr(train_within_memory, "train", trains)
    patch.setattr(launch, "write_delta", writes)
    return split, wrote


TOGETHER = ("--micro-batch", "2", "--device", "cpu", "--checkpoint-every", "2")
# 12 rows in batches of 5: the last batch has two rows, so that the processes differ in work.


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Iterator[Any]:
    """The folder of two processes that were started as a launcher starts them, and what each of them said."""
    folder = tmp_path_factory.mktemp("launch")
    prepare(folder, tiny_folder("llama"))
    write_data(folder / "unsafe", reference="w1")
    shared = {
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
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
        yield folder, [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("base", ["replicated", "sharded"])
def test_two_processes_write_what_one_writes(ranks: Any, base: str, tmp_path: Path) -> None:
    folder, _ = ranks
    done(run("--micro-batch", "2", out="alone"))
    alone, found = read_delta(Path("alone")), read_delta(folder / base)
    for ours, theirs in zip(found.rows.parts, alone.rows.parts, strict=True):
        assert theirs.change.abs().max() > 1e-3
        assert (ours.change - theirs.change).abs().max() < 1e-6
    assert found.base_digest == alone.base_digest
    assert found.about["held_out_loss"] == pytest.approx(alone.about["held_out_loss"], rel=1e-5)
    assert replace(found, about={**found.about, "held_out_loss": None}).about == {**alone.about, "held_out_loss": None}


def test_one_process_shows_and_writes(ranks: Any) -> None:
    folder, (first, second) = ranks
    assert first["split"] == second["split"] == [False, True]
    assert (first["wrote"], second["wrote"]) == (["replicated", "sharded"], [])
    for name, ours, theirs in zip(first["wrote"], first["told"], second["told"], strict=False):
        assert ours[0] == theirs[0] == 0
        assert f"Written to {name}." in ours[1]
        assert "training: 30 prompts" in ours[1]
        assert theirs[1:] == ["", ""]
    known = {"0.json", "1.json", "data", "model", "n.csv", "replicated", "sharded", "unsafe"}
    assert {path.name for path in folder.iterdir()} == known


def test_an_error_ends_every_process_with_one_message(ranks: Any) -> None:
    _, both = ranks
    assert [rank["told"][2][0] for rank in both] == [1, 1]
    said = [rank["told"][2][2] for rank in both]
    assert sorted(map(bool, said)) == [False, True]
    assert "do not fit their request" in "".join(said)


if __name__ == "__main__":
    team.gather_team(team.own_device("cpu"))  # which one command alone would connect, and part again at its end
    worker(Path(sys.argv[1]))
