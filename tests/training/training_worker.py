"""One of two processes that train together on CPUs: run by test_several_processes.py, once per rank.

It trains adapters, and runs `ssn-probe delta train` beside a replicated base, beside a base that is sharded with FSDP2,
and with data that cannot be learned. What it found is saved as `RANK.pt`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from delta_command_case import run
from training_case import llama, quick

from ssn_probe.api import delta_training
from ssn_probe.errors import ModelError
from ssn_probe.training.loop import processes, train_within_memory

torch.set_num_threads(1)
# 12 rows in batches of 5: the last batch has two rows, so that with micro-batches of 2 the processes differ in work.
LORA: dict[str, Any] = {"batch": 5, "steps": 6, "held_out": 0.1, "evaluate_every": 3, "micro_batch": 2}
LORA |= {"keep": (2,), "lr": 1e-2}
TOGETHER = ("--micro-batch", "2", "--device", "cpu", "--checkpoint-every", "2")


def sharded() -> Any:
    return processes.sharded(llama(), processes.gather_team(torch.device("cpu")))


def result(trained: Any) -> dict[str, Any]:
    changes = {"chosen": trained.delta, "kept": trained.kept[2]}
    tensors = {
        f"{name} {part.module} {kind}": value
        for name, change in changes.items()
        for part in change.parts
        for kind, value in (("A", part.a), ("B", part.b))
    }
    losses = [loss for step in trained.history for loss in (step.loss, step.held_out) if loss is not None]
    return {"tensors": tensors, "losses": losses, "parameters": trained.record["parameters"]}


def lora_on_a_sharded_base() -> str:
    """The error."""
    try:
        quick(sharded(), adapter="lora", **LORA)
    except ModelError as error:
        return str(error)
    return ""


def by_the_command() -> dict[str, Any]:
    """Exit code and output of three commands; and of each training: is its base sharded, which file does it write?"""
    split: list[bool] = []
    wrote: list[str] = []
    train, write = train_within_memory.train, delta_training.write_delta

    def trains(module: Any, *given: Any, **options: Any) -> Any:
        split.append(processes.is_sharded(module))
        return train(module, *given, **options)

    def writes(out: Path, file: Any, **options: Any) -> None:
        wrote.append(str(out))
        write(out, file, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_within_memory, "train", trains)
        patch.setattr(delta_training, "write_delta", writes)
        found = [run(*TOGETHER, out="replicated")]
        patch.setenv("ACCELERATE_USE_FSDP", "true")
        found.append(run("--gradient-checkpointing", *TOGETHER, out="sharded"))
        patch.delenv("ACCELERATE_USE_FSDP")
        found.append(run(*TOGETHER, data="unsafe", out="never"))
    outputs = [(each.exit_code, each.stdout, each.stderr) for each in found]
    return {"outputs": outputs, "split": split, "wrote": wrote}


def main(folder: Path) -> None:
    os.chdir(folder)
    processes.gather_team(torch.device("cpu"))  # a command alone would connect the processes, and disconnect them again
    lora = result(quick(llama(), adapter="lora", folder=Path("checkpoints"), **LORA))
    found = {"lora": lora, "refused": lora_on_a_sharded_base(), "command": by_the_command()}
    torch.save(found, f"{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
