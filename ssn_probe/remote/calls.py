"""Calls of bodies on a host. A call is a function of the model and of plain data, such as those of `tracing.bodies`.

Imported where a model is loaded, since nnsight is.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nnsight.intervention.backends.remote import RemoteBackend
from nnsight.schema.request import RequestModel

from ssn_probe.errors import RemoteError
from ssn_probe.remote.deployments import Deployment
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_errors import StoppedWaiting, scrubbed, speaks_of_memory
from ssn_probe.remote.job_limits import MOST_SECONDS, Limits
from ssn_probe.remote.journal import Journal
from ssn_probe.remote.packed import run_packed
from ssn_probe.remote.packing import Answer, Call, Packer
from ssn_probe.remote.shared_values import SharedValues
from ssn_probe.remote.transport import JobState, run_job
from ssn_probe.remote.travelling import source_of, travelling

SERIALIZING = threading.Lock()
"""nnsight reads a block's source and the model's state: one thread at a time."""


class Calls(Packer):
    """The calls of one model on one host.

    `model` is nnsight's wrapper of the model's outline, without weights; `bodies` the package whose source travels
    along, so that the host need not have it. `journal`: where jobs under way are noted; `tell` is called with how the
    jobs are, in words, whenever that changes, by any thread.
    """

    def __init__(self, host: Host, deployment: Deployment, model: Any, bodies: str):
        source = travelling(bodies) + travelling("ssn_probe.remote.packed")
        self.code = SharedValues().share(source)[1]  # its digest
        # far below what the host allows, since calls of a kind differ
        seconds = MOST_SECONDS if deployment.timeout is None else min(MOST_SECONDS, deployment.timeout / 10)
        super().__init__(self._job, Limits(seconds=seconds))
        self.host, self.deployment, self.model = host, deployment, model
        self.journal: Journal | None = None
        self.under_these_names: set[str] = set()
        self.tell: Callable[[str], None] = lambda _text: None

    def _job(self, number: int, calls: Sequence[Call]) -> list[Answer]:
        packed, name = [(call.body, call.arguments) for call in calls], self._name(calls)
        with SERIALIZING:
            run_packed(self.model, serializer := _Serializer(self.host, self.deployment), packed)
        began = time.monotonic()
        self.under_these_names.add(name)
        try:
            found = run_job(
                self.host,
                self.deployment.key,
                serializer.payload,
                watch=lambda state: self._watch(number, state),
                stop=self.stop,
                name=name,
                journal=self.journal,
                timeout=self.deployment.timeout,
            )
            self.tally.ended(found.sent, found.received, time.monotonic() - began, found.taken_up)
        except StoppedWaiting as stopped:
            self.tally.left += [stopped.job] if stopped.job else []
            raise
        finally:
            self.under_these_names.discard(name)
            self._watch(number, None)
        return [
            Answer(seconds=seconds, value=value, error=failure and self._error(call, failure))
            for call, (seconds, value, failure) in zip(calls, found.values["results"], strict=True)
        ]

    def _watch(self, number: int, state: JobState | None) -> None:
        self.tell(self.tally.note(number, state))

    def sent_before(self, waiting: Iterable[Call]) -> list[Call]:
        if self.journal is None:
            return []
        for name in sorted({*self.journal.names(self.host.url, self.deployment.key)} - self.under_these_names):
            left = defaultdict[str, list[Call]](list)
            for call in waiting:
                left[self._digest(call)].append(call)
            digests = name.split()
            found = [left[one].pop(0) for one in digests if left[one]]
            if len(found) == len(digests) and all(len(found) <= call.most for call in found):
                self.under_these_names.add(name)
                return found
        return []

    def _name(self, calls: Sequence[Call]) -> str:
        """The name of a job: what each of its calls computes."""
        return " ".join(map(self._digest, calls))

    def _digest(self, call: Call) -> str:
        if call.digest is None:
            named = [self.code, source_of(call.body), call.body.__name__, call.arguments]
            call.digest = SharedValues().share(named)[1].hex()
        return call.digest

    def _error(self, call: Call, failure: str) -> Exception:
        said = scrubbed(failure, self.host)
        if speaks_of_memory(failure):
            return MemoryError(f"{self.host.url}: {said}")
        return RemoteError(
            f"{self.host.url} failed at {call.kind}: {said}",
            "`ssn-probe doctor --remote` compares the versions there and here.",
        )


class _Serializer(RemoteBackend):
    """Takes the block that nnsight has traced, and only serializes it."""

    payload = b""

    def __init__(self, host: Host, deployment: Deployment):
        super().__init__(deployment.key, host=host.url, api_key=host.key)

    def __call__(self, tracer: Any = None) -> None:
        self.payload = RequestModel.serialize(tracer, self.compress)
