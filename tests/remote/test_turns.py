"""One thread at a time, in turn; and what happens when one fails."""

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import pytest

from ssn_probe.remote import turns
from ssn_probe.remote.turns import Cancelled, Turns


class Later:
    """Wakes its tickets, in order, whenever every thread waits."""

    def __init__(self) -> None:
        self.turns = Turns(idle=self.answer)
        self.tickets: list[threading.Event] = []
        self.idle = 0

    def answer(self) -> None:
        self.idle += 1
        tickets, self.tickets = self.tickets, []
        for ticket in tickets:
            self.turns.wake(ticket)

    def wait(self) -> None:
        self.tickets.append(ticket := threading.Event())
        self.turns.wait(ticket)


def test_all_begin_before_one_is_answered_and_results_come_in_order() -> None:
    later, seen = Later(), []

    def work(number: int) -> int:
        seen.append(("begins", number))
        later.wait()
        seen.append(("ends", number))
        return number * number

    found = list(later.turns.together([lambda number=number: work(number) for number in range(5)], most=10))
    assert found == [0, 1, 4, 9, 16]
    assert seen == [("begins", number) for number in range(5)] + [("ends", number) for number in range(5)]


def test_no_more_than_so_many_are_under_way() -> None:
    later, now, most = Later(), [0], [0]

    def work() -> None:
        now[0] += 1
        most[0] = max(most[0], now[0])
        later.wait()
        now[0] -= 1

    list(later.turns.together([work] * 9, most=4))
    assert most == [4]


def test_only_one_thread_runs_at_a_time() -> None:
    later, inside = Later(), [0]

    def work() -> None:
        for _ in range(20):
            inside[0] += 1
            assert inside[0] == 1
            threading.Event().wait(0.0001)
            inside[0] -= 1
            later.wait()

    list(later.turns.together([work] * 8, most=8))


def test_the_error_of_one_is_raised_and_the_others_are_not_begun() -> None:
    later, begun = Later(), []

    def work(number: int) -> None:
        begun.append(number)
        later.wait()
        if number == 2:
            raise ValueError("the third")

    with pytest.raises(ValueError, match="the third"):
        list(later.turns.together((lambda number=number: work(number) for number in range(100)), most=4))
    assert begun[:4] == [0, 1, 2, 3]
    assert len(begun) < 8


def test_those_that_were_cancelled_do_not_hide_the_error() -> None:
    later = Later()

    def work(number: int) -> None:
        later.wait()
        if number == 3:
            raise ValueError("the last")
        if number == 0:
            later.wait()
            raise Cancelled

    with pytest.raises(ValueError, match="the last"):
        list(later.turns.together([lambda number=number: work(number) for number in range(4)], most=4))


def test_work_within_work() -> None:
    later = Later()

    def inner(number: int) -> int:
        later.wait()
        return number

    def outer(number: int) -> int:
        return sum(later.turns.together([lambda add=add: inner(number + add) for add in range(3)], most=3))

    found = list(later.turns.together([lambda number=number: outer(number) for number in (0, 10, 20)], most=3))
    assert found == [3, 33, 63]
    assert later.idle <= 4, "the inner work of all is asked for at once"


def test_alone_with_a_key() -> None:
    later, computed, memory = Later(), [], {}

    def work(key: str) -> str:
        with later.turns.alone(key):
            if key not in memory:
                computed.append(key)
                later.wait()
                memory[key] = key.upper()
            return memory[key]

    found = list(later.turns.together([lambda key=key: work(key) for key in "abaab"], most=5))
    assert found == ["A", "B", "A", "A", "B"]
    assert computed == ["a", "b"]


def test_a_pause_lets_others_run() -> None:
    later, seen = Later(), []

    def polls() -> None:
        while "done" not in seen:
            later.turns.pause(0.001)
        seen.append("seen")

    def works() -> None:
        later.wait()
        seen.append("done")

    list(later.turns.together([polls, works], most=2))
    assert seen == ["done", "seen"]


@pytest.mark.parametrize("is_told", [True, False])
def test_ctrl_c_between_two_waits_ends_all_whatever_was_lost(is_told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had a ticket in hand when it came never wakes it."""
    monkeypatch.setattr(turns, "GRACE", 0.1)
    lost, ended, raised = threading.Event(), [], []

    def waits() -> None:
        asked.wait(lost)
        ended.append("woken")

    def work() -> Iterator[Callable[[], None]]:
        yield waits
        raise KeyboardInterrupt

    def interrupted() -> None:
        ended.append("interrupted")
        if is_told:
            asked.wake(lost)

    def run() -> None:
        try:
            list(asked.together(work(), most=2))
        except KeyboardInterrupt:
            raised.append(True)

    asked = Turns(interrupted=interrupted)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert raised == [True]
    assert ended == ["interrupted", *["woken"] * is_told]


def test_who_is_interrupted_in_a_pause_goes_on_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    later, inside = Later(), threading.Lock()

    def ctrl_c(_seconds: float) -> None:
        threading.Event().wait(0.05)
        raise KeyboardInterrupt

    def works() -> None:
        for _ in range(20):
            with inside:
                threading.Event().wait(0.01)
            later.wait()

    def pauses() -> None:
        with pytest.raises(KeyboardInterrupt):
            later.turns.pause()
        assert inside.acquire(blocking=False), "another thread has its turn"
        inside.release()

    monkeypatch.setattr(turns.time, "sleep", ctrl_c)
    list(later.turns.together([pauses, works, works], most=3))


def test_a_thread_that_belongs_to_no_group_has_its_turn() -> None:
    later, found = Later(), []

    def ask() -> None:
        with later.turns.taken():
            later.wait()
            found.append(1)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 10


def test_a_thread_that_would_wait_does_something_else_as_long_as_nobody_can_go_on() -> None:
    waiting, seen = [threading.Event(), threading.Event()], []
    tickets = list(waiting)

    def otherwise() -> bool:
        seen.append(len(tickets))
        if tickets:
            found.wake(tickets.pop())
        return bool(tickets)

    found = Turns(otherwise=otherwise)

    def wait(ticket: threading.Event) -> bool:
        found.wait(ticket)
        return ticket.is_set()

    assert list(found.together([lambda one=one: wait(one) for one in waiting], 2)) == [True, True]
    assert seen[:2] == [2, 1]


def test_a_thread_does_one_task_after_the_other_and_ends_with_the_last() -> None:
    later, threads = Later(), set()

    def work() -> None:
        threads.add(threading.current_thread())
        later.wait()

    list(later.turns.together([work] * 40, most=3))
    assert len(threads) <= 4  # the next task may begin before the thread of the one that ends is free
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("fails", [True, False])
def test_threads_of_work_within_work_end_too(fails: bool) -> None:
    later, threads = Later(), set()

    def inner() -> None:
        threads.add(threading.current_thread())
        later.wait()

    def outer(number: int) -> None:
        inner()
        list(later.turns.together([inner] * 3, most=2))
        if fails and number == 2:
            raise ValueError("the third")

    with pytest.raises(ValueError, match="third") if fails else nullcontext():
        list(later.turns.together([partial(outer, number) for number in range(6)], most=2))
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
