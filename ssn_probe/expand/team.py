"""One process or several: who takes which rows of a step, and how the shares come together.

Deltas are small, so every process holds all of them and only gradients travel: one float32 buffer per step. That works
the same beside a replicated base (data parallel) and beside one that is sharded with FSDP2, whose own parameters
stay out of it. Start the processes with `accelerate launch` or, on CPUs, where that starts one process only, with
`torchrun`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


CPU = torch.device("cpu")


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

        Every process gets as many, because a sharded base makes them work in step: what is missing is empty.
        """
        mine = list(rows[self.rank :: self.size])
        largest = -(-len(rows) // self.size)
        size = min(most or largest, largest) or 1
        return [mine[start : start + size] for start in range(0, largest, size)]

    def add_up(self, gradients: Sequence[Tensor], number: float) -> float:
        """Sums the gradients over all processes, in place; gives the sum of the numbers."""
        if self.size == 1:
            return number
        first = gradients[0] if gradients else torch.zeros(0, dtype=torch.float64, device=self.device)
        extra = torch.tensor([number], dtype=first.dtype, device=first.device)
        buffer = torch.cat([*(grad.flatten().to(first.device) for grad in gradients), extra])
        torch.distributed.all_reduce(buffer)
        parts = buffer.split([*(grad.numel() for grad in gradients), 1])
        for grad, summed in zip(gradients, parts, strict=False):
            grad.copy_(summed.view_as(grad))
        return float(buffer[-1])

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()


def gather_team(device: torch.device) -> Team:
    """The processes that a launcher has started beside this one, for a model on this device; alone if there are none.

    Where the launcher has not connected them yet, accelerate does: with gloo on CPUs, with the device's own backend
    elsewhere.
    """
    if not torch.distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return Team(device=device)
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")
    return Team(rank=torch.distributed.get_rank(), size=torch.distributed.get_world_size(), device=device)
