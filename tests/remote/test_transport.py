"""A job on a host: sent, watched, its result read, whatever goes wrong on the way."""

import threading
from pathlib import Path
from typing import Any

import pytest
from bad_network import (
    KEY,
    QUEUED,
    RUNNING,
    Asked,
    FastClock,
    MadeUp,
    Network,
    Reply,
    Upstream,
    bad_network,
    cut,
    drop,
    hang,
    lose,
    run,
    same,
    says,
)

import ssn_probe.remote.connection as connection
import ssn_probe.remote.transport as transport
from ssn_probe.errors import RemoteError
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_errors import (
    HostMemoryError,
    HostTimeoutError,
    JobFailedError,
    JobTooLargeError,
    StoppedWaiting,
)
from ssn_probe.remote.journal import Journal
from ssn_probe.remote.transport import JobState, run_job

RECONNECTING = "Service temporarily unavailable: compute backend is reconnecting. Please try again in a few minutes."


def test_a_job_gives_what_it_saved_and_says_how_it_went(network: Network, made_up: MadeUp) -> None:
    states: list[JobState] = []
    found = run(network, watch=states.append)
    assert same(found.values)
    assert (found.sent, found.received, found.job, found.taken_up) == (7, len(made_up.result), "job1", False)
    assert [(one.status, one.position) for one in states] == [
        ("received", None),
        ("queued", 3),
        ("running", None),
        ("completed", None),
    ]


def test_the_key_goes_to_the_host_and_not_to_where_the_result_is(network: Network) -> None:
    run(network)
    assert {one.headers.get("ndif-api-key") for one in network.asked if not one.path.startswith("/store")} == {KEY}
    [fetched] = [one for one in network.asked if one.path.startswith("/store")]
    assert KEY not in str(fetched)


@pytest.mark.parametrize(
    "fault", [drop, lose, cut, says(500, "Internal server error."), says(502), says(503, RECONNECTING)]
)
@pytest.mark.parametrize("where", ["POST /request", "GET /response", "GET /store"])
def test_what_passes_is_tried_again(network: Network, made_up: MadeUp, fault: Any, where: str) -> None:
    states: list[JobState] = []
    network.faults[where] = [fault] * 3
    clock = FastClock()
    assert same(run(network, clock, watch=states.append).values)
    assert network.count(where) >= 4
    assert "retrying" in {one.status for one in states}
    assert made_up.sent == (4 if where.startswith("POST") and fault in (lose, cut) else 1)


def test_pauses_between_tries_grow_and_a_host_is_given_up_after_an_outage(network: Network) -> None:
    network.faults["POST"] = [says(503, RECONNECTING)] * 1000
    clock = FastClock()
    with pytest.raises(RemoteError, match="compute backend is reconnecting") as caught:
        run(network, clock)
    assert "run the same command again" in str(caught.value.hint)
    assert clock.waits[0] <= 2.5
    assert max(clock.waits[:4]) < clock.waits[5] < 32
    assert len(set(clock.waits)) == len(clock.waits)
    assert connection.OUTAGE <= sum(clock.waits) < connection.OUTAGE + 32


def test_a_host_that_asks_to_wait_is_waited_for_as_long_as_it_asks(network: Network) -> None:
    network.faults["POST"] = [says(429, "Slow down.", Retry_After="700")] * 3
    clock = FastClock()
    assert same(run(network, clock).values)
    assert [wait for wait in clock.waits if wait >= 700] == clock.waits[:3]


def test_a_host_that_is_always_asked_too_much_is_given_up(network: Network) -> None:
    network.faults["POST"] = [says(429, "Slow down.", Retry_After="3600")] * 100
    clock = FastClock()
    with pytest.raises(RemoteError, match="429: Slow down"):
        run(network, clock)
    assert connection.BUSY <= sum(clock.waits) < connection.BUSY + 3700


