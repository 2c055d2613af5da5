"""What a host says of itself when it is asked: its models, its versions, whose key this is."""

from typing import Any

from ssn_probe.errors import RemoteError
from ssn_probe.remote.connection import Connection, open_client
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_errors import AGAIN, KeyRefusedError, Passing


def ask(host: Host, path: str, *, identified: bool = False) -> dict[str, Any]:
    """The JSON object that a host answers at a path, asked once. The key is sent if `identified`.

    Raises:
        RemoteError: no answer in time, a refusal, or no JSON object.
    """
    with open_client() as client:
        asked = Connection(host if identified else Host(host.url), client)
        try:
            found = asked.once("GET", f"/{path}")
        except Passing as failure:
            hint = (failure.error.hint or "").replace(AGAIN, "").strip()  # nothing was measured yet
            raise RemoteError(failure.error.message, hint or "Try again in some minutes.") from None
        except KeyRefusedError:
            if identified or host.key is None:
                raise
            raise RemoteError(
                f"{host.url}/{path} asks for a key. An NDIF answers there without one, so yours was not sent.",
                "Is this the address of an NDIF? If it is, ask those who run it to let everybody see its status.",
            ) from None
    if not isinstance(found, dict):
        raise RemoteError(f"{host.url}/{path} answers something else than an NDIF does.", "Is this its address?")
    return found
