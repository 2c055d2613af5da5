"""Which models get several processes of this machine, how many, and on which devices."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ssn_probe.model.asking import NO_WISH, Asking
from ssn_probe.model.families import BUILT_IN
from ssn_probe.model.trial import passed_trials
from ssn_probe.model.usable_machine import memory, usable_cores
from ssn_probe.model.workers import Loading, Workers

if TYPE_CHECKING:
    from ssn_probe.model.subject import Subject

SMALL = 10**9
"""Bytes of weights up to which a model gets several processes on a CPU: matrix products of a larger one share the
cores well by themselves."""
MOST = 8
"""Processes at most, unless a number is asked for: what the first one does alone keeps no more of them busy."""
ROOM, ROOM_ON_GPU = 15 * 10**8, 4 * 10**9
"""Bytes that a process takes beside twice its weights on a CPU; and beside one and a half times on a GPU."""


@contextmanager
def sharing(
    subject: "Subject",
    processes: int | None,
    *,
    expected: float,
    asking: Asking = NO_WISH,
    warn: Callable[[str], None] = lambda _message: None,
    early: subprocess.Popen[bytes] | None = None,
) -> Iterator["Subject"]:
    """The model in so many processes while it lasts; each gets its part of the cores, this one, too, once they start.

    `processes` None: one per usable core for a small model on the CPU, one per GPU that holds the model and is of the
    same kind, since another one rounds otherwise, and not before `expected` sequences seem worth it, unless an `early`
    process waits already. A model on a host, in parts, or of a user's family, has one.
    """
    places = _places(subject, processes)
    if not places:
        yield subject
        return
    threads = max(1, usable_cores() // (len(places) + 1)) if subject.device == "cpu" else usable_cores()
    dtype = str(subject.identity["dtype"]).removeprefix("torch.")
    loading = {"name": subject.name, "dtype": dtype, "asking": asking, "threads": threads}
    loadings = [Loading(device=place, tried=passed_trials(), **loading) for place in places]
    at_once = processes is not None or early is not None
    workers = Workers(loadings, subject.identity, None if at_once else expected, warn, early)
    try:
        yield replace(subject, workers=workers)
    finally:
        workers.close()
        workers.take_cores_back()


def _places(subject: "Subject", processes: int | None) -> list[str]:
    """The devices of the workers; none where this process computes alone."""
    if subject.calls is not None or subject.shards is not None or subject.spread or not subject.can_run:
        return []
    if subject.family not in BUILT_IN:  # which this process alone knows
        return []
    weights = subject.weight_bytes
    if subject.device == "cpu":
        fit = int(memory()[1] // (2 * weights + ROOM))
        wished = min(usable_cores(), MOST if weights <= SMALL else 1, fit + 1) if processes is None else processes
        return ["cpu"] * (wished - 1)
    if not subject.device.startswith("cuda"):
        return []
    import torch

    own = torch.device(subject.device).index or 0
    kind = torch.cuda.get_device_name
    others = [one for one in range(torch.cuda.device_count()) if one != own and kind(one) == kind(own)]
    free = [one for one in others if torch.cuda.mem_get_info(one)[0] >= 1.5 * weights + ROOM_ON_GPU]
    return [f"cuda:{number}" for number in free[: None if processes is None else processes - 1]]
