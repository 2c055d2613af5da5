"""A run whose network fails for good: one error, nothing computed is lost, and the same command goes on from there."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from bad_network import Asked, Network, Reply, Upstream, bad_network, drop, passed_on
from light_ndif import LightNDIF

from ssn_probe import run
from ssn_probe.errors import RemoteError
from ssn_probe.remote import connection

pytestmark = [pytest.mark.ndif, pytest.mark.slow]


@pytest.fixture
def network(ndif: LightNDIF, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    monkeypatch.setattr(connection, "OUTAGE", 0.3)
    monkeypatch.setattr(connection, "BACKOFF", lambda _state: 0.05)
    with bad_network(passed_on(ndif.host)) as network:
        yield network


def passed(asked: Asked, upstream: Upstream) -> Reply:
    return upstream(asked)


def measured(network: Network, out: Path) -> pl.DataFrame:
    """The neurons that were chosen, with their effects."""
    result = run("identify_ms", out=out, effect="local", limit=20, batch_size=10, remote=network.url)
    return result.table("neurons")


def test_the_same_command_asks_only_for_what_is_missing(network: Network, tmp_path: Path) -> None:
    expected = measured(network, tmp_path / "whole")
    whole = network.count("POST")
    assert whole >= 3
    network.asked.clear()
    network.faults["POST"] = [*[passed] * (whole - 1), *[drop] * 1000]
    with pytest.raises(RemoteError, match="broke") as caught:
        measured(network, tmp_path / "broken")
    assert "run the same command again to go on" in str(caught.value.hint)
    network.faults.clear()
    network.asked.clear()
    assert measured(network, tmp_path / "broken").equals(expected)
    assert network.count("POST") < whole
    network.asked.clear()
    assert measured(network, tmp_path / "broken").equals(expected)
    assert network.count("POST") <= 2  # what the host lets a job do, and whether rows depend on each other
