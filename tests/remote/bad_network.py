"""A server on loopback that goes wrong as a test asks it to, before a real NDIF or before one that is made up."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import torch
import zstandard
from loopback import on_loopback

from ssn_probe.remote.connection import Clock
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_errors import StoppedWaiting
from ssn_probe.remote.transport import Finished, run_job


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """An answer over HTTP. `announced`: bytes that its header promises where that is wrong."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None


Upstream = Callable[[Asked], Reply]


class DropError(Exception):
    """The connection is closed without an answer."""


class HangError(Exception):
    """There is no answer, and the connection stays open until the test is over."""


def drop(_asked: Asked, _upstream: Upstream) -> Reply:
    raise DropError


def hang(_asked: Asked, _upstream: Upstream) -> Reply:
    raise HangError


def lose(asked: Asked, upstream: Upstream) -> Reply:
    """The server did what it was asked to; its answer does not arrive."""
    upstream(asked)
    raise DropError


def cut(asked: Asked, upstream: Upstream) -> Reply:
    """The answer breaks off in the middle."""
    whole = upstream(asked)
    return Reply(whole.status, whole.body[: len(whole.body) // 2], whole.headers, announced=len(whole.body))


def says(status: int, detail: str | None = None, **headers: str) -> Callable[[Asked, Upstream], Reply]:
    """An answer as FastAPI gives it; without a detail, one of some other server."""
    body = b"<html>no</html>" if detail is None else json.dumps({"detail": detail}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _asked, _upstream: Reply(status, body, named)


@dataclass
class Network:
    """Where the server is, what goes wrong next by the start of method and path, and what it was asked."""

    url: str
    faults: dict[str, list[Callable[[Asked, Upstream], Reply]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def count(self, start: str) -> int:
        return sum(f"{one.method} {one.path}".startswith(start) for one in self.asked)


@contextmanager
def bad_network(upstream: Upstream) -> Iterator[Network]:
    """A server before `upstream`, to which everything is passed that no fault is planned for."""
    lock, over = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, {key.lower(): one for key, one in self.headers.items()}, body)
            with lock:
                network.asked.append(asked)
                planned = next(
                    (
                        faults
                        for start, faults in network.faults.items()
                        if faults and f"{asked.method} {asked.path}".startswith(start)
                    ),
                    None,
                )
                fault = planned.pop(0) if planned else None
            try:
                reply = fault(asked, upstream) if fault else upstream(asked)
            except (DropError, HangError) as error:
                self.close_connection = True
                if isinstance(error, HangError):
                    over.wait(20)
                return
            self.send_response(reply.status)
            length = len(reply.body) if reply.announced is None else reply.announced
            for name, value in ({"Content-Length": str(length)} | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)
            self.close_connection = self.close_connection or reply.announced is not None

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with on_loopback(Handler) as address:
        network = Network(address)
        try:
            yield network
        finally:
            over.set()


def passed_on(server: str) -> Upstream:
    """What a real server answers."""

    def upstream(asked: Asked) -> Reply:
        kept = {name: value for name, value in asked.headers.items() if name not in ("host", "connection")}
        answer = httpx.request(asked.method, server + asked.path, content=asked.body, headers=kept, timeout=60)
        return Reply(answer.status_code, answer.content, {"Content-Type": answer.headers.get("content-type", "")})

    return upstream


def packed(values: Any) -> bytes:
    """A result as a host stores it."""
    file = io.BytesIO()
    torch.save(values, file)
    return zstandard.ZstdCompressor(level=3).compress(file.getvalue())


KEY = "01234567-89ab-cdef-0123-456789abcdef"
QUEUED = {"status": "QUEUED", "description": "Added to Queue at position 3."}
RUNNING = {"status": "RUNNING", "description": "Your job has started running."}
VALUES = {"results": [torch.arange(3.0), {"n": 2}]}


@dataclass
class MadeUp:
    """What speaks as an NDIF does and computes nothing. `says`: what it answers about a job, the last for ever."""

    says: list[dict[str, Any] | None] = field(default_factory=lambda: [None, QUEUED, RUNNING, {"status": "COMPLETED"}])
    result: bytes = field(default_factory=lambda: packed(VALUES))
    store: str | None = None
    looks: dict[str, int] = field(default_factory=dict)
    sent: int = 0

    def __call__(self, asked: Asked) -> Reply:
        if asked.method == "POST" and asked.path == "/request":
            self.sent += 1
            job = f"job{self.sent}"
            self.looks[job] = 0
            return self._said({"id": job, "status": "RECEIVED", "description": "Your job has been received."})
        job = asked.path.rpartition("/")[2].partition("?")[0]
        if asked.path.startswith("/store/"):
            return Reply(200, self.result)
        if job not in self.looks:
            return says(404, f"No response for request {job}.")(asked, self)
        said = self.says[min(self.looks[job], len(self.says) - 1)]
        self.looks[job] += 1
        if said is None:
            return says(404, f"No response for request {job}.")(asked, self)
        url = f"{self.store or 'http://' + asked.headers['host']}/store/{job}?X-Amz-Signature=5e{self.looks[job]}"
        return self._said(
            {"id": job, "description": ""} | ({"data": url} if said["status"] == "COMPLETED" else {}) | said
        )

    def _said(self, said: dict[str, Any]) -> Reply:
        return Reply(200, json.dumps(said).encode(), {"Content-Type": "application/json"})


class FastClock(Clock):
    """Waiting takes no time. `during`: what happens in the n-th wait, from 1."""

    def __init__(self, during: dict[int, Callable[[], object]] | None = None) -> None:
        super().__init__()
        self.at, self.waits, self.during = 1000.0, [], during or {}

    def now(self) -> float:
        return self.at

    def wait(self, seconds: float) -> None:
        if self.left.is_set():
            raise StoppedWaiting(None)
        self.waits.append(seconds)
        self.at += seconds
        self.during.get(len(self.waits), lambda: None)()


def run(network: Network, clock: FastClock | None = None, **given: Any) -> Finished:
    return run_job(Host(network.url, KEY), "a model", b"a block", clock=clock or FastClock(), **given)


def same(values: Any) -> bool:
    """Is it what the job gives?"""
    first, second = values["results"]
    return set(values) == {"results"} and torch.equal(first, VALUES["results"][0]) and second == {"n": 2}
