"""One job on a host: sent, watched until it ends, its result read.

Imported where a model is loaded, since nnsight is.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nnsight.intervention.backends.remote import RemoteBackend
from nnsight.schema.request import RequestModel

from ssn_probe.remote.host import Host
from ssn_probe.remote.host_errors import StoppedWaiting
from ssn_probe.remote.journal import Journal

POLLS = (0.02, 2.0)
"""Seconds between two looks at a job: the first ones, and the longest."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What a host says of a job.

    `status` is one of sending, received, queued, provisioning, deploying, dispatched, running, completed, and retrying
    while the host cannot be reached; `text` says it in words; `position` is the job's place in the queue, from 1.
    """

    job: str | None
    status: str
    position: int | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a job saved, by name, and how many bytes went there and came back.

    `taken_up`: an earlier run had sent it.
    """

    values: dict[str, Any]
    sent: int
    received: int
    job: str
    taken_up: bool = False


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
    backend = RemoteBackend(model, host=host.url, api_key=host.key, blocking=False)
    backend.display.enabled = False
    request = RequestModel(model_key=model, compress=backend.compress)
    backend.job_id = job = backend._post(request, payload).id
    watch(JobState(job=job, status="received"))
    pause = POLLS[0]
    while (values := backend.poll()) is None:
        if stop is not None and stop.is_set():
            raise StoppedWaiting(job)
        time.sleep(pause)
        pause = min(pause * 1.5, POLLS[1])
    return Finished(values=values, sent=len(payload), received=0, job=job)
