"""What goes wrong on the way to a host, told apart."""

import socket
import ssl
from typing import Any

import httpx
import pytest
from bad_network import FastClock, MadeUp, bad_network

from ssn_probe.errors import RemoteError
from ssn_probe.remote import connection
from ssn_probe.remote.connection import Connection, open_client
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_errors import Passing, network_error, refusal, scrubbed

KEY = "5ec2e700-0000-4000-8000-000000000000"
HOST = Host("https://api.ndif.us", KEY)


def ask(url: str, clock: FastClock) -> Any:
    with open_client() as client:
        return Connection(Host(url, KEY), client, clock).json("GET", "/response/1")


def raised(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_a_name_that_no_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    clock = FastClock()
    with pytest.raises(RemoteError, match=r"No host has the name in https://api\.example") as caught:
        ask("https://api.example", clock)
    assert "Check the address" in str(caught.value.hint)
    assert clock.waits == []


def test_names_that_cannot_be_looked_up_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network there are no names, either: what had an address before has it still."""
    again = raised(httpx.ConnectError("x"), socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    unknown = raised(httpx.ConnectError("x"), socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert isinstance(network_error(again, HOST, answered=False), Passing)
    assert isinstance(network_error(unknown, HOST, answered=False), RemoteError)
    assert isinstance(network_error(unknown, HOST, answered=True), Passing)


def test_a_server_without_tls() -> None:
    clock = FastClock()
    with bad_network(MadeUp()) as network, pytest.raises(RemoteError, match="cannot be secured") as caught:
        ask(network.url.replace("http:", "https:"), clock)
    assert "never goes on without" in str(caught.value.hint)
    assert (clock.waits, network.asked) == ([], [])


def test_a_certificate_that_is_not_right() -> None:
    wrong = raised(httpx.ConnectError("x"), ssl.SSLCertVerificationError(1, "certificate has expired"))
    error = network_error(wrong, HOST, answered=False)
    assert isinstance(error, RemoteError)
    assert "certificate has expired" in error.message
    broke = raised(httpx.ConnectError("x"), ssl.SSLEOFError(8, "EOF occurred in violation of protocol"))
    assert isinstance(network_error(broke, HOST, answered=False), Passing)


def test_an_answer_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ANSWER", 1000)
    with (
        bad_network(MadeUp(result=b" " * 1001)) as network,
        open_client() as client,
        pytest.raises(RemoteError, match="the limit for such an answer"),
    ):
        Connection(Host(network.url), client, FastClock()).json("GET", "/store/1")


def test_an_answer_that_drips() -> None:
    """Each part of it comes in time, and the whole does not."""
    clock = FastClock()

    class Slow(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            while True:
                clock.at += 20
                yield b" "

    with (
        httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Slow()))) as client,
        pytest.raises(RemoteError, match="does not answer in time"),
    ):
        Connection(HOST, client, clock).json("GET", "/response/1")


def test_what_a_host_says_is_scrubbed() -> None:
    said = f"key '{KEY.upper()}' or {KEY.replace('-', '')} \x1b[31mat\nhttps://store.example/a?X-Amz-Signature=5ec2e7&b"
    assert scrubbed(said, HOST) == "key '[key]' or [key] at https://store.example/a?[…]"
    assert scrubbed("no key is set", Host("https://api.ndif.us")) == "no key is set"


@pytest.mark.parametrize(
    ("asked", "seconds"), [("7", 7), ("1e9", 0), ("99999", 3600), ("Wed, 21 Oct 2026", 0), (None, 0)]
)
def test_how_long_a_host_asks_to_wait(asked: str | None, seconds: float) -> None:
    failure = refusal(HOST, 429, "Slow down.", asked)
    assert isinstance(failure, Passing)
    assert failure.after == seconds
