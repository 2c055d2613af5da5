"""What processes of one model tell each other: plain data and tensors, pickled.

Of a call's time on the way most went into tensors, of which a change of neurons has some dozens: torch pickles each
with its storage. Those that numpy has a type for travel as arrays, which takes a quarter of that or less.
"""

import copyreg
import io
import pickle
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

PIPE = 2**20
"""Bytes of a pipe that a call is written into at once, and not piece by piece as the other side comes to read it."""


def packed(message: Any) -> bytes:
    """A message as bytes, for `pickle.load`; its tensors are in the processor's memory."""
    import torch

    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = copyreg.dispatch_table | {torch.Tensor: _as_array}
    pickler.dump(message)
    return stream.getvalue()


def _as_array(tensor: Any) -> tuple[Any, ...]:
    import torch

    try:
        return torch.from_numpy, (tensor.contiguous().numpy(),)
    except (TypeError, RuntimeError):  # bfloat16, of which numpy knows nothing, a sparse one, one with a gradient
        return tensor.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


def on_device(value: Any, device: str) -> Any:
    """The same plain data with all tensors on a device, and none that is a view of a larger one."""
    from torch import Tensor

    if isinstance(value, Tensor):
        moved = value.detach().to(device)
        return moved.clone() if moved.untyped_storage().nbytes() > moved.nbytes else moved
    if isinstance(value, Mapping):
        return {name: on_device(item, device) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(on_device(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(on_device(item, device) for item in value)
    return value


def widen(pipe: Any) -> None:
    """Gives a pipe room for `PIPE` bytes where the system can (Linux) and allows it."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
