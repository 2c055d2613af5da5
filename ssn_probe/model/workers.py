"""One model in several processes of this machine, which share what has to be computed of it.

The first process does all that a single one would do: it alone plans, judges, keeps and reports. Calls of bodies,
which are functions of the model and of plain data, wait in a row for workers that have loaded the same model, and where
there is nothing else to do the first process computes one of them itself. So a number depends on neither how many there
are nor which of them is quicker, and a worker may die at any moment: what it was asked is computed here. A worker ends
when its standard input does, so none outlives the first process, however that ends.

Threads prepare the calls, one at a time (`remote.turns`); none are started before a worker is ready.
"""

import os
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ssn_probe.model.asking import Asking
from ssn_probe.model.messages import on_device, packed, widen
from ssn_probe.model.sharing_cores import at_most
from ssn_probe.remote.turns import Cancelled, Group, Turns

if TYPE_CHECKING:
    from ssn_probe.model.subject import Subject

T = TypeVar("T")
WORKER = "ssn_probe.tracing.worker"
"""The module that a worker runs."""
WORTH, COST = 20.0, 5.0
"""Seconds that the rest of a run must seem to take before workers are started, and those that each needs to import and
load."""
AHEAD, FEW = 0.05, 2
"""Seconds of work that a worker has been sent, but so many calls at least: it need not wait for its next one."""
UNDER_WAY = 8
"""Pieces of work per worker that are under way together, whose calls are sent to workers or wait to be."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What a worker loads, and how. `tried`: templates and tokenizers that were tried already, see `model.trial`.

    `settings`: of torch, see `model.torch_settings`.
    """

    name: str
    dtype: str
    device: str
    asking: Asking
    threads: int
    tried: frozenset[str]
    settings: Mapping[str, Any] = field(default_factory=dict)


class Here(Protocol):
    """Computes a call in this process."""

    def __call__(self, subject: "Subject", body: Callable[..., Any], arguments: tuple[Any, ...]) -> Any: ...


@dataclass(eq=False)
class Call:
    """A call that a worker has, or that waits for one; `is_known` once there is its value, which took so many seconds.

    `message`: as a worker is sent it, with its number. `compute`: does the same here. `group`: who waits for it.
    """

    number: int
    message: bytes
    compute: Callable[[], Any]
    group: Group | None
    done: threading.Event = field(default_factory=threading.Event)
    is_known: bool = False
    value: Any = None
    seconds: float = 0.0


@dataclass(eq=False)
class Worker:
    """A process, the calls that it has by number, and the seconds that its last one took."""

    process: subprocess.Popen[bytes]
    listener: threading.Thread | None = None
    is_ready: bool = False
    is_lost: bool = False
    calls: dict[int, Call] = field(default_factory=dict)
    seconds: float = AHEAD
    sending: threading.Lock = field(default_factory=threading.Lock)

    @property
    def takes_calls(self) -> bool:
        return self.is_ready and not self.is_lost

    @property
    def has_enough(self) -> bool:
        return len(self.calls) >= FEW and len(self.calls) * self.seconds >= AHEAD


