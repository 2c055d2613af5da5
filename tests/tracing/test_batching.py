"""Batches cover every prompt once, longest first; where memory runs out they shrink, and no prompt is dropped."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssn_probe.errors import ModelError
from ssn_probe.model.out_of_memory import out_of_memory
from ssn_probe.tracing.batching import (
    BatchSize,
    Memory,
    by_length,
    covered,
    fitted,
    gather,
    no_progress,
    run_batches,
)

LENGTHS = st.lists(st.integers(1, 9), max_size=30)


@pytest.fixture(autouse=True, scope="module")
def nothing_to_release() -> Iterator[None]:
    """Collecting garbage takes long beside so many tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssn_probe.model.out_of_memory.release_memory", lambda: None)
        yield


class Machine:
    """Doubles row numbers, `room` sequences at a time; notes what ran."""

    def __init__(self, room: int = 10**6, error: Exception | None = None):
        self.room, self.ran = room, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def __call__(self, rows: list[int]) -> Mapping[str, torch.Tensor]:
        if len(rows) > self.room:
            raise self.error
        self.ran.append(list(rows))
        return {"twice": torch.tensor(rows) * 2}


def run(lengths: Sequence[int], size: int | BatchSize, machine: Machine, shelf: Memory, **options: int) -> list[int]:
    done: list[int] = []
    run_batches([[0] * length for length in lengths], size, machine, shelf, done.append, **options)
    assert sum(done) == len(lengths)
    return gather(shelf.parts(), "twice", torch.zeros(len(lengths), dtype=torch.int64)).tolist()


@given(LENGTHS, st.integers(1, 7))
def test_every_row_is_in_one_batch_and_lengths_fall(lengths: list[int], size: int) -> None:
    machine, shelf = Machine(), Memory()
    assert run(lengths, size, machine, shelf) == [2 * row for row in range(len(lengths))]
    order = [row for batch in machine.ran for row in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert all(0 < len(batch) <= size for batch in machine.ran)
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)
    assert order == by_length([[0] * length for length in lengths])


@given(LENGTHS, st.integers(1, 7), st.integers(0, 12))
def test_what_is_on_the_shelf_is_not_run_and_the_other_batches_stay_as_they_were(
    lengths: list[int], size: int, stop: int
) -> None:
    """A run that was stopped after some batches runs exactly those that are missing."""
    whole = Machine()
    run(lengths, size, whole, Memory())
    shelf = Memory()
    for rows in whole.ran[:stop]:
        shelf.put(rows, {"twice": torch.tensor(rows) * 2})
    rest = Machine()
    assert run(lengths, size, rest, shelf) == [2 * row for row in range(len(lengths))]
    assert rest.ran == whole.ran[stop:]


@given(LENGTHS.filter(bool), st.integers(1, 5), st.integers(1, 4))
def test_an_automatic_size_halves_and_drops_nothing(lengths: list[int], room: int, sequences: int) -> None:
    size, machine, shelf = BatchSize(16, auto=True), Machine(room), Memory()
    assert run(lengths, size, machine, shelf, sequences=sequences) == [2 * row for row in range(len(lengths))]
    assert covered(shelf, len(lengths))
    assert max(map(len, machine.ran)) <= room
    assert size.size // sequences <= room or size.size == 16, "what fitted is kept for the batches to come"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_memory_runs_out_in_many_words(error: Exception) -> None:
    assert out_of_memory(error)
    wrapped = ValueError("in a trace")
    wrapped.__cause__ = error
    assert out_of_memory(wrapped)
    assert run([1] * 8, BatchSize(8, auto=True), Machine(2, error), Memory()) == [2 * row for row in range(8)]


def test_other_errors_are_not_taken_for_it() -> None:
    assert not out_of_memory(ValueError("the memory of elephants"))
    with pytest.raises(ValueError, match="elephants"):
        run([1] * 8, BatchSize(8, auto=True), Machine(2, ValueError("elephants")), Memory())


@pytest.mark.parametrize(
    ("size", "room", "message", "hint"),
    [
        (8, 2, "does not hold a batch of 8: CUDA out of memory", "--batch-size auto"),
        (BatchSize(4, auto=True), 0, "does not hold a single sequence", "--dtype bfloat16"),
    ],
    ids=["a size that was asked for", "one prompt"],
)
def test_what_does_not_fit_is_one_error(size: int | BatchSize, room: int, message: str, hint: str) -> None:
    shelf = Memory()
    with pytest.raises(ModelError, match=message) as caught:
        run([1] * 8, size, Machine(room), shelf)
    assert hint in (caught.value.hint or "")
    assert shelf.parts() == []


def test_the_batch_that_failed_is_let_go_before_the_next_is_tried() -> None:
    """Its activations would keep the memory taken: nothing may hold the exception when half the size is tried."""
    import sys

    handled = []

    def attempt(size: int) -> int:
        handled.append(sys.exc_info()[1])
        if size > 1:
            raise torch.OutOfMemoryError("out of memory")
        return size

    assert fitted(BatchSize(4, auto=True), attempt) == 1
    assert handled == [None, None, None]


@pytest.mark.parametrize(
    ("options", "seconds", "expected"),
    [((True, True), 10.0, 60), ((True, True), 4.9, 200), ((True, True), 2000.0, 1), ((True, False), 10.0, 200)],
)
def test_a_slow_machine_has_batches_of_half_a_minute(options: tuple[bool, bool], seconds: float, expected: int) -> None:
    """A batch of 20 that takes so long; the rest runs in batches of the new size, and none is left out."""
    now = iter(range(10**6))
    machine, shelf, size = Machine(), Memory(), BatchSize(200, *options, clock=lambda: next(now) * seconds)
    run_batches([[1]] * 20, size, machine, shelf, no_progress)
    assert size.size == expected
    rest, size.clock = Memory(), lambda: 0.0
    run_batches([[1]] * 100, size, machine, rest, no_progress)
    assert covered(rest, 100)
    assert max(len(part.rows) for part in rest.parts()) == min(expected, 100)


def test_attempts_that_did_not_fit_are_no_part_of_what_a_batch_takes() -> None:
    """Else the batches to come would shrink twice: to what fits, and as if that took as long as what did not."""
    now, shelf = [0.0], Memory()

    def run(rows: list[int]) -> Mapping[str, torch.Tensor]:
        if len(rows) > 4:
            now[0] += 100
            raise MemoryError
        now[0] += 6
        return {"twice": torch.tensor(rows) * 2}

    size = BatchSize(16, auto=True, timed=True, clock=lambda: now[0])
    run_batches([[1]] * 16, size, run, shelf, no_progress)
    assert [len(part.rows) for part in shelf.parts()] == [4] * 4


def test_a_given_size_is_kept_however_long_it_takes() -> None:
    size = BatchSize(200, auto=False, timed=True)
    size.took(20, 1000.0)
    assert size.size == 200


def test_what_another_thread_found_to_fit_is_not_tried_with_more() -> None:
    size, tried = BatchSize(16, auto=True), []

    def attempt(together: int) -> int:
        tried.append(together)
        if together == 16:
            size.size = 2  # meanwhile
            raise MemoryError
        return together

    assert fitted(size, attempt) == 2
    assert (tried, size.size) == ([16, 2], 2)
