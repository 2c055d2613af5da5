"""What is asked of a host: every answer that is none is one error, and the key goes nowhere it should not."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ndif_stand_in import host_that_says

from ssn_probe.errors import RemoteError
from ssn_probe.remote import host_answers
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_answers import ask

SECRET = "11111111-2222-3333-4444-555555555555"
REFUSALS: dict[str, tuple[int, Any, str, str]] = {
    "no key": (401, {"detail": "Missing or invalid API key."}, r"answers 401: Missing or invalid API key\.\n", "login"),
    "a key of another host": (403, {"detail": "Invalid API key."}, "answers 403: Invalid", "does not accept the key"),
    "a key that is none": (400, {"detail": f"Invalid API key format: '{SECRET}'."}, r"'\(the key\)'", "NDIF"),
    "no NDIF": (404, b"<html>", "answers 404", "without a path"),
    "too often": (429, {"detail": "slow down"}, "answers 429: slow down", "in a minute"),
    "no cluster": (503, {"detail": "compute backend is reconnecting."}, "503: compute backend is reconn", "minutes"),
    "a failure": (500, {"detail": {"no": "text"}}, r"answers 500\.\n", "later"),
    "a long story": (500, {"detail": "x" * 1000}, "x{200}…", "later"),
    "a page": (200, b"<html>hello</html>", "something else", "Is it an NDIF"),
    "a list": (200, [1], "something else", "Is it an NDIF"),
    "nested too deeply": (200, b"[" * 100_000, "something else", "Is it an NDIF"),
    "no text": (200, b"\xff\xfe\x00{", "something else", "Is it an NDIF"),
    "elsewhere": (302, f"http://127.0.0.1:9/?{SECRET}", r"sends on to http://127\.0\.0\.1:9/\?\(the key\)", "--host"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_is_one_error_without_the_key(what: str) -> None:
    code, body, message, hint = REFUSALS[what]
    with host_that_says({"/whoami": (code, body)}) as (url, _), pytest.raises(RemoteError, match=message) as error:
        ask(Host(url, SECRET), "whoami", identified=True)
    assert hint in str(error.value.hint)
    assert SECRET not in str(error.value)


def test_the_key_goes_where_it_is_meant_to() -> None:
    with host_that_says({"/status": (200, {}), "/whoami": (200, {})}) as (url, asked):
        ask(Host(url, SECRET), "status")
        ask(Host(url, SECRET), "whoami", identified=True)
    assert asked == [("/status", None), ("/whoami", SECRET)]


def test_no_proxy_sees_what_goes_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with host_that_says({"/whoami": (200, {"email": None})}) as (url, _):
        assert ask(Host(url, SECRET), "whoami", identified=True) == {"email": None}


def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_answers, "LARGEST", 1000)
    with (
        host_that_says({"/status": (200, {"deployments": {"x": "y" * 2000}})}) as (url, _),
        pytest.raises(RemoteError, match="does not end"),
    ):
        ask(Host(url), "status")


def test_nobody_listens(silent_port: int) -> None:
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1:\d+ cannot be reached: .*refused") as error:
        ask(Host(f"http://127.0.0.1:{silent_port}"), "status")
    assert "tunnel" in str(error.value.hint)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
