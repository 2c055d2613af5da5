"""Can a host do the work? What answers, whose key this is, which versions it has, what it runs; a job, for a model."""

import platform
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ssn_probe.doctor.checks import Check, failed, guarded, passed, warned
from ssn_probe.doctor.versions import installed, pip_command
from ssn_probe.errors import ModelError, RemoteError
from ssn_probe.model.asking import NO_WISH, Asking
from ssn_probe.text import counted, listing

if TYPE_CHECKING:
    from ssn_probe.model.subject import Subject
    from ssn_probe.remote.deployments import Deployment
    from ssn_probe.remote.host import Host

SHORT = 120
"""Seconds within which a job of a large model may not get done."""
STALE = 90.0
"""Seconds after which a host surely says of a model that it runs: what an NDIF says of itself is up to a minute old."""
SENT = ("torch", "einops", "nnsight")
"""What the code that travels imports."""


def examine_host(
    remote: bool | str, *, model: str | None = None, dtype: str = "auto", asking: Asking = NO_WISH
) -> Iterator[Check]:
    """The checks of a host, and of a model on it, which takes one smallest job. Sends no prompt of anybody's."""
    found: list[Host] = []

    def reach() -> Check:
        from ssn_probe.remote.host import find_host

        found.append(find_host(remote))
        return check_answers(found[0])

    answers = guarded("host", reach)
    yield from answers
    if any(check.status == "failed" for check in answers):
        return
    for host in found:
        yield from guarded("key", partial(check_key, host, model))
        yield from guarded("versions", partial(check_host_versions, host))
        yield from guarded("models", partial(check_models, host))
        if model is not None:
            yield from examine_hosted(host, model, dtype, asking)


def check_answers(host: "Host") -> Check:
    """Is there an NDIF, and which?"""
    from ssn_probe.remote.deployments import deployments

    deployments(host)
    version = _environment(host)[1].get("ndif")
    return passed("host", f"{host.url} answers: ndif {version or 'of an unknown version'}")


def check_key(host: "Host", model: str | None = None) -> Check:
    """Is a key set, and does the host know it? It is never shown. `model`: one that a job is sent to afterwards."""
    from ssn_probe.remote.host import KEY, is_loopback
    from ssn_probe.remote.host_answers import ask

    login = f"For the public NDIF, https://login.ndif.us gives a key: export {KEY}=…"
    if host.key is None and is_loopback(host.url):
        return passed("key", "none is set, which is enough for a host of your own that keeps no accounts")
    if host.key is None:
        meaning = "A host that keeps accounts, as the public NDIF does, will refuse every job."
        return warned("key", "none is set", meaning, login)
    said = ask(host, "whoami", identified=True)
    if not said.get("email"):
        meaning = "The host keeps no accounts, or the key is none of its own; a job would be refused then."
        asked = "`ssn-probe doctor --remote --model NAME` sends a job, which tells."
        tells = asked if model is None else "The job below tells."
        remedy = f"{tells} {login}"
        return warned("key", "set, and the host knows no account of it", meaning, remedy)
    tags = said.get("tags")
    trusted = isinstance(tags, list) and "trusted" in tags
    return passed("key", "accepted" + (", trusted" if trusted else ""))


def check_host_versions(host: "Host") -> Check:
    """Would a job mean the same there? Of nnsight, torch, transformers and Python."""
    python, packages = _environment(host)
    if not packages:
        meaning = "Whether its versions fit cannot be said."
        return warned("versions", "the host does not tell its own", meaning, "Ask those who run it.")
    if missing := [name for name in SENT if name not in packages]:
        meaning = f"Jobs import {listing(missing)} there: every one would fail."
        return failed("versions", f"the host lacks {listing(missing)}", meaning, "Ask those who run the host for them.")
    here = {name: installed(name) for name in ("nnsight", "transformers", "torch")}
    other = {
        name: (packages.get(name), mine) for name, mine in here.items() if _core(packages.get(name)) != _core(mine)
    }
    if _core(python, 2) != _core(platform.python_version(), 2):
        other["python"] = (python, platform.python_version())
    if not other:
        same = ", ".join(f"{name} {version}" for name, version in here.items())
        return passed("versions", f"as here: {same}, python {_core(python, 2)}")
    return _other_versions(other)


def _other_versions(other: Mapping[str, tuple[str | None, str | None]]) -> Check:
    told = ", ".join(f"{name} {there} (here: {mine})" for name, (there, mine) in other.items())
    there, mine = other.get("nnsight", (None, None))
    if "nnsight" in other and _core(there, 2) != _core(mine, 2):
        meaning = "nnsight 0.8 and other versions do not understand each other's jobs."
        remedy = "Use a host with nnsight 0.8, or the release of ssn-probe that was made for the host's nnsight."
        return failed("versions", f"the host has {told}", meaning, remedy)
    pins = [f"{name}=={there}" for name, (there, _) in other.items() if there and name != "python"]
    meaning = "It works as a rule; a model may be built otherwise there, and numbers may differ by rounding."
    if not pins:
        remedy = f"Where a job fails, run ssn-probe with Python {_core(other['python'][0], 2)}."
        return warned("versions", f"the host has {told}", meaning, remedy)
    remedy = f"Where a job fails, install the host's versions: {pip_command([]).partition(' -c ')[0]} {' '.join(pins)}"
    return warned("versions", f"the host has {told}", meaning, remedy)


