"""The host and its key: where they come from, and which ways the key may go."""

import sys

import pytest
from bad_network import FastClock, MadeUp, bad_network
from nnsight import CONFIG

from ssn_probe.errors import RemoteError
from ssn_probe.remote.connection import Connection, open_client
from ssn_probe.remote.host import Host, find_host

KEY = "5ec2e700-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONFIG.API, "APIKEY", KEY)
    for name in ("NDIF_API_KEY", "NDIF_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_a_host_never_shows_its_key() -> None:
    host = find_host("https://api.ndif.us/")
    assert host == Host("https://api.ndif.us", KEY)
    assert "5ec2e7" not in f"{host} {host!r}"


def test_the_host_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONFIG.API, "HOST", "https://lab.example")
    assert find_host(True) == Host("https://lab.example", KEY)
    monkeypatch.setenv("NDIF_HOST", "https://other.example")
    monkeypatch.setenv("NDIF_API_KEY", "another")
    assert find_host(True) == Host("https://other.example", "another")


@pytest.mark.parametrize("url", ["http://127.0.0.1:5001", "http://localhost", "http://[::1]:5001", "https://a.example"])
def test_ways_that_the_key_may_go(url: str) -> None:
    assert find_host(url).key == KEY


@pytest.mark.parametrize(
    "url", ["http://lab.example", "http://127.0.0.1.example", "http://127.1", "HTTP://lab.example"]
)
def test_ways_that_the_key_may_not_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteError) as caught:
        find_host(url)
    assert "5ec2e7" not in str(caught.value)
    assert "unencrypted" in caught.value.message
    monkeypatch.setattr(CONFIG.API, "APIKEY", None)
    assert find_host(url).key is None


@pytest.mark.parametrize(
    "url",
    ["api.ndif.us", "", "ftp://api.ndif.us", "https://", "https://[a", "https://a:b", "https://a.example?key=secret"],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(RemoteError, match="not the address of a host"):
        find_host(url)


def test_an_address_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(RemoteError, match="holds a name or a password") as caught:
        find_host("https://user:secret@api.ndif.us")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["a b", "5ec2e7\nHost: x", "ключ"])
def test_what_is_no_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONFIG.API, "APIKEY", key)
    with pytest.raises(RemoteError) as caught:
        find_host("https://api.ndif.us")
    assert key not in str(caught.value)
    assert "NDIF_API_KEY" in str(caught.value.hint)


def test_what_is_on_this_machine_is_asked_past_every_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with bad_network(MadeUp()) as proxy, bad_network(MadeUp()) as network:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        with open_client() as client:
            Connection(Host(network.url, KEY), client, FastClock()).json("POST", "/request")
        assert proxy.asked == []
        assert len(network.asked) == 1


@pytest.mark.parametrize("proxy", ["socks5://user:5ec2e7@proxy.example", "ftp://5ec2e7"])
def test_a_proxy_that_cannot_be_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(RemoteError, match="cannot be used") as caught:
        open_client()
    assert "5ec2e7" not in str(caught.value)
