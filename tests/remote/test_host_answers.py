"""What is asked of a host: every answer that is none is one error, and the key goes nowhere it should not."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ndif_stand_in import host_that_says

from ssn_probe.errors import RemoteError
from ssn_probe.remote import connection
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_answers import ask

SECRET = "11111111-2222-3333-4444-555555555555"
REFUSALS: dict[str, tuple[int, Any, str]] = {
    "no right": (403, {"detail": "Invalid API key."}, "key is unknown"),
    "a key that is none": (400, {"detail": f"Invalid API key format: '{SECRET}'."}, "key is malformed"),
    "no NDIF": (404, b"<html>", "answers 404"),
    "no cluster": (503, {"detail": "compute backend is reconnecting."}, "503: compute backend is reconnecting"),
    "a failure that repeats the key": (500, {"detail": f"cannot look up {SECRET}"}, r"500: cannot look up \[key\]"),
    "a page": (200, b"<html>hello</html>", "no answer of an NDIF"),
    "a list": (200, [1], "something else"),
    "nested too deeply": (200, b"[" * 100_000, "no answer of an NDIF"),
    "no text": (200, b"\xff\xfe\x00{", "no answer of an NDIF"),
    "elsewhere": (302, f"http://127.0.0.1:9/{SECRET}", r"302: http://127\.0\.0\.1:9/\[key\]"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_is_one_error_without_the_key(what: str) -> None:
    code, body, message = REFUSALS[what]
    with host_that_says({"/whoami": (code, body)}) as (url, _), pytest.raises(RemoteError, match=message) as error:
        ask(Host(url, SECRET), "whoami", identified=True)
    assert error.value.hint
    assert SECRET not in f"{error.value!r} {error.value.__context__!r} {error.value.__cause__!r}"


def test_the_key_goes_where_it_is_meant_to() -> None:
    with host_that_says({"/status": (200, {}), "/whoami": (200, {})}) as (url, asked):
        ask(Host(url, SECRET), "status")
        ask(Host(url, SECRET), "whoami", identified=True)
    assert asked == [("/status", None), ("/whoami", SECRET)]


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize(("key", "words"), [(SECRET, "/status asks for a key"), (None, "and none is set")])
def test_a_key_that_is_set_is_not_said_to_be_missing(code: int, key: str | None, words: str) -> None:
    answer = (code, {"detail": "Missing API key."})
    with host_that_says({"/status": answer}) as (url, asked), pytest.raises(RemoteError, match=words):
        ask(Host(url, key), "status")
    assert asked == [("/status", None)]


def test_no_proxy_sees_what_goes_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with host_that_says({"/whoami": (200, {"email": None})}) as (url, _):
        assert ask(Host(url, SECRET), "whoami", identified=True) == {"email": None}


def test_an_answer_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ANSWER", 1000)
    with (
        host_that_says({"/status": (200, {"deployments": {"x": "y" * 2000}})}) as (url, _),
        pytest.raises(RemoteError, match="answers with more than"),
    ):
        ask(Host(url), "status")


def test_nobody_listens(silent_port: int) -> None:
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1:\d+ cannot be reached: .*refused") as error:
        ask(Host(f"http://127.0.0.1:{silent_port}"), "status")
    assert "whether the host runs" in str(error.value.hint)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