def check_models(host: "Host") -> Check:
    """What runs there, and how much of it can be studied."""
    from ssn_probe.model.hosted import why_unsupported
    from ssn_probe.remote.deployments import RUNNING, deployments

    running = [one for one in deployments(host) if one.state == RUNNING]
    fit = [one for one in running if why_unsupported(one) is None]
    if not fit:
        meaning = "There is nothing to study there now; a host may load a model when it is asked for it."
        remedy = "`ssn-probe models --remote` says what it has; `ssn-probe doctor --remote --model NAME` asks for one."
        return warned("models", f"{counted(len(running), 'model')} run, none that can be studied", meaning, remedy)
    names = ", ".join(f"{one.name} ({one.dtype})" for one in fit)
    return passed("models", f"{len(running)} running, {len(fit)} of them can be studied: {names}")


# ── a model on the host ──────────────────────────────────────────────────────────────────────────────────────────────


def examine_hosted(host: "Host", name: str, dtype: str, asking: Asking) -> Iterator[Check]:
    """Is it the model that is meant, what does a job find, and is its chat template sound?"""
    loaded: list[Subject] = []

    def load() -> list[Check]:
        from ssn_probe.model.subject import load_subject

        woken = wake(host, name, dtype, asking)
        loaded.append(load_subject(name, dtype=dtype, remote=host.url, asking=asking))
        return [*woken, *describe_hosted(loaded[0])]

    yield from guarded("model", load)
    for subject in loaded:
        from ssn_probe.doctor.template import check_bos, check_ends, check_template

        yield from guarded("chat template", partial(check_template, subject))
        yield from guarded("BOS", partial(check_bos, subject))
        yield from guarded("end of turn", partial(check_ends, subject))
        yield from guarded("job", partial(check_job, subject))


def wake(host: "Host", name: str, dtype: str, asking: Asking) -> list[Check]:
    """Asks for a model that does not run, with a job for it; the host loads it, or says why not."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

    from ssn_probe.model.loading import locate
    from ssn_probe.model.subject import load_subject
    from ssn_probe.remote.deployments import find_deployment, sleeping
    from ssn_probe.tracing.host_facts import host_facts

    folder = locate(name, weights=False)
    asleep: Deployment | None = sleeping(host, folder)
    if asleep is None:
        return []
    began = time.monotonic()
    host_facts(load_subject(name, dtype=dtype, remote=host.url, deployment=asleep, asking=asking))
    loaded = passed("loading", f"the host loaded {name} for a job, in {time.monotonic() - began:.0f} s")
    attempts = Retrying(
        retry=retry_if_exception_type(RemoteError), stop=stop_after_delay(STALE), wait=wait_fixed(2), reraise=True
    )
    attempts(find_deployment, host, folder)
    return [loaded]


def describe_hosted(subject: "Subject") -> list[Check]:
    """What the host runs, and how long a job may take."""
    from ssn_probe.model.hosted import in_words

    one = subject.deployment
    if one is None:
        raise ModelError(f"{subject.name} runs on this machine.", "Give --remote.")
    kind = f"{subject.name}: {subject.identity['family']}, {subject.n_layers} layers"
    found = passed("model", f"{kind}; {in_words(one)}")
    if one.timeout is None or one.timeout >= SHORT:
        return [found]
    meaning = "A batch of prompts that takes longer is ended, and halved until it is done in time."
    remedy = "Begin with smaller batches: --batch-size 8. Or ask those who run the host for more time."
    return [found, warned("time limit", f"{one.timeout:.0f} s a job", meaning, remedy)]


def check_job(subject: "Subject") -> Check:
    """The smallest job: does it run, on the model that is meant, and may it compute gradients?"""
    from ssn_probe.tracing.host_facts import check_host, host_facts

    began = time.monotonic()
    facts = host_facts(subject)
    check_host(subject)
    took = f"ran in {time.monotonic() - began:.1f} s on {facts.device}"
    if facts.gradients:
        return passed("job", f"{took}, in the model's process: every effect can be measured")
    meaning = (
        "Your key is not trusted there: a job sees neither gradients nor weights, so there is no effect `refusal`."
    )
    remedy = "Everything else works, and -T effect=ablation asks the same: see docs/remote.md, Without a trusted key."
    return warned("job", f"{took}, in a sandbox", meaning, remedy)


def _environment(host: "Host") -> tuple[str | None, Mapping[str, str]]:
    """The Python and the packages there, by the name they are imported as; nothing where the host does not tell."""
    from ssn_probe.remote.host_answers import ask

    try:
        said: Mapping[str, Any] = ask(host, "env")
    except RemoteError:
        return None, {}
    python, packages = said.get("python_version"), said.get("packages")
    if not isinstance(packages, dict):
        packages = {}
    version = python.split()[0] if isinstance(python, str) and python.strip() else None
    return version, {name: one for name, one in packages.items() if isinstance(one, str)}


def _core(version: str | None, parts: int = 3) -> str:
    """A version without its build: 2.13.0+cpu is 2.13.0."""
    return ".".join((version or "").partition("+")[0].split(".")[:parts])
