"""Starts a command as `torchrun --nproc-per-node N` would, but for one thing: nothing listens beyond this machine.

The store through which torchrun's processes find each other listens on every interface; here it gets a socket on
loopback. As torchrun does, it ends all processes when one of them fails.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

SECONDS = 300
"""After which the processes are taken to hang."""


def run_ranks(arguments: Sequence[str], folder: Path, *, ranks: int = 2, **environment: str) -> list[tuple[int, str]]:
    """Runs `python ARGUMENTS` in every process: the exit code and the output of each.

    Raises:
        TimeoutError: some of them still ran after SECONDS.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    store = TCPStore("127.0.0.1", port, is_master=True, master_listen_fd=listening.detach(), wait_for_workers=False)
    shared = (
        os.environ
        | environment
        | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "WORLD_SIZE": str(ranks),
        }
    )
    outputs = [folder / f"rank_{rank}.txt" for rank in range(ranks)]
    processes = []
    try:
        for rank, output in enumerate(outputs):
            with output.open("w") as file:
                own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                command = [sys.executable, *arguments]
                processes.append(subprocess.Popen(command, env=own, stdout=file, stderr=subprocess.STDOUT))
        _wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        del store
    codes = [process.returncode for process in processes]
    return [(code, output.read_text(encoding="utf-8")) for code, output in zip(codes, outputs, strict=True)]


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all have ended well, or one has failed and the others were ended."""
    until = time.monotonic() + SECONDS
    while None in (codes := [process.poll() for process in processes]):
        if any(codes):
            for process in processes:
                process.terminate()
            return
        if time.monotonic() > until:
            raise TimeoutError(f"Processes still run: {codes}")
        time.sleep(0.1)
