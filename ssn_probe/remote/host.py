"""Which host runs the model, and with which key: from an argument, the environment or nnsight's configuration."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ssn_probe.errors import RemoteError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Host:
    """An NDIF API: its address, and the key that is sent to it, which is never shown."""

    url: str
    key: str | None = field(default=None, repr=False)


def find_host(remote: str | bool) -> Host:
    """The host that `remote` names; True is that of `NDIF_HOST` or nnsight's configuration, else the public NDIF.

    Raises:
        RemoteError: no address of a host, or one that a key would travel to unencrypted.
    """
    from nnsight import CONFIG

    url = (remote if isinstance(remote, str) else CONFIG.API.HOST).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RemoteError(f"{url!r} is not the address of a host.", "Give one such as https://api.ndif.us.")
    key = CONFIG.API.APIKEY or None
    if key and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise RemoteError(
            f"The key would travel to {url} unencrypted.",
            "Use https, or a tunnel to the host: `ssh -L 5001:localhost:5001 HOST` and --host http://localhost:5001.",
        )
    return Host(url, key)
