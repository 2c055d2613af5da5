"""When the memory runs out: one error that names what to lower, or the same work with fewer rows at a time."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ssn_probe.errors import ModelError, SSNProbeError, first_line

T = TypeVar("T")

PHRASES = ("out of memory", "allocate memory", "ALLOC_FAILED")
"""How CPUs and the libraries of GPUs report it where torch has no error class for it."""


SPARE: list[Callable[[], bool]] = []
"""What gives back memory that is taken to save time alone; each says whether there was some."""


class OutOfMemory(ModelError):
    """A forward pass of `rows` rows does not fit into the memory."""

    def __init__(self, message: str, hint: str, rows: int):
        super().__init__(message, hint)
        self.rows = rows


@contextmanager
def memory_errors(rows: int, message: str, hint: str) -> Iterator[None]:
    """Turns running out of memory, with `rows` rows in a forward pass, into an OutOfMemory."""
    try:
        yield
    except Exception as error:
        if isinstance(error, SSNProbeError) or not out_of_memory(error):
            raise
        raise OutOfMemory(f"{message}: {first_line(error)}", hint, rows) from error


def fitting(work: Callable[[Any], T], rows: int | None, *, shrink: bool) -> T:
    """`work(rows)`; after an OutOfMemory, if `shrink`, `work` with half as many rows, and so on. No row is left out.

    What is `SPARE` is given back before, and the same tried again. None: as many rows as `work` chooses. Raises
    OutOfMemory where not even one row fits.
    """
    has_given_back = False
    while True:
        try:
            return work(rows)
        except OutOfMemory as error:
            if not has_given_back and give_back_spare():
                has_given_back = True
            elif not shrink or error.rows <= 1:
                raise
            else:
                rows = error.rows // 2
        # The exception is gone by now, and with it the frames that hold the activations of the failed pass.
        release_memory()


def give_back_spare() -> bool:
    """Gives back what is spare. Was there some?"""
    return any([give_back() for give_back in SPARE])


def release_memory() -> None:
    """Frees what a failed pass has left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException | None) -> bool:
    """Did the memory run out? nnsight and torch wrap the device's error, and the CPU's has no class of its own."""
    torch: Any = sys.modules.get("torch")  # where nothing has imported it, no error is of its class
    kinds = MemoryError if torch is None else (torch.OutOfMemoryError, MemoryError)
    while error is not None:
        if isinstance(error, kinds):
            return True
        if isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in PHRASES):
            return True
        error = error.__cause__ or error.__context__
    return False
