"""Interrupted and resumed is bit for bit uninterrupted, also after kill -9; other checkpoints are refused."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from training_case import equal, llama, quick, tiny_data

import ssn_probe
from ssn_probe.errors import ResultError
from ssn_probe.training.loop.resuming import FILE, Step
from ssn_probe.training.loop.train import Trained

OPTIONS: dict[str, Any] = {"steps": 9, "held_out": 0.2, "evaluate_every": 2, "checkpoint_every": 2}
TESTS = Path(__file__).parent
PACKAGE = Path(ssn_probe.__file__).parents[1]


class Interruption(Exception):
    pass


def interrupt_at(number: int) -> Any:
    def watch(step: Step, _delta: Any) -> None:
        if step.step == number:
            raise Interruption

    return watch


def assert_equal(resumed: Trained, straight: Trained) -> None:
    assert equal(resumed.delta, straight.delta)
    assert equal(resumed.last, straight.last)
    assert list(resumed.kept) == list(straight.kept)
    assert all(equal(resumed.kept[step], kept) for step, kept in straight.kept.items())
    assert resumed.chosen_step == straight.chosen_step
    told = [
        [(s.step, s.loss, s.lr, s.norm, s.held_out, s.probe) for s in trained.history]
        for trained in (resumed, straight)
    ]
    assert told[0] == told[1]
    assert resumed.record == straight.record


def first_logit(module: Any) -> float:
    return float(module(input_ids=torch.arange(6, 12)[None]).logits[0, -1, 0])


@pytest.mark.parametrize(("at", "adapter"), [(1, "neurons"), (4, "neurons"), (8, "neurons"), (8, "lora")])
def test_resumed_equals_uninterrupted(tmp_path: Path, at: int, adapter: str) -> None:
    """Also what was kept before the interruption."""
    options = OPTIONS | {"probe": first_logit, "adapter": adapter, "keep": (1, 8)}
    straight = quick(llama(), **options)
    with pytest.raises(Interruption):
        quick(llama(), folder=tmp_path, watch=interrupt_at(at), **options)
    seen: list[int] = []
    resumed = quick(llama(), folder=tmp_path, watch=lambda step, _: seen.append(step.step), **options)
    assert_equal(resumed, straight)
    assert len(seen) < 10 or at == 1


def test_a_finished_training_is_read_back_without_a_step(tmp_path: Path) -> None:
    straight = quick(llama(), folder=tmp_path, **OPTIONS)
    assert_equal(quick(llama(), folder=tmp_path, watch=interrupt_at(9), **OPTIONS), straight)


def test_a_killed_process_goes_on_where_it_was(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(PACKAGE), str(TESTS), str(TESTS.parent)]!r}
import torch
torch.set_num_threads(1)
from pathlib import Path
from training_case import llama, quick
import ssn_probe.training.export.conversion

assert "nnsight" not in sys.modules

def watch(step, delta):
    if step.step == 6:
        os.kill(os.getpid(), signal.SIGKILL)

quick(llama(), folder=Path({str(tmp_path)!r}), watch=watch, **{OPTIONS!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    seen: list[int] = []
    resumed = quick(llama(), folder=tmp_path, watch=lambda step, _: seen.append(step.step), **OPTIONS)
    assert seen == [5, 6, 7, 8, 9]
    assert_equal(resumed, quick(llama(), **OPTIONS))


def test_a_write_that_is_cut_off_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    calls: list[int] = []

    def half(tensors: Any, path: Path, metadata: Any) -> None:
        calls.append(1)
        save_file(tensors, path, metadata=metadata)
        if len(calls) == 2:
            path.write_bytes(path.read_bytes()[:100])
            raise Interruption

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(Interruption):
        quick(llama(), folder=tmp_path, **OPTIONS)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert_equal(quick(llama(), folder=tmp_path, **OPTIONS), quick(llama(), **OPTIONS))


@pytest.mark.parametrize(
    "other",
    [
        {"lr": 2e-3},
        {"seed": 1},
        {"neurons": [(0, "ffn", 1)]},
        {"adapter": "lora"},
        {"keep": (1,)},
        {"data": tiny_data(7)},
        {"module": llama(tie_word_embeddings=True)},
    ],
    ids=lambda value: next(iter(value)),
)
def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    quick(llama(), folder=tmp_path)
    with pytest.raises(ResultError, match="belongs to another training"):
        quick(**{"module": llama(), "folder": tmp_path} | other)


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    quick(llama(), folder=tmp_path)
    file = tmp_path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResultError, match="cannot be read"):
        quick(llama(), folder=tmp_path)
    file.unlink()
    save_file({"nothing": torch.zeros(1)}, file)
    with pytest.raises(ResultError, match="not a checkpoint of this release"):
        quick(llama(), folder=tmp_path)
