"""The environment that computed the numbers of a run: packages, Python, platform, git commit, time."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssn_probe.model.kept import installed

PACKAGES = ("ssn-probe", "torch", "transformers", "nnsight", "polars", "numpy", "scipy", "safetensors", "tokenizers")


def versions() -> dict[str, str]:
    """The installed version of every package that can change a number."""
    return installed(PACKAGES)


def environment() -> dict[str, Any]:
    """Packages, Python, platform, and the git commit of the working folder, for the manifest."""
    return {
        "packages": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git(),
        "command": Path(sys.argv[0]).name,
    }


def _git() -> dict[str, Any] | None:
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, timeout=5, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.decode("ascii").strip(), "dirty": bool(status.stdout.strip())}


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
