"""Measurements that need a process of their own: peak memory has no meaning where something else ran before."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MIB = 2**20

PROMPT_FREEING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Makes the C library give freed memory back at once: else the resident set is what was used some time ago."""


def run_apart(module: str, arguments: list[str], *, threads: int, freeing: bool = True) -> Any:
    """Run `python -m module arguments` and read the JSON of its last line.

    Without `freeing`, freed memory may be kept to be used again: quicker where arrays come and go, and counted as held.
    """
    count = str(threads)
    settings = {"OMP_NUM_THREADS": count, "POLARS_MAX_THREADS": count} | (PROMPT_FREEING if freeing else {})
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def resettable() -> bool:
    """Whether this system can tell the peak of a part of a process: Linux can."""
    return Path("/proc/self/clear_refs").exists()


def forget_peak() -> int:
    """Reset the peak of this process, and return its memory now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _status("VmRSS")


def peak() -> int:
    """The most memory that this process has held since `forget_peak`, in bytes."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}.")
