"""Many calls in few jobs: what goes together, what travels once, and whose error it is."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ssn_probe.errors import RemoteError
from ssn_probe.model.out_of_memory import OutOfMemory, memory_errors
from ssn_probe.remote.host_errors import HostMemoryError, HostTimeoutError, JobFailedError, StoppedWaiting
from ssn_probe.remote.job_limits import Limits
from ssn_probe.remote.packing import Answer, Call, Packer
from ssn_probe.remote.shared_values import SharedValues


def trace_sum(values: torch.Tensor, add: float) -> float:
    return float(values.sum()) + add


def trace_most(values: torch.Tensor) -> float:
    return float(values.max())


class Host:
    """Answers at once, and remembers what every job had. `fails`: what is wrong with a job of these calls."""

    def __init__(self, seconds: float = 0.01, fails: Any = lambda _calls: None):
        self.jobs: list[list[Call]] = []
        self.seconds, self.fails = seconds, fails
        self.now, self.most = 0, 0
        self.lock = threading.Lock()

    def __call__(self, number: int, calls: Sequence[Call]) -> list[Answer]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.jobs.append(list(calls))
        try:
            if (error := self.fails(calls)) is not None:
                raise error
            return [Answer(seconds=self.seconds, value=call.body(*call.arguments)) for call in calls]
        finally:
            with self.lock:
                self.now -= 1

    @property
    def sizes(self) -> list[int]:
        return [len(job) for job in self.jobs]


def ask(packer: Packer, count: int, values: torch.Tensor | None = None) -> list[float]:
    values = torch.ones(3) if values is None else values
    return list(
        packer.together(lambda number=number: packer.run(trace_sum, values, float(number)) for number in range(count))
    )


def test_many_calls_are_few_jobs_and_each_gets_its_own() -> None:
    host = Host()
    packer = Packer(host, Limits(jobs=2, calls=10, first=4))
    assert ask(packer, 64) == [3.0 + number for number in range(64)]
    assert host.sizes[0] == 4, "the first job is small: nobody knows how long its calls take"
    assert max(host.sizes) == 10
    assert sum(host.sizes) == 64
    assert len(host.sizes) <= 9
    assert host.most <= 2
    assert packer.tally.calls == {"sum": 64}


def test_one_call_alone_is_sent_at_once() -> None:
    host = Host()
    assert Packer(host, Limits()).run(trace_sum, torch.ones(2), 1.0) == 3.0
    assert host.sizes == [1]


def test_the_same_work_makes_the_same_jobs() -> None:
    def jobs() -> list[list[float]]:
        host = Host()
        ask(Packer(host, Limits(jobs=1, calls=7, first=3)), 40)
        return [[call.arguments[1] for call in job] for job in host.jobs]

    assert jobs() == jobs()


def test_jobs_are_short_and_little_comes_back_at_once() -> None:
    host = Host(seconds=10)
    ask(Packer(host, Limits(jobs=1, calls=10, first=2, seconds=35)), 20)
    assert max(host.sizes) == 3


def test_what_is_equal_travels_once() -> None:
    shared = SharedValues()
    first, second = ({"ids": torch.arange(100), "edits": [(0, "ffn", torch.tensor([1]))]} for _ in range(2))
    one, other = shared.share(first), shared.share(second)
    assert one[0] is other[0]
    assert one[1] == other[1]
    assert shared.size == 808
    assert shared.share({"ids": torch.arange(100).float()})[1] != shared.share({"ids": torch.arange(100)})[1]
    assert shared.share([1])[1] != shared.share([True])[1] != shared.share((1,))[1]
    assert shared.share(["ab", "c"])[1] != shared.share(["a", "bc"])[1]
    strange = [
        torch.tensor(1.5),
        torch.zeros(0),
        torch.ones(2, dtype=torch.bfloat16),
        None,
        float("nan"),
        {(0, "q"): 1},
    ]
    assert shared.share(strange)[0] is shared.share([*strange])[0]


def test_a_packed_job_is_no_larger_than_it_may_be() -> None:
    host = Host()
    packer = Packer(host, Limits(jobs=1, calls=8, first=8))
    values = [torch.full((1_500_000,), float(number)) for number in range(6)]  # 6 MB each
    list(packer.together(lambda one=one: packer.run(trace_most, one) for one in values))
    assert max(host.sizes) == 2
    assert sum(host.sizes) == 6


@pytest.mark.parametrize("first", [HostTimeoutError("too long", ""), JobFailedError("a bad block", "")])
def test_the_error_of_one_call_is_its_own(first: RemoteError) -> None:
    host = Host(fails=lambda calls: first if any(call.arguments[1] == 5.0 for call in calls) else None)
    packer, found = Packer(host, Limits(jobs=1, calls=8)), {}

    def one(number: int) -> None:
        try:
            found[number] = packer.run(trace_sum, torch.ones(3), float(number))
        except (MemoryError, RemoteError) as error:
            found[number] = error

    list(packer.together([lambda number=number: one(number) for number in range(8)]))
    kind = MemoryError if isinstance(first, HostTimeoutError) else JobFailedError
    assert isinstance(found.pop(5), kind)
    assert found == {number: 3.0 + number for number in (0, 1, 2, 3, 4, 6, 7)}
    assert len(host.jobs) <= 8


def test_a_host_out_of_memory_is_an_out_of_memory_of_its_caller() -> None:
    host = Host(fails=lambda calls: HostMemoryError("The host's memory does not suffice.", ""))
    packer = Packer(host, Limits())
    with pytest.raises(OutOfMemory, match="host's memory"), memory_errors(8, "The memory does not hold 8", "Fewer."):
        packer.run(trace_sum, torch.ones(3), 1.0)


def test_a_host_that_is_gone_ends_the_work_with_its_error() -> None:
    host = Host(fails=lambda calls: RemoteError("It cannot be reached.", "") if len(host.jobs) > 2 else None)
    packer = Packer(host, Limits(jobs=1, calls=4, first=2))
    with pytest.raises(RemoteError, match="reached"):
        ask(packer, 1000)
    assert len(host.jobs) <= 4, "nothing more was sent"


def test_ctrl_c_ends_waiting_and_the_next_question_is_answered() -> None:
    sent, release = threading.Event(), threading.Event()

    def slow(number: int, calls: Sequence[Call]) -> list[Answer]:
        sent.set()
        while not release.wait(0.01):
            if packer.stop.is_set():
                raise StoppedWaiting("the job's id")
        return [Answer(seconds=0, value=1) for _ in calls]

    packer = Packer(slow, Limits(jobs=1, calls=2))
    original = threading.Event.wait

    class Interrupting(threading.Event):
        """Its first wait ends as one that Ctrl-C ends."""

        def wait(self, timeout: float | None = None) -> bool:
            original(sent)
            if not packer.stop.is_set():
                raise KeyboardInterrupt
            return original(self, timeout)

    group = packer.turns.together([lambda: packer.run(trace_sum, torch.ones(1), 0.0)] * 6, 6)
    until = packer.turns._until_one_ends

    def interrupted(group: Any, seconds: float | None = None) -> None:
        group.ended = Interrupting()
        packer.turns.wait(group.ended, seconds)

    packer.turns._until_one_ends = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        list(group)
    packer.turns._until_one_ends = until  # type: ignore[method-assign]
    assert not packer.under_way
    assert packer.tally.jobs == 1
    release.set()
    assert packer.run(trace_sum, torch.ones(1), 0.0) == 1
