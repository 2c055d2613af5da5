"""Memory that is freed and taken again is not given back to the system in between."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from ssn_probe.model.freed_memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def use():
    [np.ones(2**20) for _ in range(3)]

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that the system had to give to a process which takes 24 MiB, and frees them, twenty times."""
    untuned = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    command = [sys.executable, "-c", PROGRAM, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=untuned).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_what_is_freed_is_used_again() -> None:
    assert faults("keep") < faults("leave") / 4
