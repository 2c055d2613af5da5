"""What accelerate's hooks leave undone in a model that is spread over devices.

accelerate hangs a hook on every module that moves what it is given to where its weights are. Weights that no GPU holds
stay in the processor's memory or on the disk, are on the meta device between calls, and come for the length of a call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.hooks import ModelHook
from torch.autograd.graph import saved_tensors_hooks


class KeptWithStates(ModelHook):
    """Moves the positions whose logits are kept to the final states, out of which the model picks them."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        kept = kwargs.get("logits_to_keep", 0)
        return args, kwargs if isinstance(kept, int) else kwargs | {"logits_to_keep": kept.to(self.device)}


@contextmanager
def weights_fetched_again(module: Any) -> Iterator[None]:
    """Inside, a backward pass fetches offloaded weights again; else the forward pass would keep all on the device."""
    parts = [part for part in module.modules() if getattr(getattr(part, "_hf_hook", None), "offload", False)]

    def pack(saved: Any) -> Any:
        for part in parts:
            for name, weight in part._parameters.items():
                if weight is not None and not weight.is_meta and _one_storage(weight, saved):
                    layout = (saved.size(), saved.stride(), saved.storage_offset())
                    return part._hf_hook.weights_map, name, weight.device, layout
        return saved

    def unpack(packed: Any) -> Any:
        if not isinstance(packed, tuple):
            return packed
        weights, name, device, layout = packed
        return weights[name].to(device).as_strided(*layout)

    with saved_tensors_hooks(pack, unpack):
        yield


def _one_storage(one: Any, other: Any) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
