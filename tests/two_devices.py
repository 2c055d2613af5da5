"""Two devices that are none, on a machine without any: the tensors are the CPU's, and only say that they are elsewhere.

`python two_devices.py FOLDER…` spreads models over them and prints True. It fails where something differs from a whole
model, and where an operation meets tensors of both, as it would on two GPUs. torch takes the devices for good, hence a
process of its own.
"""

import dataclasses
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

KIND = "privateuseone"
FIRST, SECOND = f"{KIND}:0", f"{KIND}:1"
MOVING = ("aten::copy_", "aten::_to_copy")
COUNT = [0]


class Elsewhere(torch.Tensor):
    """A tensor of the CPU that says it is on another device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: Any = None, requires_grad: bool = False) -> "Elsewhere":
        layout: dict[str, Any] = {
            "strides": held.stride(),
            "storage_offset": held.storage_offset(),
        }
        self = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, device=device or held.device, dtype=held.dtype, requires_grad=requires_grad, **layout
        )
        self.held = held.held if isinstance(held, Elsewhere) else held
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Devices(TorchDispatchMode):
    """Makes what is asked for on one of the devices."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Made(TorchFunctionMode):
    """What asks a device itself is made on the CPU first."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.pop("device", None) if func in (torch.tensor, torch.as_tensor) else None
        if func is torch.Tensor.__setitem__ and not isinstance(args[2], torch.Tensor):
            place = tuple(torch.tensor(one) if isinstance(one, list) else one for one in args[1])
            args = (args[0], place, torch.tensor(args[2], dtype=args[0].dtype))
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


def real(value: Any) -> Any:
    return value.held if isinstance(value, Elsewhere) else value


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What the CPU makes of it, on the device where the arguments are, or that is asked for."""
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    there = {str(one.device) for one in given if isinstance(one, Elsewhere)}
    if func.name() not in MOVING:
        check(func.name(), given, there)
    asked = kwargs.get("device")
    device = asked if asked is not None else next(iter(there), "cpu")
    held, settings = tree_map(real, (args, kwargs))
    if asked is not None and torch.device(asked).type == KIND:
        settings["device"] = torch.device("cpu")
    with torch.no_grad():
        result = func(*held, **settings)
    own = {id(real(one)): one for one in given}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or id(value) in own:
            return own.get(id(value), value)
        return Elsewhere(value, device) if torch.device(device).type == KIND else value

    return tree_map(wrapped, result)


def check(name: str, given: list[torch.Tensor], there: set[str]) -> None:
    """As torch with GPUs: one device, but for single numbers, and for indices that are on the CPU."""
    COUNT[0] += 1
    indices = given[1:] if name.startswith("aten::index") else []
    strange = [
        one for one in given if not isinstance(one, Elsewhere) and one.ndim and not any(one is i for i in indices)
    ]
    if len(there) > 1 or (there and strange):
        raise RuntimeError(f"{name} on {sorted(there)} and {[tuple(one.shape) for one in strange]}")


def halves(module: Any, family: Any, first: Any, second: Any) -> dict[Any, Any]:
    """The second half of the layers and the last norm on another device than everything else."""
    depth = family.depth(module)
    layers = {f"{family.layers}.{number}": first if 2 * number < depth else second for number in range(depth)}
    own = [path for path, part in module.named_modules() if part._parameters or part._buffers]
    ends = [path for path in own if not path.startswith(f"{family.layers}.")]
    return layers | dict.fromkeys(ends, first) | {family.norm: second}


def spread(where: str) -> Any:
    """A subject on both devices."""
    from accelerate import dispatch_model

    from ssn_probe.model.placement import settle_spread
    from ssn_probe.model.subject import load_subject

    subject = load_subject(where, device="cpu", dtype="float32")
    module, family = subject.model._module, subject.family
    first: Any = FIRST
    dispatch_model(module, halves(module, family, FIRST, SECOND), main_device=first, force_hooks=True)
    settle_spread(module, family)
    assert {str(weight.device) for weight in module.parameters()} == {FIRST, SECOND}
    return dataclasses.replace(subject, device=FIRST, spread=f"{FIRST}, {SECOND}")


def main(folders: list[str]) -> None:
    """Every kind of work but gradients: torch's engine knows but one such device."""
    from tracing import test_spread_model as work

    from ssn_probe.model.subject import load_subject

    warnings.simplefilter("ignore")
    _setup_privateuseone_for_python_backend()
    backward = ("refusal", "final")
    works: dict[str, Callable[[Any], Any]] = {name: run for name, run in work.WORKS.items() if name not in backward}
    for where in folders:
        whole = load_subject(where, device="cpu", dtype="float32")
        wanted = {name: run(whole) for name, run in works.items()}
        with Devices(), Made():
            subject = spread(where)
            for name, run in works.items():
                for one, two in zip(work.tensors(wanted[name]), work.tensors(run(subject)), strict=True):
                    torch.testing.assert_close(two, one, rtol=1e-3, atol=5e-4, equal_nan=True)
    print(f"{COUNT[0] > 0}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
