"""What can go wrong with a host, told apart: what may be tried again, and else one error that names the fix.

An NDIF tells its failures apart by HTTP statuses and the words of a sentence. Those words are matched here and nowhere
else; they are those of ndif 0.1.2. What comes from a host is scrubbed before it is shown: a host repeats the key that
it refuses, and addresses of results hold a signature.
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from ssn_probe.errors import RemoteError
from ssn_probe.remote.host import KEY, Host
from ssn_probe.text import plain

LINES = 12
"""How much of a traceback is shown."""
AGAIN = "What was measured is kept: run the same command again to go on."
PASSING = (
    "please try again",
    "replica was evicted",
    "re-sending it usually resolves this",
    "runner process exited",
    "timed out waiting for the runner",
)
"""What a host says of failures that are its own and pass: the job is sent again."""
DIED = "connection closed before message complete"
"""What a host says when the process of its sandbox is gone in the middle of a job."""
MEMORY = ("out of memory", "outofmemoryerror", "allocate memory", "alloc_failed", "memoryerror")


class JobTooLargeError(RemoteError):
    """A job that asks too much of the host: a smaller one may succeed."""


class HostMemoryError(JobTooLargeError):
    """A job that the host's memory does not suffice for."""


class HostTimeoutError(JobTooLargeError):
    """A job that ran longer than the host allows."""


class KeyRefusedError(RemoteError):
    """A host asks for a key, or for another one."""


class JobFailedError(RemoteError):
    """A job with an error in what it ran: the host goes on, and other jobs may succeed."""


class StoppedWaiting(Exception):
    """Nobody waits for a job any more, since `stop` was set; the host has it still if `job` is its id."""

    def __init__(self, job: str | None):
        super().__init__(job)
        self.job = job


class Passing(Exception):
    """A failure that may pass. `error`: what to raise if it does not; `after`: seconds that the host asks to wait.

    `busy`: the host answers, and has too much to do: waiting helps however long it takes.
    """

    def __init__(self, error: RemoteError, *, after: float = 0, busy: bool = False):
        super().__init__(error.message)
        self.error, self.after, self.busy = error, after, busy


def scrubbed(text: str, host: Host) -> str:
    """What a host says, without its key and without what signs an address, on one line."""
    for secret in {host.key, host.key.replace("-", "")} if host.key else ():
        text = re.sub(re.escape(secret), "[key]", text, flags=re.IGNORECASE)
    return plain(re.sub(r"(https?://[^\s?#\"'<>]*)[?#][^\s\"'<>]*", r"\1?[…]", text))


def speaks_of_memory(said: str) -> bool:
    """Does an error say that a host's memory did not suffice?"""
    return any(one in said.lower() for one in MEMORY)


