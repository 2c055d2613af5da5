"""How many threads this process computes with: fewer while others share its cores."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ssn_probe.model.usable_machine import usable_cores

T = TypeVar("T")
MOST = 8
"""Threads at most that numpy's work is divided among: each has arrays of its own."""


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """Inside, torch and numpy compute with so many threads at most.

    numpy's products take all cores unless they are told otherwise, and their threads wait for each other: where another
    process keeps a core busy, a small product takes several times as long with two threads as with one.
    """
    import torch

    before = torch.get_num_threads()
    with _products_by(threads):
        torch.set_num_threads(min(before, threads))
        try:
            yield
        finally:
            torch.set_num_threads(before)


def on_cores(work: Callable[[T], None], jobs: Sequence[T]) -> None:
    """Does `work` on every job, several at a time in threads: as many as OMP_NUM_THREADS says, else one per core.

    For numpy's work on large arrays, during which other threads run. Products have one thread each then: threads of a
    product wait for each other, these for none.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(MOST, len(jobs), int(said) if said.isdigit() and int(said) else usable_cores())
    if threads <= 1:
        for job in jobs:
            work(job)
        return
    with _products_by(1), ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, jobs):  # raises what a job has raised
            pass


@contextmanager
def _products_by(threads: int) -> Iterator[None]:
    """Inside, numpy's products have so many threads at most."""
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController().select(internal_api="openblas")
    with blas.limit(limits=min([threads, *(one["num_threads"] for one in blas.info())])):
        yield