def test_a_host_that_does_not_answer_in_time(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ", 0.05)
    network.faults["GET /response"] = [hang]
    assert same(run(network).values)
    network.faults["GET /response"] = [hang] * 100
    monkeypatch.setattr(connection, "OUTAGE", 1)
    with pytest.raises(RemoteError, match="does not answer in time"):
        run(network)


def test_nobody_listens() -> None:
    with bad_network(MadeUp()) as network:
        pass
    clock = FastClock()
    with pytest.raises(RemoteError, match="cannot be reached") as caught:
        run(network, clock)
    assert KEY not in str(caught.value)
    assert sum(clock.waits) >= connection.OUTAGE


@pytest.mark.parametrize(
    ("status", "detail", "message", "hint"),
    [
        (400, f"Invalid API key format: '{KEY}'. API keys must be in the format: x", "malformed", "NDIF_API_KEY"),
        (401, "Missing or invalid API key. Please visit https://login.ndif.us/.", "not accepted", "login.ndif.us"),
        (403, "Invalid API key.", "unknown", "export NDIF_API_KEY"),
        (
            400,
            "Client nnsight version 0.8.1 is below the minimum supported 0.9.0. Please `pip install`.",
            "below the minimum",
            "'nnsight>=0.9.0'",
        ),
        (400, "Client python version 3.11 is below the minimum supported 3.12. Please update.", "3.11", "Python 3.12"),
        (403, None, "answers 403", "address of an NDIF"),
        (404, None, "answers 404", "address of an NDIF"),
        (405, "Method Not Allowed", "answers 405", "address of an NDIF"),
        (422, "[{'type': 'missing'}]", "answers 422", "doctor --remote"),
        (301, None, "answers 301: https://elsewhere.example", "redirects"),
    ],
)
def test_what_does_not_pass_is_one_error(
    network: Network, status: int, detail: str | None, message: str, hint: str
) -> None:
    network.faults["POST"] = [says(status, detail, Location="https://elsewhere.example/request")]
    with pytest.raises(RemoteError) as caught:
        run(network)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)
    assert KEY not in str(caught.value)
    assert network.count("POST") == 1


def test_a_host_that_needs_a_key(network: Network) -> None:
    network.faults["POST"] = [says(401, "Missing or invalid API key.")]
    with pytest.raises(RemoteError, match="asks for a key, and none is set"):
        run_job(Host(network.url), "a model", b"a block", clock=FastClock())


def test_a_job_that_is_too_large(network: Network) -> None:
    network.faults["POST"] = [says(413)]
    with pytest.raises(JobTooLargeError, match="413"):
        run(network)


def test_what_is_no_ndif(network: Network) -> None:
    network.faults["POST"] = [says(200)]
    with pytest.raises(RemoteError, match="no answer of an NDIF"):
        run(network)


def test_a_login_page_in_the_middle_of_a_job(network: Network) -> None:
    network.faults["GET /response"] = [says(200), says(404)]
    assert same(run(network).values)


TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "effects.py", line {line}, in measure\n    call_{line}()\n' for line in range(20)
)


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("Your job exceeded the execution timeout of 60.0s.", HostTimeoutError, "timeout of 60.0s"),
        (TRACEBACK + "torch.OutOfMemoryError: CUDA out of memory. Tried …", HostMemoryError, "memory"),
        (
            TRACEBACK + "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
            HostMemoryError,
            "memory",
        ),
        (TRACEBACK + "ConnectionError: connection closed before message complete", HostMemoryError, "died"),
        (
            TRACEBACK + "    except MemoryError: out of memory\nValueError: b",
            JobFailedError,
            "on the host: ValueError: b",
        ),
        ("Could not deploy this model. a/b is gated.", RemoteError, "gated"),
        (
            f"{TRACEBACK}ValueError: {KEY} is \x1b[31mno number",
            JobFailedError,
            "host: ValueError: \\[key\\] is no number",
        ),
        ("has no architecture on this server … no module at 'model.norm'", RemoteError, "it has no model.norm"),
        ("Request cancelled by operator.", RemoteError, "cancelled by operator"),
    ],
)
def test_a_job_that_fails(network: Network, made_up: MadeUp, said: str, kind: type[RemoteError], message: str) -> None:
    made_up.says = [RUNNING, {"status": "ERROR", "description": said}]
    with pytest.raises(RemoteError, match=message) as caught:
        run(network)
    assert type(caught.value) is kind
    assert KEY not in str(caught.value)
    assert str(caught.value).count("\n") < 15
    assert made_up.sent == 1


