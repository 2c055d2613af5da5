"""Threads that wait for a host most of the time, and of which one runs at a time, in turn.

So nothing but the waiting happens at the same time: what the threads share needs no locks, and they ask in the same
order in every run. The moment at which all of them wait is known, too: nobody will ask for more until an answer comes.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
LOOKING = 0.2
"""Seconds after which the main thread looks whether Ctrl-C has come."""
GRACE = 5.0
"""Seconds that an interrupted run waits for its threads."""


class Cancelled(BaseException):
    """Other work of the same group has failed, or the run was interrupted: nothing more is asked for."""


@dataclass(eq=False)
class Group:
    """Work that is done together; `parent` is the group of the thread that does it. A failed group asks no more."""

    parent: "Group | None" = None
    failed: bool = False
    running: int = 0
    ended: threading.Event | None = None
    """What the owner waits for."""

    @property
    def is_over(self) -> bool:
        return self.failed or (self.parent is not None and self.parent.is_over)


@dataclass(eq=False)
class Task:
    """A piece of work of a group, and what it gave."""

    work: Callable[[], Any]
    group: Group
    done: bool = False
    value: Any = None
    error: BaseException | None = None


Following = SimpleQueue[tuple[Task, threading.Event] | None]
"""What a thread does next: a task with the ticket to wait for, or None to end."""


@dataclass(eq=False)
class Turns:
    """`idle` is called when every thread waits; `interrupted` when the thread that waits for all gets Ctrl-C.

    `otherwise` is called before, as long as no thread has anything to do and it returns that it has done something.
    """

    idle: Callable[[], None] = lambda: None
    otherwise: Callable[[], bool] = lambda: False
    interrupted: Callable[[], None] = lambda: None
    mutex: threading.Lock = field(default_factory=threading.Lock)
    ready: deque[threading.Event] = field(default_factory=deque)
    taken_now: bool = False
    abandoned: bool = False
    """Ctrl-C has come, and some thread did not stop in time."""
    held: dict[Hashable, list[threading.Event]] = field(default_factory=dict)
    free: list[Following] = field(default_factory=list)
    """Of threads that have no task."""
    local: threading.local = field(default_factory=threading.local)

    @property
    def group(self) -> Group | None:
        """What the current thread works for."""
        return getattr(self.local, "group", None)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, it is this thread's turn but for its waits."""
        if getattr(self.local, "mine", False):
            yield
            return
        ticket = threading.Event()
        self.wake(ticket)
        ticket.wait()
        self.local.mine = True
        try:
            yield
        finally:
            self.local.mine = False
            self._next()

    def wake(self, *tickets: threading.Event) -> None:
        """Those who wait for the tickets are next in line, together. Any thread may do this."""
        with self.mutex:
            self.ready.extend(tickets)
            if self.taken_now or not self.ready:
                return
            self.taken_now, first = True, self.ready.popleft()
        first.set()

    def _next(self) -> None:
        while not self.ready and self.otherwise():
            pass
        with self.mutex:
            ticket = self.ready.popleft() if self.ready else None
            self.taken_now = ticket is not None
        if ticket is None:
            self.idle()
        else:
            ticket.set()

    def wait(self, ticket: threading.Event, seconds: float | None = None) -> None:
        """Lets others run until somebody wakes the ticket. Who has not done so after so many seconds never will."""
        self._next()
        try:
            if seconds is not None:
                self.abandoned = not ticket.wait(seconds)
                return
            # a wait without an end cannot be interrupted on Windows
            while not ticket.wait(LOOKING if threading.current_thread() is threading.main_thread() else None):
                pass
        except BaseException:
            self.interrupted()
            self.abandoned = not ticket.wait(GRACE)
            raise

    def pause(self, seconds: float = 0.2) -> None:
        """Lets others run for a while: for what no ticket tells of."""
        with self.taken():
            self._next()
            try:
                time.sleep(seconds)
            finally:  # whoever is interrupted, too, goes on in turn
                ticket = threading.Event()
                self.wake(ticket)
                ticket.wait()

    @contextmanager
    def alone(self, key: Hashable) -> Iterator[None]:
        """Inside, no other thread is inside with the same key."""
        with self.taken():
            while key in self.held:
                self.held[key].append(ticket := threading.Event())
                self.wait(ticket)
            self.held[key] = []
            try:
                yield
            finally:
                for ticket in self.held.pop(key):
                    self.wake(ticket)

    def together(self, work: Iterable[Callable[[], T]], most: int) -> Iterator[T]:
        """What each gives, in order; at most so many are under way. Where one fails, none begins, and it is raised.

        A thread that has done its task takes another one, as long as some work is done together: in a thread that has
        just begun, tables and tensors take several times as long.
        """
        group, left, tasks = Group(self.group), iter(work), deque[Task]()
        more, patience = True, None
        with self.taken():
            try:
                while True:
                    while more and group.running < most and not group.is_over:
                        one = next(left, None)
                        more = one is not None
                        if one is not None:
                            tasks.append(self._start(one, group))
                    if not tasks:
                        return
                    if not tasks[0].done:
                        self._until_one_ends(group)
                        continue
                    if tasks[0].error is not None:
                        self._end(group)
                        errors = [task.error for task in tasks if task.error is not None]
                        raise next((one for one in errors if not isinstance(one, Cancelled)), errors[0])
                    yield tasks.popleft().value
            except KeyboardInterrupt:
                # it comes anywhere: a ticket may have been on its way, or a call, which nobody has now
                patience = GRACE
                self.interrupted()
                raise
            finally:
                self._end(group, patience)
                if group.parent is None:
                    self._let_go()

    def _let_go(self) -> None:
        """Threads without a task end."""
        while self.free:
            self.free.pop().put(None)

    def _end(self, group: Group, seconds: float | None = None) -> None:
        """Nothing more of the group is asked for; what is under way ends, or has so many seconds for each."""
        group.failed = True
        while group.running and not self.abandoned:
            self._until_one_ends(group, seconds)

    def _until_one_ends(self, group: Group, seconds: float | None = None) -> None:
        group.ended = threading.Event()
        self.wait(group.ended, seconds)

    def _start(self, work: Callable[[], Any], group: Group) -> Task:
        task, ticket = Task(work, group), threading.Event()
        group.running += 1
        if self.free:
            self.free.pop().put((task, ticket))
        else:
            threading.Thread(target=self._serve, args=(task, ticket), daemon=True).start()
        self.wake(ticket)
        return task

    def _serve(self, task: Task, ticket: threading.Event) -> None:
        """What a thread does: one task after the other, until it is let go or its group is over."""
        tasks: Following = SimpleQueue()
        following: tuple[Task, threading.Event] | None = task, ticket
        while following is not None:
            goes_on = self._run(*following, tasks)
            following = None  # nothing keeps what the task gave
            following = tasks.get() if goes_on else None

    def _run(self, task: Task, ticket: threading.Event, tasks: Following) -> bool:
        """Does a task; will there be another one in `tasks`?"""
        ticket.wait()
        self.local.mine, self.local.group = True, task.group
        try:
            task.value = task.work()
        except BaseException as error:
            task.error = error
            if not isinstance(error, Cancelled):
                task.group.failed = True
        if goes_on := not task.group.is_over:
            self.free.append(tasks)
        task.done = True
        task.group.running -= 1
        if task.group.ended is not None:
            self.wake(task.group.ended)
            task.group.ended = None
        self._next()
        self.local.mine, self.local.group = False, None
        return goes_on
