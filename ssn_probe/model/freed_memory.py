"""Freed memory that the C library keeps for the next tensor, rather than give it back and ask for it again.

A pass of a small model makes and frees some megabytes a hundred times. glibc gives such memory back to the system at
once, which clears every page of it before the next use: a tenth of a pass. Once a large block has been freed glibc
keeps up to twice as much (mallopt(3), M_MMAP_THRESHOLD), as it comes to do by itself where larger tensors are freed.
"""

import numpy as np

LARGEST = 2**25 - 2**16
"""Bytes: no larger block teaches glibc anything (DEFAULT_MMAP_THRESHOLD_MAX)."""


def keep_freed_memory() -> None:
    """Frees a block of memory that was never touched, and so costs nothing; without glibc that is all that happens.

    Settings of one's own (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`) stay as they are.
    """
    np.empty(LARGEST, np.uint8)
