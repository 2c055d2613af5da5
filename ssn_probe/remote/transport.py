"""One job on a host: sent, watched until it ends, its result read, whatever the network and the host do meanwhile.

A job is sent over HTTP and then looked at until it has ended; nnsight's own waiting knows no deadline. Whoever waits
can be called away at any moment, since the exchanges happen in a thread of their own. Imported where a model is loaded,
since nnsight is.
"""

import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NoReturn

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from ssn_probe.errors import RemoteError
from ssn_probe.remote.connection import ACCEPT, Clock, Connection, open_client, timeouts
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_errors import AGAIN, Passing, StoppedWaiting, job_error, scrubbed
from ssn_probe.remote.journal import Journal
from ssn_probe.remote.result_files import ZSTANDARD, ExpiredError, UnreadableError, fetch_result, read_result
from ssn_probe.text import duration

SENDS = 4
"""How often one job is sent, if the host forgets it or fails for a reason of its own that passes."""
RESENDING = wait_exponential(multiplier=2, exp_base=6, max=120) + wait_random(0, 2)
POLLS = (0.02, 10.0)
"""Seconds between two looks at a job, at least and at most; between these, a tenth of the time it has taken."""
UNHEARD, FORGOTTEN = 300.0, 30.0
"""Seconds for which a host may not know a job that it has just accepted, and one that it knew before."""
QUEUEING = 86400.0
"""Seconds that a job may wait for its turn."""
RUNNING, SLACK = 86400.0, 600.0
"""Seconds that a job may run where the host states no limit, and what may be added for storing its result."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What a host says of a job.

    `status` is one of received, queued, provisioning, deploying, dispatched, running and completed, or retrying while
    the host cannot be asked or has lost the job; `text` says it in words; `position` is the place in the queue, from 1.
    """

    job: str | None
    status: str
    position: int | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a job saved, by name, and how many bytes went there and came back.

    `taken_up`: an earlier run had sent it. `runtime`: seconds it ran on the host, if that says so.
    """

    values: dict[str, Any]
    sent: int
    received: int
    job: str
    taken_up: bool = False
    runtime: float | None = None


def run_job(
    host: Host,
    model: str,
    payload: bytes,
    *,
    watch: Callable[[JobState], None] = lambda _state: None,
    stop: threading.Event | None = None,
    name: str | None = None,
    journal: Journal | None = None,
    timeout: float | None = None,
    clock: Clock | None = None,
) -> Finished:
    """Runs a serialized block on a deployment and waits for what it saved.

    Args:
        model: The deployment's key.
        payload: What `RequestModel.serialize` gives, compressed or not.
        watch: Called with what the host says of the job, whenever that changes.
        stop: Once it is set, waiting ends at once. The job runs on.
        name: A digest of what the job computes. With a `journal`, a job that was sent under it and has not ended is
            taken up instead of being sent again.
        timeout: Seconds that the deployment lets a job run.

    Raises:
        StoppedWaiting: `stop` was set.
        JobTooLargeError: a smaller job may succeed.
        RemoteError: anything else that is wrong with the host, the way there, or the job.
    """
    if stop is not None and stop.is_set():
        raise StoppedWaiting(None)
    clock = clock or Clock()
    job = _Job(
        host=host,
        model=model,
        payload=payload,
        watch=watch,
        name=name,
        journal=journal,
        clock=clock,
        allowed=RUNNING if timeout is None else timeout + SLACK,
    )
    ended: Future[Finished] = Future()
    # A daemon: an exchange that hangs must not keep a process that was told to stop.
    threading.Thread(
        target=copy_context().run, args=(_settle, ended, job.finish), daemon=True, name="ssn-probe job"
    ).start()
    try:
        while not wait([ended], 0.1).done:
            if stop is not None and stop.is_set():
                raise StoppedWaiting(job.id)
        return ended.result()
    finally:
        clock.left.set()


def _settle(ended: Future[Finished], finish: Callable[[], Finished]) -> None:
    try:
        ended.set_result(finish())
    except BaseException as error:
        ended.set_exception(error)


class _Lost(Exception):
    """The host has a job or its result no more, or failed for a reason that passes: it is sent again."""

    def __init__(self, error: RemoteError):
        super().__init__(error.message)
        self.error = error


@dataclass(kw_only=True, eq=False)
class _Job:
    """A job, whose id is known once it was sent. `since`: when waiting for it began; `known`: when the host knew it."""

    host: Host
    model: str
    payload: bytes
    watch: Callable[[JobState], None]
    name: str | None
    journal: Journal | None
    clock: Clock
    allowed: float
    id: str | None = None
    taken_up: bool = False
    sent: int = 0
    since: float = 0.0
    known: float | None = None
    unheard: float = UNHEARD
    runs_since: float | None = None
    said: JobState | None = None

    def finish(self) -> Finished:
        with open_client() as client:
            connection = Connection(self.host, client, self.clock, self._retry)
            if self._take_up():
                # Whatever became of that job, this one is sent anew: what made it fail may be over.
                with contextlib.suppress(_Lost):
                    return self._wait(connection)
            try:
                return Retrying(
                    retry=retry_if_exception_type(_Lost),
                    stop=stop_after_attempt(SENDS),
                    wait=RESENDING,
                    sleep=self.clock.wait,
                    before_sleep=lambda state: self._retry(str(state.outcome and state.outcome.exception())),
                    reraise=True,
                )(lambda: self._send_and_wait(connection))
            except _Lost as lost:
                raise lost.error from None

    def _send_and_wait(self, connection: Connection) -> Finished:
        from nnsight.schema.request import RequestModel

        request = RequestModel(model_key=self.model, compress=self.payload[:4] == ZSTANDARD)
        # Where the answer is lost, the job is sent again and may run twice. It only computes: that takes time, no more.
        said = connection.json(
            "POST",
            "/request",
            data={"data": request.metadata()},
            files={"blob": ("request", self.payload, "application/octet-stream")},
            headers={
                "nnsight-version": version("nnsight"),
                "python-version": sys.version,
                "ndif-timestamp": repr(time.time()),
            },
            timeout=timeouts(ACCEPT),
        )
        job = said.get("id") if isinstance(said, dict) else None
        if not isinstance(job, str) or not re.fullmatch(r"[\w-]{1,100}", job):
            raise self._no_ndif()
        self.id, self.taken_up, self.since, self.unheard = job, False, self.clock.now(), UNHEARD
        self.known = self.runs_since = None
        self.sent += len(self.payload)
        if self.journal and self.name:
            self.journal.note(self.name, self.host.url, self.model, job)
        self._tell(said)
        return self._wait(connection)

    def _wait(self, connection: Connection) -> Finished:
        """Looks at the job until it has ended. Raises _Lost where it has to be sent again."""
        while True:
            said = self._look(connection)
            if said is not None and (status := self._tell(said)) in ("completed", "error"):
                return self._result(connection, said) if status == "completed" else self._failed(said)
            waited = self.clock.now() - self.since
            self.clock.wait(min(max(POLLS[0], waited / 10), POLLS[1]))

    def _look(self, connection: Connection) -> dict[str, Any] | None:
        """What the host says of the job, None as long as it may not have heard of it yet."""
        said = connection.json("GET", f"/response/{self.id}", absent=True)
        now = self.clock.now()
        if said is None:
            since, limit = (self.since, self.unheard) if self.known is None else (self.known, FORGOTTEN)
            if now - since >= limit:
                self._lost(RemoteError(f"{self.host.url} has forgotten job {self.id}.", AGAIN))
            return None
        if not isinstance(said, dict) or said.get("id") != self.id:
            raise self._no_ndif()
        self.known = now
        self._check_patience(now, str(said.get("status")) == "RUNNING")
        return said

    def _check_patience(self, now: float, runs: bool) -> None:
        self.runs_since = (self.runs_since or now) if runs else None
        if self.runs_since is not None and now - self.runs_since >= self.allowed:
            took = f"Job {self.id} has not ended within {duration(self.allowed)}, though the host allows it no more."
            self._lost(RemoteError(took, AGAIN))
        if self.runs_since is None and now - self.since >= QUEUEING:
            raise RemoteError(
                f"Job {self.id} has waited for {duration(QUEUEING)} on {self.host.url}, and has not begun.",
                f"Ask those who run the host. {AGAIN} The job is taken up again if it is there still.",
            )

    def _result(self, connection: Connection, said: dict[str, Any]) -> Finished:
        url = said.get("data")
        try:
            try:
                content = fetch_result(connection, url)
            except ExpiredError as expired:
                if (said := self._look(connection) or {}).get("data") in (None, url):
                    self._lost(expired)
                content = fetch_result(connection, said["data"])
            values = read_result(content)
        except ExpiredError as expired:
            self._lost(expired)
        except UnreadableError as unreadable:
            self._end(unreadable)
        self._forget()
        runtime = (said.get("meta") or {}).get("runtime")
        return Finished(
            values=values,
            sent=self.sent,
            received=len(content),
            job=str(self.id),
            taken_up=self.taken_up,
            runtime=runtime if isinstance(runtime, int | float) else None,
        )

    def _failed(self, said: dict[str, Any]) -> NoReturn:
        meta = said.get("meta")
        error = job_error(
            self.host, str(self.id), str(said.get("description")), meta if isinstance(meta, dict) else None
        )
        if isinstance(error, Passing):
            self._lost(error.error)
        self._end(error)

    def _lost(self, error: RemoteError) -> NoReturn:
        self._forget()
        raise _Lost(error)

    def _end(self, error: RemoteError) -> NoReturn:
        """The job has ended and gives nothing; one that an earlier run had sent is sent anew."""
        self._forget()
        raise _Lost(error) if self.taken_up else error

    def _take_up(self) -> bool:
        noted = self.journal.find(self.name, self.host.url, self.model) if self.journal and self.name else None
        if noted is None:
            return False
        self.id, self.taken_up, self.since = noted.job, True, self.clock.now()
        self.unheard = max(0.0, UNHEARD - noted.age)
        return True

    def _forget(self) -> None:
        """Unless nobody waits any more, and so nobody has what the job gave."""
        if self.journal and self.name and not self.clock.left.is_set():
            self.journal.forget(self.name, self.host.url, self.model)

    def _tell(self, said: dict[str, Any]) -> str:
        """The job's status, of which `watch` is told where it is news."""
        status, text = str(said.get("status")).lower(), scrubbed(str(said.get("description") or ""), self.host)[:200]
        place = re.search(r"position (\d{1,9})\b", text) if status == "queued" else None
        shown = "" if status in ("completed", "error") else text
        self._show(JobState(job=self.id, status=status, position=int(place[1]) if place else None, text=shown))
        return status

    def _retry(self, why: str) -> None:
        self._show(JobState(job=self.id, status="retrying", text=why))

    def _show(self, state: JobState) -> None:
        if state != self.said and not self.clock.left.is_set():
            self.said = state
            self.watch(state)

    def _no_ndif(self) -> RemoteError:
        return RemoteError(f"What {self.host.url} says of a job is no answer of an NDIF.", "Check the address.")
