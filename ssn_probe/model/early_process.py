"""A worker's process that starts before the model is opened, where a run is sure to be worth one.

It imports what a worker needs while the first process does the same, and waits for what to load, see `workers`. A run
that is less sure starts its workers once it has seen how long its first calls take.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssn_probe.model.asking import Asking
from ssn_probe.model.known import is_known
from ssn_probe.model.loading import files_here, locate, usable_device
from ssn_probe.model.usable_machine import usable_cores
from ssn_probe.model.worker_places import SMALL
from ssn_probe.model.workers import end, worker_process

SURE = 100_000
"""Responses that take a core longer than `workers.WORTH`: the organism takes 28 seconds, and larger models more."""


@contextmanager
def early_process(
    name: str, *, responses: int, processes: int | None, cache: Path, dtype: str, device: str, asking: Asking
) -> Iterator[subprocess.Popen[bytes] | None]:
    """The process of a worker of the model, or None; it ends with the context at the latest.

    Args:
        responses: how many a run generates at least.
        processes, dtype, device, asking: as a run has them.
        cache: a model whose facts are kept there is not opened at once, and perhaps never.
    """
    wanted = responses >= SURE and (processes or usable_cores()) > 1 and device in ("auto", "cpu")
    folder = Path(locate(name)) if wanted else None
    small = folder is not None and 0 < sum(file.stat().st_size for file in files_here(str(folder))) <= SMALL
    if not small or usable_device(device) != "cpu" or is_known(name, cache=cache, dtype=dtype, asking=asking):
        yield None
        return
    process = worker_process()
    try:
        yield process
    finally:
        end(process)
