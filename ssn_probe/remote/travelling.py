"""Source that travels to a host: as it was when it was loaded, and named without the folders of this machine."""

import importlib
import inspect
import linecache
import pkgutil
from collections.abc import Callable
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import nnsight


@cache
def travelling(name: str) -> str:
    """Has nnsight send the functions of a module, or of all modules of a package, and returns their source.

    nnsight reads source when it sends, from the file that a function's code names: after an upgrade in the middle of
    a run that would be other functions' lines. And the name travels along, with the user's own in it.
    """
    nnsight.register(name)
    module = importlib.import_module(name)
    source, shown = inspect.getsource(module), f"{name.replace('.', '/')}.py"
    # without a time of its own, an entry is never compared with a file
    linecache.cache[shown] = (len(source), None, source.splitlines(keepends=True), shown)
    for function in vars(module).values():
        if isinstance(function, FunctionType) and function.__module__ == name:
            function.__code__ = _named(function.__code__, shown)
    inside = pkgutil.iter_modules(getattr(module, "__path__", ()))
    return "".join([source, *(travelling(f"{name}.{one.name}") for one in inside)])


def source_of(body: Callable[..., Any]) -> str:
    """The source of a body, with what is beside it in its file where it has one; a notebook's cells are none."""
    try:
        return inspect.getsource(inspect.getmodule(body) or body)
    except (OSError, TypeError):
        return inspect.getsource(body)


def _named(code: CodeType, file: str) -> CodeType:
    inner = tuple(_named(one, file) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.replace(co_filename=file, co_consts=inner)
