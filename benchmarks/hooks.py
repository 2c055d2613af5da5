"""Plain torch hooks at the neurons of a site: what peers are written with, and what the probe is timed against."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from ssn_probe.model.families import Family
from ssn_probe.neurons import Site

Place = tuple[int, Site]
"""Layer and site."""
At = Callable[[Tensor], Tensor | None]
"""The activation of a place [prompt, token, neuron] → what the model goes on with; None: with the same tensor."""


def module_at(module: Any, family: Family, place: Place) -> tuple[Any, str]:
    """The submodule whose input or output a site is, and which of the two: "input" or "output"."""
    layer, site = place
    path, side = family.modules[site]
    return module.get_submodule(f"{family.layers}.{layer}.{path}"), side


@contextmanager
def hooked(module: Any, family: Family, changes: Mapping[Place, At]) -> Iterator[None]:
    """Inside, each of these is called with the activation of its place whenever the module runs."""
    handles = []
    for place, change in changes.items():
        part, side = module_at(module, family, place)
        if side == "input":
            handles.append(part.register_forward_pre_hook(partial(_before, change)))
        else:
            handles.append(part.register_forward_hook(partial(_after, change)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(change: At, _module: Any, given: tuple[Tensor, ...]) -> Tensor | None:
    return change(given[0])


def _after(change: At, _module: Any, _given: Any, made: Tensor) -> Tensor | None:
    return change(made)