@pytest.mark.parametrize(
    "said",
    [
        "Replica was evicted while processing your request. Sorry for the inconvenience. Please try again later.",
        "Critical server error occurred. Please try again later. Sorry for the inconvenience.",
        "Error starting model. Please try again later. Sorry for the inconvenience.",
    ],
)
def test_a_job_that_fails_for_a_reason_of_the_host_is_sent_again(network: Network, made_up: MadeUp, said: str) -> None:
    made_up.says = [{"status": "ERROR", "description": said}]
    clock = FastClock({2: lambda: setattr(made_up, "says", [{"status": "COMPLETED"}])})
    assert same(run(network, clock).values)
    assert 1 < made_up.sent < transport.SENDS
    made_up.says = [{"status": "ERROR", "description": said}]
    with pytest.raises(RemoteError, match=said[:20]):
        run(network)


def test_a_server_that_starts_again_and_has_forgotten_the_job(network: Network, made_up: MadeUp) -> None:
    made_up.says = [RUNNING] * 5 + [{"status": "COMPLETED"}]
    found = run(network, FastClock({3: made_up.looks.clear}))
    assert same(found.values)
    assert (made_up.sent, found.sent, found.job) == (2, 14, "job2")


def test_a_job_that_the_host_never_hears_of(network: Network, made_up: MadeUp) -> None:
    made_up.says = [None]
    with pytest.raises(RemoteError, match="has forgotten job job4"):
        run(network)
    assert made_up.sent == transport.SENDS


def test_a_job_that_runs_for_ever_and_one_that_waits_for_ever(
    network: Network, made_up: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transport.QUEUEING >= 86400
    monkeypatch.setattr(transport, "QUEUEING", 1800)
    monkeypatch.setattr(transport, "SENDS", 2)
    made_up.says = [RUNNING]
    with pytest.raises(RemoteError, match="has not ended within 11 min"):
        run(network, timeout=60)
    assert made_up.sent == transport.SENDS
    made_up.says = [QUEUED]
    clock = FastClock()
    with pytest.raises(RemoteError, match=r"has waited for 30 min"):
        run(network, clock)
    assert max(clock.waits) <= 10


def test_waiting_ends_at_once(network: Network, made_up: MadeUp, tmp_path: Path) -> None:
    """Even while an exchange hangs, for which a host has half a minute."""
    made_up.says = [RUNNING]
    network.faults["GET /response"] = [hang] * 100
    stop, journal = threading.Event(), Journal(folder=tmp_path)

    def watch(state: JobState) -> None:
        if state.status == "received":
            threading.Timer(0.05, stop.set).start()

    with pytest.raises(StoppedWaiting) as caught:
        run_job(Host(network.url), "a model", b"", stop=stop, watch=watch, name="n", journal=journal)
    assert caught.value.job == "job1"
    assert journal.jobs() == ["job1"]


def test_a_job_that_was_being_sent_is_noted_all_the_same(network: Network, tmp_path: Path) -> None:
    stop, gone, journal = threading.Event(), threading.Event(), Journal(folder=tmp_path)

    def slow(asked: Asked, upstream: Upstream) -> Reply:
        stop.set()
        gone.wait(10)
        return upstream(asked)

    network.faults["POST"] = [slow]
    with pytest.raises(StoppedWaiting):
        run_job(Host(network.url), "a model", b"", stop=stop, name="n", journal=journal)
    gone.set()
    wait_for_jobs()
    assert journal.jobs() == ["job1"]
    with pytest.raises(StoppedWaiting):
        run_job(Host(network.url), "a model", b"", stop=stop)
    assert network.count("POST") == 1


def test_ctrl_c_leaves_nobody_who_asks_on(network: Network, made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.says = [RUNNING]
    monkeypatch.setattr(transport, "wait", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_job(Host(network.url), "a model", b"")
    wait_for_jobs()


def wait_for_jobs() -> None:
    """Whoever was left alone with a job has noticed it."""
    for one in threading.enumerate():
        if one.name == "ssn-probe job":
            one.join(5)
            assert not one.is_alive()
