"""HTTP to a host: every exchange has a deadline and a limit of bytes, and is tried again where that may help."""

import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random

from ssn_probe.errors import RemoteError
from ssn_probe.limits import MB
from ssn_probe.remote.host import LOOPBACK, Host
from ssn_probe.remote.host_errors import Passing, StoppedWaiting, network_error, refusal
from ssn_probe.text import size

T = TypeVar("T")
ANSWER = 10 * MB
"""Bytes of what a host says of a job."""
CONNECT, READ, WRITE = 10.0, 75.0, 60.0
"""Seconds for a connection, and for each part of an answer or a request to pass. An NDIF gives itself 60 to answer."""
ACCEPT = 300.0
"""Seconds for a host to accept a job that it was sent whole."""
EXCHANGE = 120.0
"""Seconds for the whole of a short answer."""
OUTAGE, BUSY = 600.0, 86400.0
"""Seconds until a host is given up that is away or has a problem of its own, and one that is asked too much."""
BACKOFF = wait_exponential(multiplier=0.5, max=30) + wait_random(0, 2)
"""Seconds before the next try: doubled with each, some of it at random."""


class Clock:
    """Time as those who wait see it; `left` is set when nobody waits any more."""

    def __init__(self) -> None:
        self.left = threading.Event()

    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Raises StoppedWaiting as soon as nobody waits any more."""
        if self.left.wait(seconds):
            raise StoppedWaiting(None)


@cache
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def open_client() -> httpx.Client:
    """It follows no redirect, so that nothing goes where nobody sent it; to this machine it goes past every proxy."""
    direct = {f"all://{f'[{name}]' if ':' in name else name}": None for name in LOOPBACK}
    try:
        return httpx.Client(
            verify=_certificates(),
            timeout=timeouts(READ),
            follow_redirects=False,
            mounts=direct,
            headers={"Accept-Encoding": "identity"},  # what is small when packed could be of any size
        )
    except (ImportError, ValueError, OSError):  # their texts may hold the password of a proxy
        raise RemoteError(
            "The proxy or the certificates that the environment names cannot be used.",
            "Look at HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR; for a proxy of the kind SOCKS, "
            "pip install 'httpx[socks]'.",
        ) from None


def timeouts(read: float) -> httpx.Timeout:
    return httpx.Timeout(CONNECT, read=read, write=WRITE)


@dataclass(eq=False)
class Connection:
    """A host, through a client that somebody else closes. `retrying` is told why something is tried again."""

    host: Host
    client: httpx.Client
    clock: Clock = field(default_factory=Clock)
    retrying: Callable[[str], None] = lambda _why: None
    answered: bool = False

    def json(self, method: str, path: str, *, absent: bool = False, **request: Any) -> Any:
        """The JSON that the host answers with; None for 404 where that is `absent`.

        Raises:
            RemoteError: it refuses, is no NDIF, or stays away for longer than an outage takes.
        """
        return self.persistently(lambda: self.once(method, path, absent=absent, **request))

    def persistently(self, attempt: Callable[[], T]) -> T:
        """What `attempt` gives, which is tried again as long as it raises Passing, until an outage is too long."""
        first = began = self.clock.now()

        def is_too_long(state: RetryCallState) -> bool:
            nonlocal began
            failure = state.outcome.exception() if state.outcome else None
            if isinstance(failure, Passing) and failure.busy:
                began = self.clock.now()
            return self.clock.now() - began >= OUTAGE or self.clock.now() - first >= BUSY

        def tell(state: RetryCallState) -> None:
            if state.outcome:
                self.retrying(str(state.outcome.exception()))

        try:
            return Retrying(
                retry=retry_if_exception_type(Passing),
                wait=backoff,
                stop=is_too_long,
                sleep=self.clock.wait,
                before_sleep=tell,
                reraise=True,
            )(attempt)
        except Passing as failure:
            raise failure.error from None

    def fetch(
        self, method: str, url: str, *, limit: int, seconds: float, **request: Any
    ) -> tuple[httpx.Response, bytes]:
        """An answer and its body, which may take so many seconds once it has begun.

        Raises:
            Passing, RemoteError: that does not succeed.
        """
        try:
            with self.client.stream(method, url, **request) as response:
                deadline, body = self.clock.now() + seconds, bytearray()
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > limit:
                        raise RemoteError(
                            f"{self.host.url} answers with more than {size(limit)}, the limit for such an answer.",
                            "Take a smaller batch, and check that this is the address of an NDIF.",
                        )
                    if len(body) > MB and self.clock.left.is_set():  # a short answer may name a job that was sent
                        raise StoppedWaiting(None)
                    if self.clock.now() > deadline:
                        raise httpx.ReadTimeout("the answer does not end")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise network_error(error, self.host, answered=self.answered) from None
        return response, bytes(body)

    def once(self, method: str, path: str, *, absent: bool = False, **request: Any) -> Any:
        """Like `json`, but tried only once: raises Passing, too."""
        key = {"ndif-api-key": self.host.key} if self.host.key else {}
        headers = request.get("headers", {}) | key
        response, body = self.fetch(
            method, self.host.url + path, limit=ANSWER, seconds=EXCHANGE, **(request | {"headers": headers})
        )
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if said is not None:
            self.answered = True
            if response.is_success:
                return said
            if response.status_code == 404 and absent:
                return None
        error = self._no_success(response, said)
        # Where an NDIF has answered before, a page in its place is that of a proxy or a login, which goes away again.
        raise Passing(error) if said is None and self.answered and isinstance(error, RemoteError) else error

    def _no_success(self, response: httpx.Response, said: Any) -> RemoteError | Passing:
        if response.is_success:
            return RemoteError(
                f"What {self.host.url} answers is no answer of an NDIF.",
                "Check the address of the host, and whether the network asks for a login first.",
            )
        detail = said.get("detail") if isinstance(said, dict) else None
        where = response.headers.get("location") if response.is_redirect else detail
        after = response.headers.get("retry-after")
        return refusal(self.host, response.status_code, None if where is None else str(where), after)


def backoff(state: RetryCallState) -> float:
    """Seconds before the next try, and more if the host asks for more."""
    failure = state.outcome.exception() if state.outcome else None
    return BACKOFF(state) + (failure.after if isinstance(failure, Passing) else 0.0)
