"""One job on a host: sent, watched until it ends, its result read.

Imported where a model is loaded, since nnsight is.
"""

import time
from dataclasses import dataclass
from typing import Any

from nnsight.intervention.backends.remote import RemoteBackend
from nnsight.schema.request import RequestModel

from ssn_probe.remote.host import Host

POLLS = (0.02, 2.0)
"""Seconds between two looks at a job: the first ones, and the longest."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a job saved, by name, and how many bytes went there and came back."""

    values: dict[str, Any]
    sent: int
    received: int


def run_job(host: Host, model: str, payload: bytes) -> Finished:
    """Runs a serialized block on a deployment, named by its key, and waits for what it saved."""
    backend = RemoteBackend(model, host=host.url, api_key=host.key, blocking=False)
    backend.display.enabled = False
    request = RequestModel(model_key=model, compress=backend.compress)
    backend.job_id = backend._post(request, payload).id
    pause = POLLS[0]
    while (values := backend.poll()) is None:
        time.sleep(pause)
        pause = min(pause * 1.5, POLLS[1])
    return Finished(values=values, sent=len(payload), received=0)
