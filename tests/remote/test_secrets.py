"""The key for the host is in nothing that a run leaves or says, even where the host repeats it."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bad_network import Asked, Network, Reply, Upstream, bad_network, passed_on, says
from light_ndif import LightNDIF

from ssn_probe import run
from ssn_probe.errors import RemoteError

pytestmark = pytest.mark.ndif
SECRET = "5ec2e700"
KEY = f"{SECRET}-0000-4000-8000-000000000000"


@pytest.fixture
def network(ndif: LightNDIF, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    monkeypatch.setenv("NDIF_API_KEY", KEY)
    with bad_network(passed_on(ndif.host)) as network:
        yield network


def texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        yield str(path), path.read_bytes() if path.is_file() else b""


def test_the_key_is_nowhere(
    network: Network, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    processes: set[str] = set()

    def repeated(asked: Asked, upstream: Upstream) -> Reply:
        assert asked.headers["ndif-api-key"] == KEY  # there is something to repeat
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        processes.update(" ".join([one.name(), *one.cmdline()]) for one in family)
        return says(503, f"The key '{KEY}' is fine, the database is not.")(asked, upstream)

    refused = says(400, f"Invalid API key format: '{KEY}'. API keys must be in the format: x")
    caplog.set_level(0)
    network.faults["POST"] = [repeated, lambda asked, upstream: upstream(asked), *[refused] * 10]
    with pytest.raises(RemoteError) as caught:
        run("identify_ms", out=tmp_path, limit=4, effect="local", remote=network.url)
    assert "The key is malformed" in caught.value.message
    network.faults["POST"] = [repeated]
    run("identify_ms", out=tmp_path, limit=4, effect="local", remote=network.url)
    assert network.faults["POST"] == []
    said = capfd.readouterr()
    found = dict(texts(tmp_path))
    assert {"manifest.json", "report.md"} <= {Path(where).name for where in found}
    for where, text in {
        **found,
        "names of files": " ".join(found).encode(),
        "terminal": f"{said.out}{said.err}".encode(),
        "error": f"{caught.value} {caught.value!r}".encode(),
        "log": caplog.text.encode(),
        "processes": " ".join(processes).encode(),
    }.items():
        assert SECRET.encode() not in text, where
