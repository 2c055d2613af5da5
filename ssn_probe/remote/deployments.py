"""What a host has of models: in which precision, revision and state, and which of it answers for a name."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ssn_probe.errors import RemoteError, nearest
from ssn_probe.remote.host import Host
from ssn_probe.remote.host_answers import ask

WRAPPER = "nnsight.modeling.transformers.TransformersModel"
"""The wrapper that a model must be hosted in: that of a transformers pipeline, which traces and generates."""
TASK = "text-generation"
RUNNING = "RUNNING"
STATES = {
    RUNNING: "runs",
    "DEPLOYING": "is being loaded",
    "NOT_STARTED": "is being loaded",
    "WARM": "is kept in memory, and runs once a job asks for it",
    "COLD": "is kept on disk, and may run once a job asks for it",
    "UNHEALTHY": "has failed there",
}
"""States of a deployment, the best first, in words."""
NEITHER = "(not said)"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model on a host, with all its replicas.

    `key` is what jobs name it by; `wrapper`, `task` and `revision` (None: the hub's main) are parts of that. `dtypes`:
    those of its replicas, none unless it runs. `running`: how many replicas do. `timeout`: seconds that a job may take,
    if the host says. `config`: of config.json, what differs from the defaults of its class.
    """

    key: str
    name: str
    wrapper: str = WRAPPER
    task: str | None = TASK
    revision: str | None = None
    own_code: bool = False
    state: str = RUNNING
    dtypes: tuple[str, ...] = ()
    running: int = 0
    timeout: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """The precision of its weights."""
        return " or ".join(self.dtypes) or NEITHER


def deployments(host: Host) -> list[Deployment]:
    """Every model that a host has, by name; what is no model, or damaged, is left out.

    Raises:
        RemoteError: no answer, or none of an NDIF.
    """
    entries = ask(host, "status").get("deployments")
    if not isinstance(entries, dict):
        raise RemoteError(f"{host.url}/status does not say what it hosts.", "Is it an NDIF, of version 0.1 or later?")
    found: dict[str, Deployment] = {}
    for title, entry in entries.items():
        one = _deployment(title, entry) if isinstance(entry, dict) else None
        if one is not None:
            found[one.key] = _together(found[one.key], one) if one.key in found else one
    return sorted(found.values(), key=lambda one: (one.name, list(STATES).index(one.state), one.key))


def find_deployment(host: Host, name: str) -> Deployment:
    """The deployment that runs a model, which is a name on the hub or a folder.

    Raises:
        RemoteError: the host does not have it, it does not run, or not in a form that can be studied.
    """
    every = deployments(host)
    one = _best(host, name, every)
    if one is None:
        raise _not_hosted(host, name, every)
    if one.state != RUNNING:
        raise RemoteError(f"{name!r} {STATES[one.state]} on {host.url}.", _until_it_runs(name, one.state))
    if len(one.dtypes) != 1:
        raise RemoteError(
            f"{host.url} runs {name!r} in {one.dtype}, so that it is not known which precision would answer.",
            "Ask those who run the host for replicas of one dtype.",
        )
    return one


def sleeping(host: Host, name: str) -> Deployment | None:
    """What a job must ask for so that a host loads a model that it does not run; None if it runs or is being loaded."""
    one = _best(host, name, deployments(host))
    if one is None:
        return Deployment(key=key_of(name), name=name, state="COLD")
    return one if one.state in ("WARM", "COLD") else None


def names_of(name: str) -> set[str]:
    """What a host may call a model: its name, or for a folder its path, absolute and with links followed."""
    return {name, os.path.abspath(name), os.path.realpath(name)} if os.path.isdir(name) else {name}


def key_of(name: str) -> str:
    """What jobs call a model by which the host does not have yet, at the revision main."""
    return f"{WRAPPER}:{json.dumps({'repo_id': name, 'revision': None, 'task': TASK})}"


def why_unfit(one: Deployment) -> str | None:
    """Why a deployment cannot be studied, in words that go on from “it”; None if nothing is against it."""
    if one.wrapper != WRAPPER:
        return f"as a {one.wrapper.rpartition('.')[2]}, which is not traced as transformers models are"
    if one.task != TASK:
        return f"for {one.task or 'no task'}, not for {TASK}"
    if one.own_code:
        return "with code of its own repository, which is never run here"
    if one.config.get("quantization_config") is not None or any(dtype not in FLOATS for dtype in one.dtypes):
        return f"with quantised weights ({one.dtype}), whose numbers are not those of the model's neurons"
    return None