class Workers:
    """The workers of one model, `loadings` has one entry for each, and what they are asked through.

    `expected`: how many sequences the run may have to compute; where these seem to take less than `WORTH`, no worker is
    started. None: they are started with the first call. `warn` is told of a worker that died. `early`: a process for
    the first of them that runs already, see `early_process`.
    """

    def __init__(
        self,
        loadings: Iterable[Loading],
        identity: Mapping[str, Any],
        expected: float | None = None,
        warn: Callable[[str], None] = lambda _message: None,
        early: subprocess.Popen[bytes] | None = None,
    ):
        self.loadings, self.identity, self.expected, self.warn = tuple(loadings), dict(identity), expected, warn
        self.early = early
        self.turns = Turns(interrupted=self.close, otherwise=self._compute_one)
        self.workers: list[Worker] = []
        self.waiting: deque[Call] = deque()
        self.is_closed = False
        self._cores = ExitStack()
        self._numbers = 0
        self._fastest = float("inf")
        self._computed, self._spared, self._spent = 0, 0, 0.0
        self._lock = threading.Lock()
        self._thread = threading.local()

    @property
    def are_ready(self) -> bool:
        """Is a worker there that takes calls?"""
        return any(worker.takes_calls for worker in self.workers)

    def run(self, here: Here, subject: "Subject", body: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What a body gives: from a worker, or computed `here`, where none is ready or no thread has anything to do."""
        asked = time.monotonic()
        with self.turns.taken():
            self._go_on()
            if self.expected is None:
                self._start()
            if (call := self._handed(here, subject, body, arguments)) is not None:
                self.turns.wait(call.done)
                if call.is_known:
                    self._waited(time.monotonic() - asked - call.seconds)
                    return call.value
                self._go_on()
            began = time.monotonic()
            self._waited(began - asked)
            value = _computed(here, subject, body, arguments)
            self._learn(_sequences(arguments), time.monotonic() - began)
            return value

    def clock(self) -> float:
        """Seconds, of which those that this thread's calls waited to be computed do not count."""
        return time.monotonic() - getattr(self._thread, "waited", 0.0)

    def _waited(self, seconds: float) -> None:
        self._thread.waited = getattr(self._thread, "waited", 0.0) + seconds

    def together(self, work: Iterable[Callable[[], T]]) -> Iterator[T]:
        """What each piece of work gives, in order; one after the other until a worker is ready."""
        left = iter(work)
        for one in left:
            if self.are_ready:
                yield from self.turns.together(chain([one], left), UNDER_WAY * len(self.workers) + 1)
                return
            yield one()

    def spare(self, sequences: int) -> None:
        """Of those that were expected so many need not be computed."""
        self._spared += sequences

    def close(self) -> None:
        """Ends all workers; who waits for one asks no more."""
        with self._lock:
            self.is_closed = True
        for worker in self.workers:
            with suppress(OSError):
                worker.process.kill()
        for worker in self.workers:
            end(worker.process, worker.listener)

    def _go_on(self) -> None:
        group = self.turns.group
        if self.is_closed or (group is not None and group.is_over):
            raise Cancelled

    def _start(self) -> None:
        with self._lock:
            if self.workers or self.is_closed:
                return
            ready = [self.early] if self.early is not None and self.early.poll() is None else []
            self.workers = [Worker(ready.pop() if ready else worker_process()) for _ in self.loadings]
        from ssn_probe.model.torch_settings import torch_settings

        threads, settings = self._share_cores(), torch_settings()
        for worker, loading in zip(self.workers, self.loadings, strict=True):
            worker.listener = threading.Thread(target=self._listen, args=(worker,), daemon=True)
            worker.listener.start()
            mine = replace(loading, threads=min(threads, loading.threads), settings=settings)
            self._send(worker, packed(mine))

    def _share_cores(self) -> int:
        """Leaves the workers their part of the cores. A run that starts none has them all. Returns how many threads."""
        import torch

        threads = torch.get_num_threads()
        self._cores.enter_context(at_most(min(loading.threads for loading in self.loadings)))
        return threads

    def take_cores_back(self) -> None:
        """As many threads as before the workers were started."""
        self._cores.close()

    def _learn(self, sequences: int, seconds: float) -> None:
        """Starts the workers once what is left seems worth it, at the best speed seen: the first calls are slow.

        Where some was cached, the rest may be, too: then a start waits until as much as it costs has been computed.
        """
        if self.expected is None or self.workers or not sequences:
            return
        self._computed += sequences
        self._spent += seconds
        self._fastest = min(self._fastest, seconds / sequences)
        left = self.expected - self._computed - self._spared
        if self._fastest * left >= WORTH and (not self._spared or self._spent >= COST):
            self._start()

    def _handed(
        self, here: Here, subject: "Subject", body: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Call | None:
        """The call, at the end of the row, for functions of this package and where a worker is ready."""
        if not self.are_ready or not body.__module__.startswith("ssn_probe."):
            return None
        self._numbers += 1
        try:
            message = packed((self._numbers, body, on_device(arguments, "cpu")))
        except (pickle.PicklingError, TypeError, AttributeError):
            return None
        call = Call(self._numbers, message, partial(_computed, here, subject, body, arguments), self.turns.group)
        with self._lock:
            if not self.are_ready:
                return None
            self.waiting.append(call)
        for worker in sorted(self.workers, key=lambda one: len(one.calls)):
            self._supply(worker)
        return call

    def _compute_one(self) -> bool:
        """Computes the newest call that no worker has yet, where there is one: no thread could do anything else."""
        with self._lock:
            call = self.waiting.pop() if self.waiting else None
        if call is None:
            return False
        try:
            if call.group is None or not call.group.is_over:
                began = time.monotonic()
                call.value, call.is_known = call.compute(), True
                call.seconds = time.monotonic() - began
        except Exception:  # whoever waits for it computes it, and meets the same error
            call.is_known = False
        except BaseException:
            self.close()
            raise
        finally:
            self.turns.wake(call.done)
        return True

    def _supply(self, worker: Worker) -> None:
        """Sends a worker what waits until it has enough."""
        while True:
            with worker.sending:
                with self._lock:
                    if not worker.takes_calls or worker.has_enough or not self.waiting:
                        return
                    call = self.waiting.popleft()
                    worker.calls[call.number] = call
                self._send(worker, call.message)

    def _send(self, worker: Worker, message: bytes) -> None:
        with suppress(OSError):  # of a worker that has died: its listener gives back the calls
            assert worker.process.stdin is not None
            worker.process.stdin.write(message)
            worker.process.stdin.flush()

    def _listen(self, worker: Worker) -> None:
        """Takes what a worker answers until it ends, and then gives back the calls that it still had."""
        with suppress(Exception):  # of an answer that was cut off, or that this process has no room for
            worker.is_ready = pickle.load(worker.process.stdout) == self.identity  # type: ignore[arg-type]
            while worker.is_ready:
                number, is_known, value, seconds = pickle.load(worker.process.stdout)  # type: ignore[arg-type]
                with self._lock:
                    call = worker.calls.pop(number)
                call.is_known, call.value, call.seconds, worker.seconds = is_known, value, seconds, seconds
                self._supply(worker)
                self.turns.wake(call.done)
        with self._lock:
            worker.is_lost = True
            left, closed = list(worker.calls.values()), self.is_closed
            if not self.are_ready:
                left += self.waiting
                self.waiting.clear()
        if not closed:
            with suppress(OSError):
                worker.process.kill()
            self.warn("a process that shared the work ended early; what it was computing was computed again")
        self.turns.wake(*(call.done for call in left))


def _computed(here: Here, subject: "Subject", body: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What a body gives here; of its arguments, those that a worker has computed are in the processor's memory."""
    return here(subject, body, arguments if subject.device == "cpu" else on_device(arguments, subject.device))


def worker_process() -> subprocess.Popen[bytes]:
    """A process that waits for what to load."""
    package = str(Path(__file__).parents[2])
    settings = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    paths = {"PYTHONPATH": os.pathsep.join([package, *filter(None, sys.path)])}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | settings | paths,
    )
    widen(process.stdin)
    return process


def end(process: subprocess.Popen[bytes], listener: threading.Thread | None = None) -> None:
    """Ends a worker's process, and then the thread that listens to it."""
    with suppress(OSError):
        process.kill()
    process.wait()
    if listener is not None:
        listener.join()
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            assert stream is not None
            stream.close()


def _sequences(arguments: tuple[Any, ...]) -> int:
    """How many sequences a call runs, of a batch or of several, each of which may have several `runs`."""
    batches = next((one if isinstance(one, list) else [one] for one in arguments if _has_inputs(one)), [])
    return sum(len(inputs["input_ids"]) * inputs.get("runs", 1) for inputs in batches)


def _has_inputs(argument: Any) -> bool:
    first = argument[0] if isinstance(argument, list) and argument else argument
    return isinstance(first, Mapping) and "input_ids" in first
