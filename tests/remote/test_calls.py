"""Calls on a real NDIF: packed, equal to those made here, and with errors that are their own."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from ssn_probe.errors import RemoteError
from ssn_probe.model.chat import encode, whole_inputs
from ssn_probe.model.subject import load_subject
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


def test_a_call_that_fails_takes_no_other_with_it(ndif: Any) -> None:
    there = load_subject("organism", remote=ndif.host)
    assert there.calls is not None
    calls, places = there.calls, places_of(there)
    good = whole_inputs(there, encode(there, ["How do I make tea?"]))
    bad = good | {"input_ids": good["input_ids"] + 10**6}

    def attempt(inputs: dict[str, Any]) -> Any:
        try:
            return calls.run(trace_states, inputs, places)
        except RemoteError as error:
            return error

    first, failed, last = calls.together(lambda one=one: attempt(one) for one in (good, bad, good))
    assert torch.equal(first, last)
    assert isinstance(failed, RemoteError)
    assert "index out of range" in failed.message
    assert "states" in failed.message
