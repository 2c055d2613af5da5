"""How many threads this process computes with, while others share its cores."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """Inside, torch and numpy compute with so many threads at most.

    numpy's products take all cores unless they are told otherwise, and their threads wait for each other: where another
    process keeps a core busy, a small product takes several times as long with two threads as with one.
    """
    import torch
    from threadpoolctl import ThreadpoolController

    before = torch.get_num_threads()
    blas = ThreadpoolController().select(internal_api="openblas")
    fewer = min([threads, *(one["num_threads"] for one in blas.info())])
    with blas.limit(limits=fewer):
        torch.set_num_threads(min(before, threads))
        try:
            yield
        finally:
            torch.set_num_threads(before)
