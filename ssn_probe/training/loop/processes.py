"""One process or several: which process takes which rows of a step, how gradients are added, and which one reports.

Deltas are small, so every process holds all of them and only gradients travel: one float32 buffer per step. That works
the same beside a replicated base (data parallel) and beside one that is sharded with FSDP2, whose own parameters
stay out of it. Start the processes with `torchrun` or with `accelerate launch`.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ssn_probe.errors import ModelError, RecipeError, ResultError, first_line
from ssn_probe.model.families import family_of
from ssn_probe.model.loading import usable_device
from ssn_probe.model.placement import BALANCED

T = TypeVar("T")

CPU = torch.device("cpu")
FAILED = "ssn-probe: a process failed"
"""The counter of failed processes in the store that connects them."""


@dataclass(frozen=True, kw_only=True)
class Team:
    """The processes that train together; `rank` counts this one from 0, `device` is where its numbers are added up."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Is this the process that writes?"""
        return self.rank == 0

    def shares(self, rows: Sequence[T], most: int | None) -> list[list[T]]:
        """This process's micro-batches of at most `most` rows.

        Every process gets as many, because a sharded base makes them work in step; the missing ones are empty.
        """
        mine = list(rows[self.rank :: self.size])
        largest = -(-len(rows) // self.size)
        size = min(most or largest, largest) or 1
        return [mine[start : start + size] for start in range(0, largest, size)]

    def add_up(self, gradients: Sequence[Tensor], number: float) -> float:
        """Sums the gradients over all processes, in place; gives the sum of the numbers.

        Raises ModelError where another process has ended.
        """
        if self.size == 1:
            return number
        first = gradients[0] if gradients else torch.zeros(0, dtype=torch.float64, device=self.device)
        extra = torch.tensor([number], dtype=first.dtype, device=first.device)
        buffer = torch.cat([*(grad.flatten().to(first.device) for grad in gradients), extra])
        with _lost_processes():
            torch.distributed.all_reduce(buffer)
        parts = buffer.split([*(grad.numel() for grad in gradients), 1])
        for grad, summed in zip(gradients, parts, strict=False):
            grad.copy_(summed.view_as(grad))
        return float(buffer[-1])

    def wait(self) -> None:
        """Waits for every process. Raises ModelError where another process has ended."""
        if self.size > 1:
            with _lost_processes():
                torch.distributed.barrier()


@contextmanager
def _lost_processes() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ModelError(
            f"Another process of this training has ended: {first_line(error)}",
            "The launcher reports which and why. The same command continues from the last checkpoint.",
        ) from error


def check_same_step(team: Team, step: int, folder: Path) -> None:
    """Raises ResultError unless all processes begin after the same step: each has read its own copy of a checkpoint."""
    total, squares = team.add_up([], float(step)), team.add_up([], float(step**2))
    if total**2 != team.size * squares:
        raise ResultError(
            f"The processes do not find the same checkpoint in {folder}.",
            "Give a folder that all machines share (--checkpoints FOLDER), or remove the checkpoint on every machine.",
        )


def processes() -> int:
    """How many processes a launcher has started, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device(device: str) -> torch.device:
    """The device of this process: what `load_subject` takes, and under a launcher the GPU of the process's local rank.

    Args:
        device: `auto`, `cpu`, `cuda` or, for a process alone, any torch device.

    Raises:
        ModelError: a device that cannot be used, or fewer GPUs than processes.
        RecipeError: one device for several processes.
    """
    if device == BALANCED:
        raise ModelError(
            "A model that is spread over several devices (balanced) is not trained.",
            "Give one device, or start a process for each GPU with torchrun: --shard splits a model over them.",
        )
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    wanted = "cpu" if device == "auto" and on_cpu else usable_device(device) if device == "auto" else device
    if processes() == 1 or wanted == "cpu":
        return torch.device(usable_device(wanted))
    if wanted != "cuda":
        hint = "Give `auto`, `cuda` or `cpu`: each process takes a GPU of its own."
        raise RecipeError(f"{processes()} processes cannot share the device {device!r}", hint)
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if here > gpus > 0:
        raise ModelError(
            f"There are {here} processes and {gpus} GPUs.", f"Start {gpus} processes, or use the CPU: --device cpu."
        )
    return torch.device(usable_device(f"cuda:{os.environ['LOCAL_RANK']}"))  # `cuda` would open the first in each


def gather_team(device: torch.device) -> Team:
    """The processes that a launcher has started beside this one, for a model on this device; alone if there are none.

    They are connected unless they are already: with gloo on CPUs, with NCCL on GPUs.
    """
    if not torch.distributed.is_initialized():
        if processes() == 1:
            return Team(device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.distributed.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
        else:
            torch.distributed.init_process_group("gloo")
    return Team(rank=torch.distributed.get_rank(), size=torch.distributed.get_world_size(), device=device)


def sharded(module: Any, team: Team) -> Any:
    """The model with its weights split over the processes, layer by layer (FSDP2), on their devices.

    Raises RecipeError where there is only one process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if team.size == 1:
        hint = "Start several: torchrun --nproc-per-node 2 -m ssn_probe delta train …"
        raise RecipeError("a model is sharded over several processes, but there is only one", hint)
    mesh = init_device_mesh(team.device.type, (team.size,))
    for layer in module.get_submodule(family_of(module.config).layers):
        fully_shard(layer, mesh=mesh)
    return fully_shard(module, mesh=mesh)


def is_sharded(module: Any) -> bool:
    """Do the processes work in step, since each has only a part of the weights?"""
    return hasattr(module.get_input_embeddings().weight, "full_tensor")


@contextmanager
def single_error() -> Iterator[None]:
    """Of several processes that fail, the first reports why; the others end with status 1 and no message.

    Wrong data fail everywhere, and a process that ends takes the others with it: one message is enough. Processes that
    were connected inside are disconnected again.
    """
    before = torch.distributed.is_initialized()
    try:
        yield
        if not before and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except (Exception, KeyboardInterrupt):
        if not _reports():
            sys.exit(1)
        raise


def _reports() -> bool:
    if processes() == 1:
        return True
    if not torch.distributed.is_initialized():  # an error this early occurs in every process
        return os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        return torch.distributed.distributed_c10d._get_default_store().add(FAILED, 1) == 1
    except RuntimeError:  # the process that kept the store has ended before this one
        return False
