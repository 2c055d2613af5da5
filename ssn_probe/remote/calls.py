"""Calls of bodies on a host: any thread asks for one and waits; several are packed into one job.

A call is a function of the model and of plain data, such as those of `tracing.bodies`. Imported where a model is
loaded, since nnsight is.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import nnsight
from nnsight.intervention.backends.remote import RemoteBackend
from nnsight.schema.request import RequestModel

from ssn_probe.remote.deployments import Deployment
from ssn_probe.remote.host import Host
from ssn_probe.remote.packed import run_packed
from ssn_probe.remote.transport import run_job

Call = tuple[Callable[..., Any], tuple[Any, ...]]
SERIALIZING = threading.Lock()
"""nnsight reads a block's source and the model's state: one thread at a time."""


class Calls:
    """The calls of one model on one host.

    `model` is nnsight's wrapper of the model's outline, without weights; `bodies` the package whose source travels
    along, so that the host need not have it.
    """

    def __init__(self, host: Host, deployment: Deployment, model: Any, bodies: str):
        nnsight.register(bodies)
        nnsight.register("ssn_probe.remote.packed")
        self.host, self.deployment, self.model = host, deployment, model

    def run(self, body: Callable[..., Any], *arguments: Any) -> Any:
        """`body(model, *arguments)` on the host."""
        return self.job([(body, arguments)])[0]

    def job(self, calls: Sequence[Call]) -> list[Any]:
        """Several calls as one job, in order."""
        return run_packed(self.model, _Backend(self.host, self.deployment), calls)


class _Backend(RemoteBackend):
    """Sends the block that nnsight has traced, and puts what it saved into the frame that traced it."""

    def __init__(self, host: Host, deployment: Deployment):
        super().__init__(deployment.key, host=host.url, api_key=host.key)
        self.sent_to = host

    def __call__(self, tracer: Any = None) -> Any:
        with SERIALIZING:
            payload = RequestModel.serialize(tracer, self.compress)
        found = run_job(self.sent_to, self.model_key, payload)
        self._push(found.values, tracer)
        return found.values
