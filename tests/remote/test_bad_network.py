"""A real NDIF behind a network that misbehaves: what the server, its queue and its object store really answer."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nnsight
import pytest
import torch
from bad_network import KEY, Network, bad_network, cut, drop, lose, passed_on, says
from light_ndif import LightNDIF
from nnsight.intervention.backends.remote import RemoteBackend
from nnsight.schema.request import RequestModel
from odd_bodies import endless, failing, logits, no_tensor, too_large, unhurried

from ssn_probe.errors import RemoteError
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.remote import transport
from ssn_probe.remote.connection import Clock
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_errors import HostMemoryError, HostTimeoutError, StoppedWaiting
from ssn_probe.remote.journal import Journal
from ssn_probe.remote.transport import Finished, JobState, run_job

pytestmark = pytest.mark.ndif


class Hasty(Clock):
    """Waits shortly, however long it is told to."""

    def wait(self, seconds: float) -> None:
        super().wait(min(seconds, 0.05))


class Payload(RemoteBackend):
    """Keeps what would be sent."""

    def __call__(self, tracer: Any = None) -> None:
        self.payload = RequestModel.serialize(tracer, True)


def payload(subject: Subject, body: Callable[[Any], Any]) -> bytes:
    model, backend = subject.model, Payload("a model", host="http://127.0.0.1")
    with model.session(backend=backend):
        results = nnsight.save([])
        results.append(body(model))
    return backend.payload


@pytest.fixture(scope="module")
def subject(ndif: LightNDIF) -> Subject:
    return load_subject("organism", remote=ndif.host)


@pytest.fixture
def network(ndif: LightNDIF) -> Iterator[Network]:
    """The server, and its object store, both through a network."""
    stores: dict[str, Any] = {}

    def upstream(asked: Any) -> Any:
        if asked.path.startswith("/store-at/"):
            _, _, address, path = asked.path.split("/", 3)
            return stores[address](replace(asked, path=f"/{path}"))
        answer = passed_on(ndif.host)(asked)
        for address in {part.split(b"/")[0].decode() for part in answer.body.split(b'"data":"http://')[1:]}:
            stores[address] = passed_on(f"http://{address}")
            here = f"{network.url}/store-at/{address}"
            answer.body = answer.body.replace(f'"data":"http://{address}'.encode(), f'"data":"{here}'.encode())
        return answer

    with bad_network(upstream) as network:
        yield network


def run(network: Network, subject: Subject, body: Callable[[Any], Any] = logits, **given: Any) -> Finished:
    assert subject.calls is not None
    key = subject.calls.deployment.key
    return run_job(Host(network.url, KEY), key, payload(subject, body), **given)


def same(found: Finished) -> bool:
    local = load_subject("organism")
    with torch.no_grad():
        return torch.equal(found.values["results"][0], logits(local.model))


def test_a_network_that_fails_now_and_then(network: Network, subject: Subject) -> None:
    network.faults |= {
        "POST /request": [drop, says(429, "Slow down.", Retry_After="5"), lose],
        "GET /response": [cut, says(503, "compute backend is reconnecting"), drop],
        "GET /store-at": [cut, drop, says(500)],
    }
    states: list[JobState] = []
    found = run(network, subject, clock=Hasty(), watch=states.append)
    assert same(found)
    assert not any(network.faults.values())
    assert {"received", "retrying", "completed"} <= {one.status for one in states}
    assert 0 < found.received < 100_000
    assert found.runtime


def test_the_key_goes_to_the_api_alone(network: Network, subject: Subject) -> None:
    run(network, subject)
    keys = {(one.path.split("/")[1], one.headers.get("ndif-api-key")) for one in network.asked}
    assert keys == {("request", KEY), ("response", KEY), ("store-at", None)}


def test_a_job_that_fails_there_shows_where(network: Network, subject: Subject) -> None:
    with pytest.raises(
        RemoteError, match=r"failed on the host: RuntimeError: shape '\[7, 11, 13\]' is invalid"
    ) as caught:
        run(network, subject, failing)
    assert "in failing" in str(caught.value.hint)
    with pytest.raises(HostMemoryError, match="memory does not suffice"):
        run(network, subject, too_large)
    with pytest.raises(RemoteError, match="cannot be read: UnpicklingError"):
        run(network, subject, no_tensor)


@pytest.mark.slow
def test_a_job_in_the_sandbox(ndif: LightNDIF, network: Network, subject: Subject) -> None:
    with ndif.untrusted():
        assert same(run(network, subject))
        with pytest.raises(RemoteError, match=r"on the host: RuntimeError: shape '\[7, 11, 13\]' is invalid"):
            run(network, subject, failing)


def test_a_model_that_is_not_there(network: Network, subject: Subject) -> None:
    with pytest.raises(RemoteError, match="Could not deploy") as caught:
        run_job(Host(network.url), 'nnsight.modeling.transformers.TransformersModel:{"repo_id": "no/model"}', b"")
    assert "models --remote" in str(caught.value.hint)


def test_a_payload_that_arrives_damaged_is_sent_again_and_given_up(network: Network, subject: Subject) -> None:
    assert subject.calls is not None
    with pytest.raises(RemoteError, match="payload could not be read"):
        run_job(Host(network.url), subject.calls.deployment.key, b"no block", clock=Hasty())
    assert network.count("POST") > 1


def test_a_job_that_takes_too_long(ndif: LightNDIF, network: Network, subject: Subject) -> None:
    with ndif.timeout(0.3), pytest.raises(HostTimeoutError, match=r"execution timeout of 0\.3s") as caught:
        run(network, subject, endless)
    assert "smaller batch" in str(caught.value.hint)


def test_a_job_that_was_left_is_taken_up(network: Network, subject: Subject, tmp_path: Path) -> None:
    stop, journal = threading.Event(), Journal(folder=tmp_path)
    with pytest.raises(StoppedWaiting) as caught:
        run(network, subject, unhurried, stop=stop, watch=lambda _: stop.set(), name="n", journal=journal)
    found = run(network, subject, unhurried, name="n", journal=journal)
    assert same(found)
    assert (found.taken_up, found.sent, found.job) == (True, 0, caught.value.job)
    assert network.count("POST") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_server_that_starts_again_without_its_jobs(
    ndif: LightNDIF, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is the same; its queue and its object store are new."""
    monkeypatch.setattr(transport, "UNHEARD", 0.2)
    monkeypatch.setattr(transport, "FORGOTTEN", 0.2)
    again = LightNDIF()
    try:
        again.add("organism")
        there = [ndif.host]
        with bad_network(lambda asked: passed_on(there[0])(asked)) as network:
            found = run(network, subject, clock=Hasty(), watch=lambda _: there.__setitem__(0, again.host))
            assert network.count("POST") == 2
    finally:
        again.close()
    assert same(found)
    assert found.job in network.asked[-1].path
