"""An NDIF on loopback for tests: a script of tests/ndif as a process that ends with them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

SERVER = Path(__file__).parent / "ndif" / "light_server.py"
LOOPBACK = ("127.0.0.1", "::ffff:127.0.0.1")


class LightNDIF:
    """A server and what it hosts. `host` is its address, `folders` the model folders, `dtypes` their precision."""

    def __init__(self, script: Path = SERVER, *arguments: str) -> None:
        self.folders: list[str] = []
        home = Path(tempfile.mkdtemp(prefix="ndif-"))
        self.home, self.log_file = home, home.with_suffix(".log")  # the server removes its home
        with self.log_file.open("wb") as log:
            # A session of its own: Ctrl-C ends the tests, which end the server.
            self.process = subprocess.Popen(
                [sys.executable, str(script), str(home), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            self.host: str = self._answer()["url"]
        except BaseException:
            self.close()
            raise

    def add(self, name: str, dtype: str = "float32") -> str:
        """Hosts one more model, or the same one in another precision, and returns its folder."""
        from ssn_probe.model.loading import locate

        folder = locate(name)
        self._order(host=folder, dtype=dtype)
        if folder not in self.folders:
            self.folders.append(folder)
        return folder

    @contextmanager
    def untrusted(self, outline: bool = True) -> Iterator[None]:
        """Every request, whoever sends it, runs in the sandbox, with or without an outline of the model there."""
        self._order(trusts=False, outline=outline)
        try:
            yield
        finally:
            self._order(trusts=True, outline=True)

    @contextmanager
    def timeout(self, seconds: float) -> Iterator[None]:
        """Jobs that take longer are ended."""
        self._order(timeout=seconds)
        try:
            yield
        finally:
            self._order(timeout=None)

    def log(self) -> str:
        """What the server and its sandboxes wrote."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def family(self) -> list[psutil.Process]:
        """The server and every process that it started."""
        try:
            server = psutil.Process(self.process.pid)
            return [server, *server.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def close(self) -> None:
        """Ends the server and waits for all that it started. Fails if something listened where others reach it."""
        family, elsewhere = self.family(), listening_elsewhere(self.family())
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()  # what it waits for
        _, alive = psutil.wait_procs(family, timeout=60)
        for one in alive:
            one.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.home, ignore_errors=True)
        self.log_file.unlink()
        assert not alive, f"these outlived the server: {alive}"
        assert not elsewhere, f"these listened beyond loopback: {elsewhere}"

    def _order(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The NDIF server ended:\n{self.log()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"The NDIF server: {answer['error']}")
        return answer


def listening_elsewhere(processes: list[psutil.Process]) -> list[str]:
    """Sockets of these processes that other machines could reach."""
    found = []
    for process in processes:
        try:
            sockets = process.net_connections("inet")
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        found += [
            f"{process.name()}: {one.laddr}"
            for one in sockets
            if one.status == psutil.CONN_LISTEN and one.laddr.ip not in LOOPBACK
        ]
    return found


@pytest.fixture(scope="session")
def ndif() -> Iterator[LightNDIF]:
    """A real NDIF server that hosts the organism in single precision. Tests leave it as they found it."""
    if find_spec("ndif") is None:
        pytest.fail("The NDIF server is not installed: `make .venv/.servers`.")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    server = LightNDIF()
    try:
        server.add("organism")
        yield server
    finally:
        server.close()
