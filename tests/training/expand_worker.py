"""One of several processes that train together on CPUs: run by test_expand_team.py, once per rank.

Trains beside a replicated base, neurons and adapters, and beside one sharded with FSDP2, and saves what came out as
`RANK.pt`.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from expand_case import llama, quick

from ssn_probe.errors import ModelError
from ssn_probe.training.weights.adapter import Adapter

torch.set_num_threads(1)
# 12 rows in batches of 5: the last batch has two rows, so that with micro-batches of 2 the processes differ in work.
OPTIONS: dict[str, Any] = {"batch": 5, "steps": 6, "held_out": 0.1, "evaluate_every": 3, "micro_batch": 2}
LORA = OPTIONS | {"keep": (2,), "lr": 1e-2}


def sharded() -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    module, mesh = llama(), init_device_mesh("cpu", (2,))
    for layer in module.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(module, mesh=mesh)


def tensors(change: Any) -> dict[str, torch.Tensor]:
    if isinstance(change, Adapter):
        return {
            f"{part.module} {kind}": value for part in change.parts for kind, value in (("A", part.a), ("B", part.b))
        }
    return {part.place.module: part.change for part in change.parts}


def told(trained: Any) -> dict[str, Any]:
    return {
        "changes": tensors(trained.delta),
        "kept": {step: tensors(change) for step, change in trained.kept.items()},
        "losses": [loss for step in trained.history for loss in (step.loss, step.held_out) if loss is not None],
        "base": trained.record["base"],
        "parameters": trained.record["parameters"],
    }


def refused() -> str:
    """What is said of adapters on a sharded base."""
    try:
        quick(sharded(), adapter="lora", **OPTIONS)
    except ModelError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    found = {"replicated": told(quick(llama(), folder=folder / "checkpoints", **OPTIONS))}
    found["sharded"] = told(quick(sharded(), gradient_checkpointing=True, **OPTIONS))
    found["lora"] = told(quick(llama(), adapter="lora", **LORA))
    found["refused"] = refused()
    torch.save(found, folder / f"{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
