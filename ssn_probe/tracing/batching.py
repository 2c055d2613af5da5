"""Batches of prompts of like length: run, put on a shelf as each is done, and taken from there where they were before.

A batch is the unit of work that can be lost. Which prompts run together follows from the whole list, not from what is
left of it, so a run that resumes computes the very batches that it would have computed.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

from ssn_probe.model.out_of_memory import fitting, memory_errors

if TYPE_CHECKING:
    from torch import Tensor  # what is on a shelf already is read without importing torch

Advance = Callable[[int], None]
"""Called after each batch with the number of prompts that are done."""
T = TypeVar("T")


def no_progress(_done: int) -> None:
    """The Advance that reports to nobody."""


@runtime_checkable
class Part(Protocol):
    """The result of a batch: the numbers of its prompts, and tensors, as a rule with one row per prompt.

    `array` and `array_at` give what `get` and `at` do as numpy arrays, of types that numpy has, too (not bfloat16):
    whoever computes nothing reads by them, and needs no torch.
    """

    @property
    def rows(self) -> tuple[int, ...]: ...

    def names(self) -> Collection[str]: ...

    def get(self, name: str) -> "Tensor": ...

    def at(self, name: str, layer: int) -> "Tensor":
        """`get(name)[:, layer]`, without reading the rest."""
        ...

    def array(self, name: str) -> np.ndarray: ...

    def array_at(self, name: str, layer: int) -> np.ndarray: ...


@runtime_checkable
class Shelf(Protocol):
    """Where batches are kept, and found again."""

    def parts(self) -> Sequence[Part]:
        """Every part there is, by its first prompt; no prompt is in two of them."""
        ...

    def put(self, rows: Sequence[int], values: Mapping[str, "Tensor"]) -> None: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class PartInMemory:
    """A part in memory."""

    rows: tuple[int, ...]
    values: Mapping[str, "Tensor"]

    def names(self) -> Collection[str]:
        return self.values.keys()

    def get(self, name: str) -> "Tensor":
        return self.values[name]

    def at(self, name: str, layer: int) -> "Tensor":
        return self.values[name][:, layer]

    def array(self, name: str) -> np.ndarray:
        return self.values[name].numpy()

    def array_at(self, name: str, layer: int) -> np.ndarray:
        return self.values[name][:, layer].numpy()


@dataclass(frozen=True, eq=False)
class Memory:
    """A shelf that lives as long as the call that it serves."""

    stored: list[PartInMemory] = field(default_factory=list)

    def parts(self) -> Sequence[Part]:
        return sorted(self.stored, key=lambda part: min(part.rows))

    def put(self, rows: Sequence[int], values: Mapping[str, "Tensor"]) -> None:
        self.stored.append(PartInMemory(rows=tuple(rows), values=dict(values)))


TELLING, LONGEST = 5.0, 30.0
"""Seconds of a batch that tell how fast the machine is, and those that a batch is made to take at most."""


@dataclass(eq=False)
class BatchSize:
    """How many sequences run together. With `auto` it is halved where the memory runs out, and stays so.

    With `timed`, too, it shrinks to what takes half a minute, so that a run that is killed loses no more than that:
    seconds by `clock`, which leaves out those that a batch only waits while others are computed.
    """

    size: int
    auto: bool = False
    timed: bool = False
    clock: Callable[[], float] = time.monotonic

    def took(self, together: int, seconds: float) -> None:
        """Notes how long a batch took."""
        if self.auto and self.timed and seconds >= TELLING:
            self.size = max(1, min(self.size, int(together * LONGEST / seconds)))


def by_length(tokens: Sequence[Sequence[int]]) -> list[int]:
    """Row numbers, longest prompts first: little is padding, and what does not fit in memory fails at once."""
    return sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))


def covered(shelf: Shelf, prompts: int) -> bool:
    """Is there a part for every prompt, so that nothing has to run?"""
    return sum(len(part.rows) for part in shelf.parts()) == prompts


def all_done(shelf: Shelf, prompts: int, advance: Advance) -> bool:
    """`covered`, and if so, `advance` is told that they are done: whoever computes the rest else is to do it."""
    done = covered(shelf, prompts)
    if done and prompts:
        advance(prompts)
    return done


def run_batches(
    tokens: Sequence[Sequence[int]],
    batch_size: int | BatchSize,
    run: Callable[[list[int]], Mapping[str, "Tensor"]],
    shelf: Shelf,
    advance: Advance,
    *,
    sequences: int = 1,
) -> None:
    """Puts a part for every prompt on the shelf, but for those that are there.

    Args:
        batch_size: sequences that run together; a prompt takes `sequences` of them.
        run: row numbers → tensors.

    Raises:
        OutOfMemory: the memory does not hold a batch, or with an automatic size not even one prompt.
    """
    known = {row for part in shelf.parts() for row in part.rows}
    if known:
        advance(len(known))
    size = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size)
    left = by_length(tokens)
    while left:

        def attempt(together: int) -> tuple[int, list[int], Mapping[str, "Tensor"], float]:
            rows = left[: max(1, together // sequences)]  # noqa: B023 (called at once)
            new, began = [row for row in rows if row not in known], size.clock()
            return len(rows), new, run(new) if new else {}, size.clock() - began

        taken, new, values, seconds = fitted(size, attempt)
        if new:
            size.took(len(new) * sequences, seconds)
            shelf.put(new, values)
            advance(len(new))
        left = left[taken:]


def fitted(size: BatchSize, attempt: Callable[[int], T]) -> T:
    """`attempt(size)`; where the memory runs out and the size is automatic, with half of it, and so on."""

    def within_memory(together: int) -> T:
        together = size.size = min(together, size.size)  # another thread may have found that less fits
        message, hint = (
            f"The memory does not hold a batch of {together}",
            "Give a smaller --batch-size, or --batch-size auto.",
        )
        if together == 1:
            message = "The memory does not hold a single sequence"
            hint = "Use --dtype bfloat16, shorter prompts or fewer new tokens, or a device with more memory."
        with memory_errors(together, message, hint):
            return attempt(together)

    return fitting(within_memory, size.size, shrink=size.auto)


def gather(parts: Sequence[Part], name: str, into: "Tensor") -> "Tensor":
    """One tensor of all parts in the order of the prompts, filled into `into` [prompt, …]."""
    for part in parts:
        into[list(part.rows)] = part.get(name).to(into.dtype)
    return into


def gather_array(parts: Sequence[Part], name: str, into: np.ndarray) -> np.ndarray:
    """`gather` as a numpy array."""
    for part in parts:
        into[list(part.rows)] = part.array(name)
    return into
