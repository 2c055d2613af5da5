"""Calls on a real NDIF: packed, equal to those made here, and with errors that are their own."""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import odd_bodies
import pytest
import torch

from ssn_probe.errors import RemoteError
from ssn_probe.model.chat import encode, whole_inputs
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.remote.journal import Journal
from ssn_probe.remote.packed import attempted
from ssn_probe.remote.turns import Cancelled
from ssn_probe.tracing.bodies.refusal import trace_states
from ssn_probe.tracing.edits import places_of

pytestmark = pytest.mark.ndif


def test_packed_calls_equal_those_made_here(ndif: Any) -> None:
    there, here = load_subject("organism", remote=ndif.host), load_subject("organism")
    assert there.calls is not None
    calls, places = there.calls, places_of(there)
    texts = [f"How do I make {thing}?" for thing in ("bread", "tea", "a kite", "soap", "a chair", "ink")]
    inputs = [whole_inputs(there, encode(there, [text])) for text in texts]
    with ThreadPoolExecutor(3) as pool:  # threads that nobody gave a turn
        outside = list(pool.map(lambda one: calls.run(trace_states, one, places), inputs[:3]))
    found = list(calls.together(lambda one=one: calls.run(trace_states, one, places) for one in inputs * 10))
    for one, packed in zip(inputs * 10, found, strict=True):
        assert torch.equal(packed, trace_states(here.model, one, places))
    assert all(torch.equal(one, other) for one, other in zip(outside, found, strict=False))
    told = calls.tally.to_json()
    assert told["kinds"]["states"]["calls"] == 63
    assert told["jobs"] <= 5
    assert told["sent"] > 0
    assert told["received"] > 0
    assert not calls.under_way


def test_a_large_job_arrives(ndif: Any) -> None:
    """A server keeps a body of more than a megabyte on its disk."""
    there, here = load_subject("organism", remote=ndif.host), load_subject("organism")
    assert there.calls is not None
    inputs = whole_inputs(there, encode(there, ["How do I make tea?"]))
    noise = torch.rand(1_000_000, generator=torch.Generator().manual_seed(1))
    found = there.calls.run(trace_states, inputs, places_of(there) | {"noise": noise})
    assert torch.equal(found, trace_states(here.model, inputs, places_of(here)))
    assert there.calls.tally.sent > 3_000_000


@pytest.mark.parametrize("sandbox", [False, True])
def test_a_call_that_fails_takes_no_other_with_it(ndif: Any, sandbox: bool) -> None:
    """Also where the error is raised in the middle of a forward pass, the other half of which is another process."""
    there = load_subject("organism", remote=ndif.host)
    assert there.calls is not None
    calls = there.calls

    def attempt(body: Callable[..., Any]) -> Any:
        try:
            return calls.run(body)
        except RemoteError as error:
            return error

    with ndif.untrusted(outline=False) if sandbox else nullcontext():
        bodies = (odd_bodies.logits, odd_bodies.failing, odd_bodies.logits)
        first, failed, last = calls.together(partial(attempt, body) for body in bodies)
    assert torch.equal(first, last)
    assert isinstance(failed, RemoteError)
    assert "shape '[7, 11, 13]' is invalid" in failed.message


@pytest.mark.parametrize("module", [None, torch.nn.Linear(2, 2, device="meta")])
def test_an_error_in_a_sandbox_is_not_caught(module: torch.nn.Module | None) -> None:
    """The host, in the middle of its forward pass, would wait for the rest of the trace."""

    def body(_model: Any) -> None:
        raise ValueError("a bad block")

    with pytest.raises(ValueError, match="a bad block"):
        attempted(body, SimpleNamespace(_module=module), ())
    assert attempted(body, SimpleNamespace(_module=torch.nn.Linear(2, 2)), ())[1:] == (None, "ValueError: a bad block")


def test_a_call_that_the_memory_does_not_suffice_for(ndif: Any) -> None:
    there = load_subject("organism", remote=ndif.host)
    assert there.calls is not None
    with pytest.raises(MemoryError, match="can't allocate memory"):
        there.calls.run(odd_bodies.too_large)


def test_jobs_that_ctrl_c_left_at_the_host_are_taken_up_by_the_same_calls(ndif: Any, tmp_path: Path) -> None:
    def ask(subject: Subject) -> list[torch.Tensor]:
        assert subject.calls is not None
        subject.calls.journal = Journal(folder=tmp_path / "jobs")
        run = partial(subject.calls.run, trace_states)
        return list(subject.calls.together(partial(run, one, places_of(subject)) for one in inputs))

    first, again, here = (load_subject("organism", remote=remote) for remote in (ndif.host, ndif.host, False))
    assert first.calls is not None
    assert again.calls is not None
    inputs = [whole_inputs(here, encode(here, [f"How do I make {number} cakes?"])) for number in range(20)]

    told: list[str] = []
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(text: str) -> None:
        told.append(text)
        if len(told) == 1:
            signal.pthread_kill(main, signal.SIGINT)  # it may be waiting for a lock
            time.sleep(2)  # the job is not looked at meanwhile

    first.calls.tell = interrupt
    with pytest.raises(KeyboardInterrupt):
        ask(first)
    assert len(first.calls.tally.left) == 1
    assert first.calls.tally.done == 0
    found = ask(again)
    assert again.calls.tally.taken_up == 1
    for one, value in zip(inputs, found, strict=True):
        assert torch.equal(value, trace_states(here.model, one, places_of(here)))
    assert not Journal(folder=tmp_path / "jobs").jobs()


def test_a_job_of_many_calls_is_taken_up_whole_though_a_new_run_would_begin_with_fewer(
    ndif: Any, tmp_path: Path
) -> None:
    """The first job of a kind has few calls, as long as nobody knows how long they take; what it gave is kept."""

    def ask(subject: Subject, texts: list[Any]) -> list[torch.Tensor]:
        assert subject.calls is not None
        subject.calls.journal = Journal(folder=tmp_path / "jobs")
        run = partial(subject.calls.run, trace_states)
        return list(subject.calls.together(partial(run, one, places_of(subject)) for one in texts))

    first, again = (load_subject("organism", remote=ndif.host) for _ in range(2))
    assert first.calls is not None
    assert again.calls is not None
    calls = first.calls
    inputs = [whole_inputs(first, [[1, 4, 100 + number, 5]]) for number in range(20)]

    def interrupt(_text: str) -> None:
        if calls.tally.jobs == 2:
            calls.stop.set()
            time.sleep(0.5)  # the job is not looked at meanwhile

    calls.tell = interrupt
    with pytest.raises(Cancelled):
        ask(first, inputs)
    assert (calls.tally.jobs, calls.tally.calls) == (2, {"states": 8})
    here = [trace_states(load_subject("organism").model, one, places_of(first)) for one in inputs]
    for one, value in zip(here[8:], ask(again, inputs[8:]), strict=True):
        assert torch.equal(one, value)
    assert (again.calls.tally.jobs, again.calls.tally.taken_up) == (1, 1)
    assert not Journal(folder=tmp_path / "jobs").jobs()
