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
from ssn_probe.model.digests import module_digest
from ssn_probe.training.loop.resuming import FILE, Step
from ssn_probe.training.loop.train import Trained
from ssn_probe.training.tensor_files import DIGEST, DamagedError, read_tensors, write_tensors

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


@pytest.mark.parametrize("changes", [{}, {"rms_norm_eps": 1e-2}])
def test_the_checkpoint_of_other_arithmetic_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A base in bfloat16 has the same digest in float32, and whatever its config says."""
    quick(llama().bfloat16(), folder=tmp_path, steps=2)
    other = llama(**changes).bfloat16()
    other = other if changes else other.float()
    assert module_digest(other) == module_digest(llama().bfloat16())
    with pytest.raises(ResultError, match="belongs to another training"):
        quick(other, folder=tmp_path, steps=2)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of a training that ended after its sixth step."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Interruption):
        quick(llama(), folder=folder, watch=interrupt_at(6), **OPTIONS)
    return (folder / FILE).read_bytes()


@pytest.fixture(scope="module")
def straight() -> Trained:
    return quick(llama(), **OPTIONS)


def flipped(content: bytes, offset: int) -> bytes:
    return content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :]


@pytest.mark.parametrize("harm", ["first", "header", "middle", "last", "truncate", "empty", "longer", "unmarked"])
def test_a_damaged_checkpoint_is_reported_and_the_training_starts_again(
    harm: str, interrupted: bytes, straight: Trained, tmp_path: Path
) -> None:
    offsets = {"first": 0, "header": interrupted.index(b"best_loss"), "middle": len(interrupted) // 2, "last": -1}
    harmed = {
        "truncate": interrupted[: len(interrupted) // 2],
        "empty": b"",
        "longer": interrupted + b"\0",
        "unmarked": interrupted.replace(b'"sha256"', b'"sha257"'),
    }
    offset = offsets.get(harm, 0) % len(interrupted)
    (tmp_path / FILE).write_bytes(harmed.get(harm) or (flipped(interrupted, offset) if harm in offsets else b""))
    told: list[str] = []
    seen: list[int] = []
    options = OPTIONS | {"watch": lambda step, _: seen.append(step.step), "warn": told.append}
    assert_equal(quick(llama(), folder=tmp_path, **options), straight)
    assert told == [f"{tmp_path / FILE} is damaged: the training starts again"]
    assert seen == list(range(10)), "no step was taken from it"


def test_every_flipped_byte_is_noticed_or_changes_nothing(interrupted: bytes, tmp_path: Path) -> None:
    file, header = tmp_path / FILE, int.from_bytes(interrupted[:8], "little")
    file.write_bytes(interrupted)
    whole = read_tensors(file, "")
    noticed = 0
    for offset in [*range(0, 8 + header, 7), *range(8 + header, len(interrupted), 997)]:
        file.write_bytes(flipped(interrupted, offset))
        try:
            metadata, tensors = read_tensors(file, "")
        except DamagedError:
            noticed += 1
            continue
        assert DIGEST not in metadata, offset  # the flip hit the name of the digest
        assert all(torch.equal(tensors[name], value) for name, value in whole[1].items())
    assert noticed > 300


@pytest.mark.parametrize(("metadata", "words"), [({}, "not a checkpoint"), ({"format": "pt"}, "not a checkpoint")])
def test_another_file_is_refused_and_left(metadata: dict[str, str], words: str, tmp_path: Path) -> None:
    save_file({"nothing": torch.zeros(1)}, tmp_path / FILE, metadata=metadata)
    whole = (tmp_path / FILE).read_bytes()
    with pytest.raises(ResultError, match=words):
        quick(llama(), folder=tmp_path)
    assert (tmp_path / FILE).read_bytes() == whole


def test_a_checkpoint_that_is_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(ResultError, match="not a file, but a folder"):
        quick(llama(), folder=tmp_path)


def test_a_checkpoint_of_ours_that_lacks_something_is_damaged(interrupted: bytes, tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.write_bytes(interrupted)
    metadata, tensors = read_tensors(file, "")
    told: list[str] = []
    without = {path: value for path, value in tensors.items() if not path.startswith("change")}
    for state, kept in ((metadata["state"], without), ("{}", tensors), ('{"step": 1, "history": [1]}', tensors)):
        write_tensors(file, kept, metadata | {"state": state})
        quick(llama(), folder=tmp_path, warn=told.append, **OPTIONS)
    assert len(told) == 3
