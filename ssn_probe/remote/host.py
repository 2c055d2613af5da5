"""Which host runs the model, and with which key: from an argument, the environment or nnsight's configuration."""

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ssn_probe.errors import RemoteError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
KEY = "NDIF_API_KEY"


@dataclass(frozen=True)
class Host:
    """An NDIF API: its address, and the key that is sent to it and to nobody else, and never shown."""

    url: str
    key: str | None = field(default=None, repr=False)


def find_host(remote: str | bool) -> Host:
    """The host that `remote` names; True is that of `NDIF_HOST` or nnsight's configuration, else the public NDIF.

    Raises:
        RemoteError: no address of a host, one that a key would travel to unencrypted, or what no key can be.
    """
    from nnsight import CONFIG

    # nnsight has read the environment when it was imported; a notebook may have set it since.
    url = _checked(remote if isinstance(remote, str) else os.environ.get("NDIF_HOST") or CONFIG.API.HOST)
    key = (os.environ.get(KEY) or CONFIG.API.APIKEY or "").strip() or None
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise RemoteError(
            "The key for the host holds characters that no key has.",
            f"Copy it again into {KEY}, or into the file that nnsight keeps its configuration in.",
        )
    if key and url.startswith("http://") and not is_loopback(url):
        raise RemoteError(
            f"The key would travel to {url} unencrypted.",
            "Use https, or a tunnel to the host: `ssh -L 5001:localhost:5001 HOST` and --host http://localhost:5001.",
        )
    return Host(url, key)


def is_loopback(url: str) -> bool:
    """Does what is sent to this address stay on this machine?"""
    return urlsplit(url).hostname in LOOPBACK


def _checked(url: str) -> str:
    """The address without a slash at its end. A name and password in it would be shown and stored with it."""
    hint = "Give one such as https://api.ndif.us."
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError as error:
        raise RemoteError("What is given is not the address of a host.", hint) from error
    if "@" in parts.netloc:
        raise RemoteError(
            "The address of the host holds a name or a password.",
            f"Give the address alone: an NDIF knows its users by the key in {KEY}.",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise RemoteError(f"{url!r} is not the address of a host.", hint)
    return parts.geturl().rstrip("/")  # with the scheme in lower case