FLOATS = ("float32", "bfloat16", "float16", "float64")


def _best(host: Host, name: str, every: Iterable[Deployment]) -> Deployment | None:
    """The deployment of a model that can be studied, in its best state; None if there is none of any kind."""
    held = [one for one in every if one.name in names_of(name)]
    fit = [one for one in held if why_unfit(one) is None]
    if held and not fit:
        raise RemoteError(
            f"{host.url} has {name!r}, but {why_unfit(held[0])}.",
            "Ask those who run the host for it as it is on the hub.",
        )
    return _of_one_revision(host, name, fit) if fit else None


def _not_hosted(host: Host, name: str, every: Iterable[Deployment]) -> RemoteError:
    hosted = sorted({one.name for one in every if one.state == RUNNING})
    hint = nearest(name, hosted) if hosted else "It runs no model at the moment."
    return RemoteError(
        f"{host.url} does not host {name!r}.",
        f"{hint} A host may load a model when it is asked: `ssn-probe doctor --remote --model {name}` asks once.",
    )


def _of_one_revision(host: Host, name: str, fit: list[Deployment]) -> Deployment:
    """That of the revision main; or of the only other one."""
    usual = [one for one in fit if one.revision in (None, "main")]
    revisions = sorted({str(one.revision) for one in fit})
    if not usual and len(revisions) > 1:
        raise RemoteError(
            f"{host.url} has {name!r} in the revisions {', '.join(revisions)}, and none of them is main.",
            "Ask those who run the host for the revision main.",
        )
    return (usual or fit)[0]


def _until_it_runs(name: str, state: str) -> str:
    if state in ("WARM", "COLD"):
        return f"`ssn-probe doctor --remote --model {name}` sends the smallest job, for which the host may load it."
    if state == "UNHEALTHY":
        return "Ask those who run the host; `ssn-probe models --remote` lists what runs."
    return "Try again in some minutes; `ssn-probe models --remote` shows whether it runs."


def _deployment(title: str, entry: Mapping[str, Any]) -> Deployment | None:
    """One replica, or a model on disk. `title` ends in the key while a model is being loaded."""
    level, said = entry.get("deployment_level"), entry.get("application_state")
    key = _text(entry.get("model_key")) or title.partition(":ModelActor:")[2]
    name = _text(entry.get("repo_id"))
    if not key and name and level == "COLD":
        return Deployment(key=key_of(name), name=name, state="COLD")
    wrapper, _, suffix = key.partition(":")
    about = _object(suffix)
    if not (name := _text(about.get("repo_id")) or name):
        return None
    state = level if level in ("WARM", "COLD") else said
    runs = state == RUNNING
    dtype, timeout = _text(entry.get("dtype")).removeprefix("torch."), entry.get("execution_timeout_seconds")
    return Deployment(
        key=key,
        name=name,
        wrapper=wrapper,
        task=_text(about.get("task")) or None,
        revision=_text(about.get("revision")) or None,
        own_code=about.get("trust_remote_code") is True,
        state=state if isinstance(state, str) and state in STATES else "UNHEALTHY",
        dtypes=(dtype,) if runs and dtype else (),
        running=int(runs),
        timeout=float(timeout) if isinstance(timeout, int | float) and 0 < timeout < 10**9 else None,
        config=_object(entry.get("config")),
    )


def _together(first: Deployment, second: Deployment) -> Deployment:
    """Two replicas of one deployment: the state is that of the better one."""
    better, other = sorted((first, second), key=lambda one: list(STATES).index(one.state))
    return replace(
        better,
        dtypes=tuple(sorted({*first.dtypes, *second.dtypes})),
        running=first.running + second.running,
        timeout=min((one.timeout for one in (first, second) if one.timeout is not None), default=None),
        config=better.config or other.config,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _object(text: object) -> Mapping[str, Any]:
    """A JSON object in a text; an empty one where it is none."""
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