def network_error(error: Exception, host: Host, *, answered: bool) -> RemoteError | Passing:
    """What an exception of httpx means. `answered`: it has answered before, so name and certificate are right.

    Not with `raise … from`: the library's exception holds the request, and so the key.
    """
    causes = list(_causes(error))
    reason = scrubbed(str(causes[-1]) or type(causes[-1]).__name__, host)
    unknown = next((one for one in causes if isinstance(one, socket.gaierror)), None)
    if unknown and unknown.errno != socket.EAI_AGAIN and not answered:
        return RemoteError(f"No host has the name in {host.url}: {reason}", "Check the address and the network.")
    secure = next((one for one in causes if isinstance(one, ssl.SSLError)), None)
    if secure and not answered and not isinstance(secure, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return RemoteError(
            f"The connection to {host.url} cannot be secured: {reason}",
            "Check the clock of this machine and the address; SSL_CERT_FILE names the certificates of an authority of "
            "your own. ssn-probe never goes on without.",
        )
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return RemoteError(f"{host.url} cannot be asked: {type(error).__name__}", "Check the address of the host.")
    if isinstance(error, httpx.TimeoutException):
        said = f"{host.url} does not answer in time."
    elif isinstance(error, httpx.ConnectError):
        said = f"{host.url} cannot be reached: {reason}"
    else:
        said = f"The connection to {host.url} broke: {reason}"
    return Passing(RemoteError(said, f"Check the network, and whether the host runs. {AGAIN}"))


def refusal(host: Host, status: int, detail: str | None, retry_after: str | None = None) -> RemoteError | Passing:
    """What an HTTP status that is no success means. `detail`: what an NDIF says, None if the answer is none of its."""
    said = _shortened(scrubbed(detail, host)) if detail else ""
    told = f"{host.url} answers {status}{f': {said}' if said else '.'}"
    if status == 429:
        after = _seconds(retry_after)
        return Passing(RemoteError(told, f"It limits how much one key may ask. {AGAIN}"), after=after, busy=True)
    if status in (408, 425) or (status >= 500 and status != 501):
        return Passing(
            RemoteError(told, f"The host has a problem of its own; wait. {AGAIN}"), after=_seconds(retry_after)
        )
    if status == 400 and (found := re.search(r"(nnsight|python) version", detail or "", re.IGNORECASE)):
        return RemoteError(told, _version_hint(found[1].lower(), said))
    if status in (400, 401, 403) and detail and "key" in detail.lower():
        return _key_refused(host, status)
    if status == 413:
        return JobTooLargeError(f"{host.url} does not take a job of this size (413).", "Take a smaller batch.")
    if status == 422:
        return RemoteError(told, "It does not understand the job: compare versions with `ssn-probe doctor --remote`.")
    if 300 <= status < 400:
        return RemoteError(told, "Give --host the address that it redirects to.")
    return RemoteError(told, "Is this the address of an NDIF? `ssn-probe doctor --remote` looks.")


def job_error(host: Host, job: str, said: str, meta: Mapping[str, Any] | None = None) -> RemoteError | Passing:
    """What it means that a job failed, by what the host says: a sentence of its own, or the block's traceback."""
    # In a traceback, what is indented is code, which may well speak of memory.
    words = "\n".join(line for line in said.lower().splitlines() if not line.startswith(" "))
    if "exceeded the execution timeout" in words:
        return HostTimeoutError(scrubbed(said, host), "Take a smaller batch: each job then runs for less time.")
    if "alloc_shortfall_by_gpu" in (meta or {}) or speaks_of_memory(words):
        return HostMemoryError(f"The host's memory does not suffice for job {job}.", "Take a smaller batch.")
    if DIED in words:
        return HostMemoryError(
            f"The process that ran job {job} on the host died: most often its memory did not suffice.",
            "Take a smaller batch.",
        )
    if "could not deploy" in words:
        return RemoteError(scrubbed(said, host), "`ssn-probe models --remote` lists what the host runs.")
    if "architecture on this server" in words:
        path = re.search(r"no module at '([^']*)'", said)
        return RemoteError(
            f"The model on {host.url} is built otherwise than here{f': it has no {path[1]}' if path else ''}.",
            "Its transformers is of another version: `ssn-probe doctor --remote` compares, and names what to install.",
        )
    if any(one in words for one in PASSING):
        return Passing(RemoteError(f"Job {job} failed: {_shortened(scrubbed(said, host))}", AGAIN))
    if "Traceback (most recent call last)" not in said:
        return RemoteError(f"Job {job} failed: {_shortened(scrubbed(said, host))}", AGAIN)
    lines = [scrubbed(line, host).rstrip() for line in said.strip().splitlines()]
    shown = lines if len(lines) <= LINES else [lines[0], "  …", *lines[2 - LINES :]]
    return JobFailedError(
        f"Job {job} failed on the host: {_shortened(lines[-1])}",
        "\n".join([*map(_shortened, shown), "`ssn-probe doctor --remote` compares the versions there and here."]),
    )


def _key_refused(host: Host, status: int) -> KeyRefusedError:
    """Without a word of what the host says: some repeat the key."""
    where = f"Set it with `export {KEY}=…`, or once and for all with nnsight.CONFIG.set_default_api_key"
    source = "https://login.ndif.us gives keys for the public NDIF; a lab's own has an administrator."
    if host.key is None:
        return KeyRefusedError(f"{host.url} asks for a key, and none is set ({status}).", f"{where}. {source}")
    what = {400: "is malformed, says", 401: "is not accepted, says", 403: "is unknown, says"}[status]
    return KeyRefusedError(f"The key {what} {host.url} ({status}).", f"{where}, the whole of it. {source}")


def _version_hint(what: str, said: str) -> str:
    least = re.search(r"minimum supported ([\w.]*\w)", said)
    if what == "python":
        return f"Run ssn-probe with Python {least[1] if least else 'of a newer version'} or later."
    wanted = f"nnsight>={least[1]}" if least else "nnsight"
    return f"Install what the host asks for: pip install --upgrade '{wanted}' ssn-probe"


def _seconds(retry_after: str | None) -> float:
    """The header Retry-After, in seconds; as a date it is left alone, since the clocks of two machines differ."""
    return min(float(retry_after), 3600.0) if retry_after and re.fullmatch(r"\d{1,9}", retry_after.strip()) else 0.0


def _shortened(text: str, longest: int = 400) -> str:
    return text if len(text) <= longest else f"{text[: longest - 2]} …"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
