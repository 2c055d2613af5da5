"""What a host says when it is asked: JSON from a machine of somebody else, read within limits; no key in a text."""

import json
import time
from typing import Any
from urllib.parse import urlsplit

import httpx

from ssn_probe.errors import RemoteError, first_line
from ssn_probe.limits import MB
from ssn_probe.remote.host import LOOPBACK, Host

SECONDS = 75
"""How long a host may take to answer; an NDIF gives itself 60 to find out."""
LARGEST = 32 * MB
"""Bytes of an answer. The status of a large cluster has some 2 kB for every model."""
SHOWN = 200
"""Characters of a host's own words that are shown."""
MEANINGS = {
    401: "Set NDIF_API_KEY to a key of this host; for the public NDIF, https://login.ndif.us gives one.",
    403: "It does not accept the key: set NDIF_API_KEY to one of this host.",
    404: "Is it an NDIF? Give the address alone, without a path.",
    429: "It is asked too often: try again in a minute.",
    503: "Its models cannot be reached at the moment: try again in some minutes.",
    504: "It did not find out in time: try again in some minutes.",
}
"""A host's answer → what to do."""


def ask(host: Host, path: str, *, identified: bool = False) -> dict[str, Any]:
    """The JSON object that a host answers at a path. The key is sent if `identified`, and to no other address.

    Raises:
        RemoteError: no answer in time, a refusal, or no JSON object.
    """
    body = _read(host, f"{host.url}/{path}", {"ndif-api-key": host.key} if identified and host.key else {})
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RemoteError(f"{host.url}/{path} answers something else than an NDIF does.", MEANINGS[404])
    return found


def without_key(text: object, host: Host) -> str:
    """A host's own words on one line, shortened, and without the key if it repeats that."""
    line = " ".join(str(text).split())
    if host.key:
        line = line.replace(host.key, "(the key)")
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


def _read(host: Host, url: str, headers: dict[str, str]) -> bytes:
    began, body = time.monotonic(), bytearray()
    try:
        through = urlsplit(url).hostname not in LOOPBACK  # a proxy would see the key of a plain http request
        timeout = httpx.Timeout(SECONDS, connect=10)
        with httpx.stream("GET", url, headers=headers, timeout=timeout, trust_env=through) as answer:
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > LARGEST or time.monotonic() - began > SECONDS:
                    raise RemoteError(f"{url} does not end its answer.", "Is it an NDIF?")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = without_key(first_line(error), host).rstrip(".")
        raise RemoteError(
            f"{host.url} cannot be reached: {reason or type(error).__name__}.",
            "Is the address right, and does the host run? Through a tunnel: does that run?",
        ) from error
    if answer.status_code == 200:
        return bytes(body)
    if answer.is_redirect:
        target = without_key(answer.headers.get("location", ""), host)
        raise RemoteError(
            f"{url} sends on to {target}, where no key goes unasked.", "Give the right address to --host."
        )
    raise RemoteError(
        f"{url} answers {answer.status_code}{_detail(bytes(body), host)}.",
        MEANINGS.get(answer.status_code, "Is it an NDIF? Try again later, or ask those who run it."),
    )


def _detail(body: bytes, host: Host) -> str:
    """The reason that an NDIF gives for a refusal."""
    try:
        reason = json.loads(body)["detail"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return f": {without_key(reason, host).rstrip('.')}" if isinstance(reason, str) else ""
