"""torch's settings that decide how products are rounded: a program may have set them, and a worker does as it does."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

OF_BACKENDS = (
    "mkldnn.enabled",
    "mkldnn.matmul.fp32_precision",
    "cuda.matmul.fp32_precision",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cuda.matmul.allow_fp16_accumulation",
    "cudnn.conv.fp32_precision",
)
"""Of `torch.backends`; a setting that this torch does not have, or will not tell, is left as it is."""
SDP = ("flash_sdp", "mem_efficient_sdp", "math_sdp", "cudnn_sdp")
"""The ways in which torch may compute attention on a GPU."""

AUTOCAST = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that have an autocast each."""


def torch_settings() -> dict[str, Any]:
    """Name → value, as they are in this process."""
    found = {}
    for name, (get, _) in _settings().items():
        with suppress(AttributeError, RuntimeError, TypeError):
            found[name] = get()
    return found


def set_torch(settings: Mapping[str, Any]) -> None:
    """Gives this process the settings of another one."""
    for name, (get, put) in _settings().items():
        with suppress(AttributeError, RuntimeError, TypeError):
            if name in settings and settings[name] != get():
                put(settings[name])


@contextmanager
def computing_plainly() -> Iterator[None]:
    """Inside, torch computes as in a process of its own, whatever a notebook is within or has set for what it makes.

    Autocast, inference mode and a default device hold for a thread, a default dtype for a process: a number would
    depend on the thread or process that computes it, and on something that no key of the cache has.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:  # so nobody has entered either
        yield
        return
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if (dtype := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        yield


def _settings() -> dict[str, tuple[Callable[[], Any], Callable[[Any], None]]]:
    """How each is read and set, the general ones first."""
    import torch

    found: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
        "matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        "deterministic": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    }
    for path in OF_BACKENDS:
        *within, name = path.split(".")
        found[path] = partial(_get, torch.backends, within, name), partial(_set, torch.backends, within, name)
    for name in SDP:
        enabled, enable = (getattr(torch.backends.cuda, one, None) for one in (f"{name}_enabled", f"enable_{name}"))
        if enabled is not None and enable is not None:
            found[name] = enabled, enable
    return found


def _within(place: Any, path: Sequence[str]) -> Any:
    for name in path:
        place = getattr(place, name)
    return place


def _get(place: Any, path: Sequence[str], name: str) -> Any:
    return getattr(_within(place, path), name)


def _set(place: Any, path: Sequence[str], name: str, value: Any) -> None:
    setattr(_within(place, path), name, value)
