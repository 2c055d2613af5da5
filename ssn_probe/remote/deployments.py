"""What a host runs: models, in which precision, in which state."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from ssn_probe.errors import RemoteError, nearest
from ssn_probe.remote.host import Host

SECONDS = 30
"""How long a host may take to answer."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model on a host. `key` is what jobs name it by; `state` is the host's own word, RUNNING when it is ready."""

    key: str
    name: str
    revision: str | None
    dtype: str
    state: str
    timeout: float | None
    config: Mapping[str, Any]


def deployments(host: Host) -> list[Deployment]:
    """Every model that a host runs.

    Raises:
        RemoteError: no answer, or none of an NDIF.
    """
    headers = {"ndif-api-key": host.key} if host.key else {}
    try:
        answer = httpx.get(f"{host.url}/status", headers=headers, timeout=SECONDS)
        answer.raise_for_status()
        found = answer.json()["deployments"].values()
    except (httpx.HTTPError, ValueError, KeyError, AttributeError) as error:
        raise RemoteError(
            f"{host.url} does not say what it hosts: {error}",
            "Is it an NDIF, and does it run?",
        ) from error
    return [
        Deployment(
            key=one["model_key"],
            name=one["repo_id"],
            revision=one.get("revision"),
            dtype=str(one.get("dtype")).removeprefix("torch."),
            state=one["application_state"],
            timeout=one.get("execution_timeout_seconds"),
            config=json.loads(one["config"]) if one.get("config") else {},
        )
        for one in found
    ]


def find_deployment(host: Host, name: str) -> Deployment:
    """The deployment of a model. Raises RemoteError if the host does not run it."""
    found = deployments(host)
    for one in found:
        if one.name == name:
            return one
    hosted = sorted({one.name for one in found})
    hint = nearest(name, hosted) if hosted else "It hosts no model now."
    raise RemoteError(f"{host.url} does not host {name!r}.", hint)
