"""A model whose layers are spread over the devices of this machine: `device_map` of transformers, by accelerate."""

from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.families import Family

BALANCED = "balanced"
"""The device that is all GPUs, each with some of the layers, and the processor's memory for what they do not hold."""


def spread_over() -> dict[str, Any]:
    """What `from_pretrained` is told so that accelerate spreads the layers over the devices of this machine."""
    return {"device_map": BALANCED}


def settle_spread(module: Any, family: Family) -> None:
    """Lets a module that is spread take positions whose logits are kept, as a whole one does."""
    from accelerate.hooks import add_hook_to_module

    from ssn_probe.model.offloading import KeptWithStates

    if (hook := getattr(family.part(module, family.norm), "_hf_hook", None)) is not None:
        add_hook_to_module(module, KeptWithStates(hook.execution_device), append=True)


def memory_beside(weights: int, device: str, card: int) -> tuple[int, int, int]:
    """The memory of the GPU that a study runs on, how much of it weights of so many bytes take, and how many GPUs.

    `card`: what is taken for a GPU where the device is none. Of one GPU `balanced` leaves a tenth without weights.
    """
    if device != BALANCED and not device.startswith("cuda"):
        return card, weights, 0
    import torch

    count = torch.cuda.device_count() if device == BALANCED else 1
    if not count:
        return card, weights, 0
    names = range(count) if device == BALANCED else [device]
    memory = min(torch.cuda.get_device_properties(name).total_memory for name in names)
    return memory, min(-(-weights // count), memory * 9 // 10) if device == BALANCED else weights, count


def spread_of(module: Any, family: Family, device: str) -> tuple[str, str]:
    """The device that takes prompts, and all over which a module is spread, if it is.

    Raises:
        ModelError: there is no device that holds the first weights.
    """
    placed = getattr(module, "hf_device_map", None)
    if device != BALANCED or (placed is None and module.device.type == "meta"):
        return device, ""  # the latter of an outline, which is nowhere
    if module.device.type == "meta":
        raise ModelError(
            "The model's first weights do not fit on a device, and prompts must be where they are.",
            "Free the memory of a GPU, or leave the GPUs out: --device cpu.",
        )
    hook = getattr(family.part(module, family.embedding), "_hf_hook", None)
    first = getattr(hook, "execution_device", None)
    held = dict.fromkeys(str(where) for where in (placed or {}).values())
    devices = [f"cuda:{where}" if where.isdigit() else where for where in held]
    named = str(module.device if first is None else f"cuda:{first}" if isinstance(first, int) else first)
    return named, ", ".join(devices) if len(devices) > 1 else ""
