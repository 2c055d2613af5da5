"""Results of jobs: fetched over safe ways only, and read without running anything in them."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from bad_network import VALUES, FastClock, MadeUp, Reply, bad_network, packed

from ssn_probe.errors import RemoteError
from ssn_probe.remote import result_files
from ssn_probe.remote.connection import Connection, open_client
from ssn_probe.remote.host import Host
from ssn_probe.remote.result_files import UnreadableError, fetch_result, read_result


def stored(values: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(values, file, **how)
    return file.getvalue()


def test_packed_or_not() -> None:
    for content in (packed(VALUES), stored(VALUES)):
        assert torch.equal(read_result(content)["results"][0], VALUES["results"][0])


class Hostile:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_result_is_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    content = stored({"results": Hostile(ran)})
    torch.load(io.BytesIO(content), weights_only=False)
    assert ran.exists()  # it would
    ran.unlink()
    for hostile in (content, zstandard.compress(content), pickle.dumps({"results": Hostile(ran)})):
        with pytest.raises(UnreadableError, match="cannot be read"):
            read_result(hostile)
    assert not ran.exists()


def overlapping() -> bytes:
    """A file of which parts are named twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"0" * 10_000)
        archive.filelist.extend(archive.filelist * 3)
    return file.getvalue()


def packed_twice() -> bytes:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(stored(VALUES))) as archive,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as other,
    ):
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x28\xb5\x2f\xfd",
        b"<html>no</html>",
        packed(VALUES)[:-5],
        packed(VALUES) + b"more",
        zstandard.compress(stored(VALUES)[:-40]),
        stored(VALUES)[: len(stored(VALUES)) // 2],
        zstandard.ZstdCompressor(write_content_size=False).compress(stored(VALUES)),
        zstandard.compress(b""),
        packed([1, 2]),
        packed({1: 2}),
        overlapping(),
        packed_twice(),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damaged_files_are_one_error(content: bytes) -> None:
    with pytest.raises(UnreadableError, match="cannot be read") as caught:
        read_result(content)
    assert "nothing in it was run" in str(caught.value.hint)


def test_what_is_small_only_while_it_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = packed({"results": torch.zeros(1_000_000)})
    assert len(bomb) < 10_000
    read_result(bomb)
    monkeypatch.setattr(result_files, "LIMIT", 1_000_000)
    with pytest.raises(UnreadableError):
        read_result(bomb)


def test_results_that_are_too_large_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "LIMIT", 1000)
    with (
        bad_network(lambda _asked: Reply(200, b"0" * 1001)) as network,
        open_client() as client,
        pytest.raises(RemoteError, match=r"more than 1 kB"),
    ):
        fetch_result(Connection(Host(network.url), client, FastClock()), f"{network.url}/store/1")


def test_a_bomb_in_the_encoding_of_http_stays_packed() -> None:
    """The client says that it takes no encoding, and undoes none."""
    with (
        bad_network(lambda _asked: Reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})) as network,
        open_client() as client,
    ):
        assert fetch_result(Connection(Host(network.url), client, FastClock()), f"{network.url}/1") == b"\x1f\x8b"
        assert network.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("host", "url", "allowed"),
    [
        ("https://api.ndif.us", "https://store.example/a?X-Amz-Signature=5ec2e7", True),
        ("https://api.ndif.us", "http://store.example/a?X-Amz-Signature=5ec2e7", False),
        ("https://api.ndif.us", "http://127.0.0.1:9000/a", False),
        ("http://localhost:5001", "http://localhost:9000/a", True),
        ("http://localhost:5001", "http://127.0.0.1:9000/a", True),
        ("http://localhost:5001", "http://rustfs:9000/a", False),
        ("http://localhost:5001", "https://store.example/a", True),
        ("http://lab.example", "http://lab.example:9000/a", True),
        ("https://api.ndif.us", "https://user:word@store.example/a", False),
        ("https://api.ndif.us", "file:///etc/passwd", False),
        ("https://api.ndif.us", "https://[store/a", False),
        ("https://api.ndif.us", "https://store.example:x/a", False),
        ("https://api.ndif.us", None, False),
        ("https://api.ndif.us", {"results": 1}, False),
    ],
)
def test_the_way_to_a_result_is_as_safe_as_that_to_the_host(host: str, url: Any, allowed: bool) -> None:
    if allowed:
        assert "?" not in result_files._store(Host(host), url)
        return
    with pytest.raises(RemoteError) as caught:
        result_files._store(Host(host), url)
    assert "5ec2e7" not in str(caught.value)
    assert "word" not in str(caught.value)


def test_redirects_are_followed_over_safe_ways_and_not_for_ever() -> None:
    ndif = MadeUp()

    def moved(asked: Any) -> Reply:
        where = {"/a": "/store/1", "/b": "http://store.example/1", "/c": "/c"}.get(asked.path)
        return Reply(302, b"", {"Location": where}) if where else ndif(asked)

    with bad_network(moved) as network, open_client() as client:
        connection = Connection(Host(network.url, "a key"), client, FastClock())
        assert fetch_result(connection, f"{network.url}/a") == ndif.result
        with pytest.raises(RemoteError, match="to which there is no safe way"):
            fetch_result(connection, f"{network.url}/b")
        with pytest.raises(RemoteError, match="redirects from one address"):
            fetch_result(connection, f"{network.url}/c")
        assert not any("ndif-api-key" in one.headers for one in network.asked)
