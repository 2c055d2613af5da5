"""Calls of many threads, packed into few jobs of which several are under way.

A job is sent when it is full, or when every thread waits, so that nobody will ask for more until an answer comes.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from ssn_probe.remote.host_errors import JobFailedError, JobTooLargeError, StoppedWaiting
from ssn_probe.remote.job_limits import MOST_RECEIVED, MOST_SENT, Limits
from ssn_probe.remote.shared_values import SharedValues
from ssn_probe.remote.tally import Tally
from ssn_probe.remote.turns import Cancelled, Group, Turns

T = TypeVar("T")


@dataclass(eq=False)
class Call:
    """A body with its arguments, and what became of it. `most`: how many calls a job that it is in may have.

    `digest`: of what it computes, once somebody has asked for it.
    """

    body: Callable[..., Any]
    arguments: tuple[Any, ...]
    group: Group | None = None
    most: int = 2**31
    digest: str | None = None
    done: threading.Event = field(default_factory=threading.Event)
    value: Any = None
    error: BaseException | None = None

    @property
    def kind(self) -> str:
        return self.body.__name__.removeprefix("trace_").replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a call gave, or why it failed, and the seconds it took."""

    seconds: float
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a call of a kind takes: the most of the last job."""

    seconds: float
    received: int


class Packer:
    """`send(number, calls)` runs a job and gives an answer to each of its calls; it is called by several threads."""

    def __init__(self, send: Callable[[int, Sequence[Call]], list[Answer]], limits: Limits):
        self.send, self.limits = send, limits
        self.stop = threading.Event()
        self.turns = Turns(idle=self._when_all_wait, interrupted=self.stop.set)
        self.tally = Tally()
        self.under_way: set[int] = set()
        self._lock = threading.RLock()
        self._waiting: deque[Call] = deque()
        self._taken: dict[str, Taken] = {}
        self._trying: set[str] = set()

    def run(self, body: Callable[..., Any], *arguments: Any) -> Any:
        """What `send` gives for one call, together with others.

        Raises:
            MemoryError: the host cannot do it in one piece.
        """
        self._go_on()
        call = Call(body, arguments, self.turns.group)
        with self.turns.taken():
            with self._lock:
                self._waiting.append(call)
                if len(self._waiting) >= self.limits.calls:
                    self._flush()
            self.turns.wait(call.done)
        if call.error is not None:
            raise call.error
        return call.value

    def together(self, work: Iterable[Callable[[], T]]) -> Iterator[T]:
        """What each piece of work gives, in order, while many of them wait."""
        self._go_on()
        return self.turns.together(work, self.limits.waiting)

    def _go_on(self) -> None:
        """Whoever asks anew after Ctrl-C is answered."""
        if self.turns.group is None and not self.under_way:
            self.stop.clear()

    def _when_all_wait(self) -> None:
        with self._lock:
            if (
                not self.turns.taken_now
            ):  # an answer may have come meanwhile: then somebody goes on, and may ask for more
                self._flush()

    def _flush(self) -> None:
        """Sends what waits, as far as more may be under way, and gives back the calls that nobody wants any more."""
        with self._lock:
            for call in [call for call in self._waiting if self.stop.is_set() or (call.group and call.group.is_over)]:
                self._waiting.remove(call)
                call.error = Cancelled()
                self.turns.wake(call.done)
            while len(self.under_way) < self.limits.jobs and (pack := self._next_pack()):
                self._trying |= {call.kind for call in pack} - set(self._taken)
                self.under_way.add(number := self.tally.begun())
                threading.Thread(target=self._send, args=(number, pack), daemon=True).start()

    def sent_before(self, _waiting: Iterable[Call]) -> list[Call]:
        """Calls that an earlier run has sent as one job, in its order; none where there is no such job."""
        return []

    def _next_pack(self) -> list[Call]:
        """The first calls that wait, as many as a job may have; what is equal in them has become one object.

        What an earlier run has sent goes before all, in the very job that the host may have still.
        """
        shared, pack, untried = SharedValues(), list[Call](), Counter[str]()
        if before := self.sent_before(self._waiting):
            for call in before:
                call.arguments, _ = shared.share(call.arguments)
                self._waiting.remove(call)
            return before
        seconds, received, most = 0.0, 0, self.limits.calls
        for call in list(self._waiting):
            took = self._taken.get(call.kind)
            if took is None and (call.kind in self._trying or untried[call.kind] == self.limits.first):
                continue  # the first calls of a kind tell how many others a job may have
            arguments, _ = shared.share(call.arguments)
            untried[call.kind] += 1
            seconds, received = seconds + (took.seconds if took else 0), received + (took.received if took else 0)
            most = min(most, call.most)
            too_much = seconds > self.limits.seconds or received > MOST_RECEIVED or shared.size > MOST_SENT
            if pack and (too_much or len(pack) >= most):
                break
            call.arguments = arguments
            pack.append(call)
            self._waiting.remove(call)
        return pack

    def _send(self, number: int, pack: list[Call]) -> None:
        try:
            answers, error = self.send(number, pack), None
        except BaseException as raised:
            answers, error = [], raised
        divide = isinstance(error, JobTooLargeError | JobFailedError) and len(pack) > 1
        with self._lock:
            self.under_way.discard(number)
            self._trying -= {call.kind for call in pack}
            if divide:
                self._divide(pack)
            elif error is not None:
                self._answer(pack, [Answer(seconds=0, error=_of_one_call(error)) for _ in pack])
            else:
                self._learn(pack, answers)
                self._answer(pack, answers)
        self._when_all_wait()

    def _divide(self, pack: list[Call]) -> None:
        for call in reversed(pack):
            call.most = len(pack) // 2
            self._waiting.appendleft(call)

    def _answer(self, pack: list[Call], answers: list[Answer]) -> None:
        for call, answer in zip(pack, answers, strict=True):
            call.value, call.error = answer.value, answer.error
        self.turns.wake(*(call.done for call in pack))  # at once: they ask for more in the order of their calls

    def _learn(self, pack: list[Call], answers: list[Answer]) -> None:
        for kind in {call.kind for call in pack}:
            mine = [answer for call, answer in zip(pack, answers, strict=True) if call.kind == kind]
            self.tally.add(kind, len(mine), sum(answer.seconds for answer in mine))
            self._taken[kind] = Taken(
                seconds=max(answer.seconds for answer in mine), received=max(_bytes(answer.value) for answer in mine)
            )


def _of_one_call(error: BaseException) -> BaseException:
    """What a caller gets for the error of a whole job."""
    if isinstance(error, StoppedWaiting):
        return Cancelled()
    return MemoryError(error.message) if isinstance(error, JobTooLargeError) else error


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, items))
