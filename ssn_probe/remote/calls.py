"""Calls of bodies on a host: any thread asks for one and waits; those that wait are packed into few jobs.

A call is a function of the model and of plain data, such as those of `tracing.bodies`. A job is sent when it is full,
or when nobody will ask for more until an answer comes. Imported where a model is loaded, since nnsight is.
"""

import inspect
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import nnsight
from nnsight.intervention.backends.remote import RemoteBackend
from nnsight.schema.request import RequestModel
from torch import Tensor

from ssn_probe.errors import RemoteError
from ssn_probe.remote.deployments import Deployment
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_errors import JobTooLargeError, StoppedWaiting
from ssn_probe.remote.journal import Journal
from ssn_probe.remote.packed import run_packed
from ssn_probe.remote.shared_values import SharedValues
from ssn_probe.remote.tally import Tally
from ssn_probe.remote.transport import Finished, JobState, run_job
from ssn_probe.remote.turns import Cancelled, Group, Turns

T = TypeVar("T")
IN_FLIGHT = 4
"""Jobs at the host at the same time."""
MOST_CALLS = 64
"""Calls of a job."""
FIRST_CALLS = 8
"""Calls of a kind in a job, as long as none has told how long it takes and how much comes back."""
MOST_SENT, MOST_RECEIVED = 16_000_000, 64_000_000
"""Bytes of a job's different values, and of what comes back."""
MOST_SECONDS = 60.0
"""How long a job is made to run at most, as far as that can be told; a tenth of what the host allows if that is less."""
WORKERS = IN_FLIGHT * MOST_CALLS
"""Pieces of work that may wait for the host at the same time."""
SERIALIZING = threading.Lock()
"""nnsight reads a block's source and the model's state: one thread at a time."""


