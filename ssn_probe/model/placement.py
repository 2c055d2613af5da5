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


def spread_of(module: Any, family: Family, device: str) -> tuple[str, str]:
    """The device that takes prompts, and all over which a module is spread, if it is.

    Raises:
        ModelError: there is no device that holds the first weights.
    """
    if device != BALANCED:
        return device, ""
    if hasattr(module, "hf_device_map") and module.device.type == "meta":
        raise ModelError(
            "The model's first weights do not fit on a device, and prompts must be where they are.",
            "Free the memory of a GPU, or leave the GPUs out: --device cpu.",
        )
    hook = getattr(family.part(module, family.embedding), "_hf_hook", None)
    first = getattr(hook, "execution_device", None)
    held = dict.fromkeys(str(where) for where in getattr(module, "hf_device_map", {}).values())
    devices = [f"cuda:{where}" if where.isdigit() else where for where in held]
    named = str(module.device if first is None else f"cuda:{first}" if isinstance(first, int) else first)
    return named, ", ".join(devices) if len(devices) > 1 else ""
