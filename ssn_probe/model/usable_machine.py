"""What this process may use of the machine, within the limits of its container."""

import os
from pathlib import Path


def usable_cores() -> int:
    """The number of cores that this process may use, given its affinity and the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _control_group("cpu.max").partition(" ")
    return max(1, min(allowed, int(quota) // int(period))) if quota.isdigit() else allowed


def memory() -> tuple[int, int]:
    """Total and free bytes, within the limit of the container."""
    import psutil

    seen = psutil.virtual_memory()
    limit, used = _control_group("memory.max"), _control_group("memory.current")
    if not (limit.isdigit() and used.isdigit()):
        return seen.total, seen.available
    return min(seen.total, int(limit)), min(seen.available, max(0, int(limit) - int(used)))


def _control_group(name: str) -> str:
    """A setting of the container's control group; empty if there is none."""
    file = Path("/sys/fs/cgroup") / name
    return file.read_text(encoding="ascii").strip() if file.is_file() else ""