@dataclass(eq=False)
class Call:
    """A body with its arguments, and what became of it. `most`: calls that may travel together with it and itself."""

    body: Callable[..., Any]
    arguments: tuple[Any, ...]
    group: Group | None
    most: int = MOST_CALLS
    done: threading.Event = field(default_factory=threading.Event)
    value: Any = None
    error: BaseException | None = None

    @property
    def kind(self) -> str:
        return self.body.__name__.removeprefix("trace_").replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What the last calls of a kind took at most."""

    seconds: float
    received: int


class Calls:
    """The calls of one model on one host.

    `model` is nnsight's wrapper of the model's outline, without weights; `bodies` the package whose source travels
    along, so that the host need not have it. `journal`: where jobs under way are noted; `tally`: what has travelled so
    far; `watch` is called, by any thread, whenever the state of a job changes.
    """

    def __init__(self, host: Host, deployment: Deployment, model: Any, bodies: str):
        nnsight.register(bodies)
        nnsight.register("ssn_probe.remote.packed")
        self.host, self.deployment, self.model = host, deployment, model
        self.journal: Journal | None = None
        self.watch: Callable[[], None] = lambda: None
        self.stop = threading.Event()
        self.turns = Turns(idle=self._flush, interrupted=self.stop.set)
        self.tally = Tally()
        self.under_way: dict[int, JobState | None] = {}
        self._lock = threading.RLock()
        self._waiting: deque[Call] = deque()
        self._taken: dict[str, Taken] = {}
        self._trying: set[str] = set()

    def run(self, body: Callable[..., Any], *arguments: Any) -> Any:
        """`body(model, *arguments)` on the host.

        Raises:
            MemoryError: the host cannot do it in one piece.
            RemoteError: the host, the way there, or the body failed.
        """
        call = Call(body, arguments, self.turns.group)
        with self.turns.taken():
            with self._lock:
                self._waiting.append(call)
                if len(self._waiting) >= MOST_CALLS:
                    self._flush()
            self.turns.wait(call.done)
        if call.error is not None:
            raise call.error
        return call.value

    def together(self, work: Iterable[Callable[[], T]]) -> Iterator[T]:
        """What each piece of work gives, in order, while many of them wait for the host."""
        return self.turns.together(work, WORKERS)

    def _flush(self) -> None:
        """Sends what waits, as far as more may be under way, and gives back the calls that nobody wants any more."""
        with self._lock:
            for call in [call for call in self._waiting if self.stop.is_set() or (call.group and call.group.is_over)]:
                self._waiting.remove(call)
                self._give(call, error=Cancelled())
            while len(self.under_way) < IN_FLIGHT and (pack := self._next_pack()):
                self._trying |= {call.kind for call in pack} - set(self._taken)
                self.under_way[number := self.tally.begun()] = None
                threading.Thread(target=self._send, args=(number, pack), daemon=True).start()

    def _next_pack(self) -> list[Call]:
        """The first calls that wait, as many as a job may have; what is equal in them has become one object."""
        shared, pack, untried = SharedValues(), list[Call](), Counter[str]()
        longest = min(MOST_SECONDS, (self.deployment.timeout or MOST_SECONDS * 10) / 10)
        seconds, received, most = 0.0, 0, MOST_CALLS
        for call in list(self._waiting):
            took = self._taken.get(call.kind)
            if took is None and (call.kind in self._trying or untried[call.kind] == FIRST_CALLS):
                continue  # the first calls of a kind tell how many others a job may have
            arguments, _ = shared.share(call.arguments)
            untried[call.kind] += 1
            seconds, received = seconds + (took.seconds if took else 0), received + (took.received if took else 0)
            most = min(most, call.most)
            too_much = seconds > longest or received > MOST_RECEIVED or shared.size > MOST_SENT
            if pack and (too_much or len(pack) >= most):
                break
            call.arguments = arguments
            pack.append(call)
            self._waiting.remove(call)
        return pack

    def _send(self, number: int, pack: list[Call]) -> None:
        try:
            results, error = self._job(number, pack), None
        except BaseException as raised:
            results, error = [], raised
        with self._lock:
            del self.under_way[number]
            self._trying -= {call.kind for call in pack}
            if _may_be_of_one(error) and len(pack) > 1:
                for call in reversed(pack):
                    call.most = len(pack) // 2
                    self._waiting.appendleft(call)
        if error is None:
            for call, (seconds, value, failure) in zip(pack, results, strict=True):
                self.tally.add(call.kind, seconds)
                self._give(call, value, self._error_of(call, failure))
        elif not (_may_be_of_one(error) and len(pack) > 1):
            for call in pack:
                self._give(call, error=_for_caller(error))
        else:
            self._flush()
        self.watch()

    def _job(self, number: int, pack: Sequence[Call]) -> list[Any]:
        """For each call: seconds, value, and failure or None."""
        calls = [(call.body, call.arguments) for call in pack]
        with SERIALIZING:
            run_packed(self.model, serializer := _Serializer(self.host, self.deployment), calls)
        began = time.monotonic()

        def watch(state: JobState) -> None:
            self.under_way[number] = state
            self.watch()

        found: Finished = run_job(
            self.host,
            self.deployment.key,
            serializer.payload,
            watch=watch,
            stop=self.stop,
            name=self._name(calls),
            journal=self.journal,
            timeout=self.deployment.timeout,
        )
        self.tally.ended(found.sent, found.received, time.monotonic() - began, found.taken_up)
        results = found.values["results"]
        for kind in {call.kind for call in pack}:
            mine = [one for call, one in zip(pack, results, strict=True) if call.kind == kind]
            self._taken[kind] = Taken(
                seconds=max(seconds for seconds, _, _ in mine), received=max(_bytes(value) for _, value, _ in mine)
            )
        return results

    def _name(self, calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]]) -> str:
        """A digest of what a job computes."""
        sources = {body.__name__: inspect.getsource(inspect.getmodule(body) or body) for body, _ in calls}
        named = [(body.__name__, arguments) for body, arguments in calls]
        return SharedValues().share([self.deployment.key, sources, named])[1].hex()

    def _error_of(self, call: Call, failure: dict[str, Any] | None) -> BaseException | None:
        if failure is None:
            return None
        if failure["memory"]:
            return MemoryError(f"{self.host.url}: {failure['text']}")
        return RemoteError(
            f"{self.host.url} failed at {call.kind}: {failure['text']}",
            "If the same works on your own machine, versions may differ: `ssn-probe doctor --remote` compares them.",
        )

    def _give(self, call: Call, value: Any = None, error: BaseException | None = None) -> None:
        call.value, call.error = value, error
        self.turns.wake(call.done)


def _may_be_of_one(error: BaseException | None) -> bool:
    """May fewer calls succeed where these did not?"""
    return isinstance(error, JobTooLargeError)


def _for_caller(error: BaseException) -> BaseException:
    if isinstance(error, StoppedWaiting):
        return Cancelled()
    return MemoryError(error.message) if isinstance(error, JobTooLargeError) else error


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, items))


class _Serializer(RemoteBackend):
    """Takes the block that nnsight has traced, and only serializes it."""

    payload = b""

    def __init__(self, host: Host, deployment: Deployment):
        super().__init__(deployment.key, host=host.url, api_key=host.key)

    def __call__(self, tracer: Any = None) -> None:
        self.payload = RequestModel.serialize(tracer, self.compress)
