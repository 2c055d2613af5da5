"""The file that a job leaves: fetched from where the host put it, and read without running anything that is in it."""

import io
import zipfile
from typing import Any
from urllib.parse import urljoin, urlsplit

from ssn_probe.errors import RemoteError
from ssn_probe.limits import MB
from ssn_probe.remote.connection import Connection
from ssn_probe.remote.host import Host, is_loopback
from ssn_probe.remote.host_errors import AGAIN, refusal
from ssn_probe.text import size

LIMIT = 4_000 * MB
"""Bytes of a result, as it travels and unpacked."""
SECONDS = 3600.0
"""For fetching one: as long as its address is valid, as a rule."""
REDIRECTS = 3
ZSTANDARD = b"\x28\xb5\x2f\xfd"
"""How what is compressed begins."""


class ExpiredError(RemoteError):
    """The address of a result that is valid no more."""


class UnreadableError(RemoteError):
    """A result that is damaged, or that holds what none of ours holds."""


def fetch_result(connection: Connection, url: Any) -> bytes:
    """The bytes at the address that a host gives for a result, which as a rule is that of an object store.

    The key is for the host alone and never goes there. The way must be as safe as that to the host.

    Raises:
        ExpiredError: the address is valid no more.
        RemoteError: it is none, or there is no safe way to it, or the file is too large.
    """
    for _ in range(REDIRECTS + 1):
        store = Connection(Host(_store(connection.host, url)), connection.client, connection.clock, connection.retrying)
        status, body = store.persistently(lambda store=store, url=url: _fetch(store, url))
        if isinstance(status, int):
            return body
        url = urljoin(url, status)
    raise RemoteError(f"{connection.host.url} redirects from one address of a result to the next.", AGAIN)


def read_result(content: bytes) -> dict[str, Any]:
    """What a job saved, by name.

    Raises:
        UnreadableError: the file is truncated, damaged or too large, or holds more than tensors, numbers, text, lists
            and dicts of them: nothing in it is run.
    """
    import torch
    import zstandard

    try:
        if content[:4] == ZSTANDARD:
            if not 0 <= (length := zstandard.frame_content_size(content)) <= LIMIT:
                raise ValueError(f"unpacked it would be larger than {size(LIMIT)}, or it does not say how large")
            content = zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
            if len(content) != length:
                raise ValueError("it ends too early")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:  # torch would unpack what torch.save never packs
            entries = archive.infolist()
        if any(one.compress_type != zipfile.ZIP_STORED for one in entries):
            raise ValueError("it is packed twice")
        if sum(one.file_size for one in entries) > len(content):
            raise ValueError("its parts overlap")
        values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(values, dict) or not all(isinstance(one, str) for one in values):
            raise ValueError("it does not hold values by name")
    except Exception as error:  # whatever a library makes of bytes that somebody else wrote
        raise UnreadableError(
            f"The result of a job ({len(content):,} bytes) cannot be read: {type(error).__name__}.",
            f"It is damaged, or holds what no result of ssn-probe holds; nothing in it was run. {AGAIN}",
        ) from error
    return values


def _store(host: Host, url: Any) -> str:
    """The server of an address, without the path and what signs it; only if the way there is as safe as to the host."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise RemoteError(
            f"{host.url} gives no address of the result of a job.",
            "Is it an NDIF that this version of ssn-probe knows? `ssn-probe doctor --remote` looks.",
        )
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    origin = f"{parts.scheme}://{name}{port}"
    is_plain_host = host.url.startswith("http://")
    allowed = parts.scheme == "https" or (is_plain_host and (is_loopback(origin) or not is_loopback(host.url)))
    if not allowed:
        raise RemoteError(
            f"The host keeps its results at {origin}, to which there is no safe way.",
            "Whoever runs the host sets NDIF_OBJECT_STORE_PUBLIC_URL to an address with https, or, where the host is "
            "reached through a tunnel, to one on localhost whose port is tunnelled, too.",
        )
    return origin


def _fetch(store: Connection, url: str) -> tuple[int | str, bytes]:
    """The status and the body, or where another address is."""
    response, body = store.fetch("GET", url, limit=LIMIT, seconds=SECONDS)
    if response.is_redirect and "location" in response.headers:
        return response.headers["location"], b""
    if response.status_code in (401, 403, 404, 410):
        raise ExpiredError(f"{store.host.url} has the result of a job no more ({response.status_code}).", AGAIN)
    if not response.is_success:
        raise refusal(store.host, response.status_code, None, response.headers.get("retry-after"))
    return response.status_code, body
