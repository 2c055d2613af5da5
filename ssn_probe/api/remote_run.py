"""A run whose model is on a host: what is asked before prompts are sent, shown meanwhile, and written down."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.prompt import Confirm
from rich.text import Text

from ssn_probe.errors import RemoteError
from ssn_probe.model.subject import Subject
from ssn_probe.remote.journal import Journal
from ssn_probe.runs.cache import Cache
from ssn_probe.study.plan import Plan
from ssn_probe.study.progress import Tracker
from ssn_probe.study.remote_plan import must_be_confirmed, plan_of_run
from ssn_probe.text import counted, duration, listing, plain
from ssn_probe.tracing.host_facts import host_facts


def confirm_sending(
    console: Console, subject: Subject, plan: Plan, root: Path, lengths: pl.DataFrame, *, fresh: bool, yes: bool
) -> None:
    """Says what the run will send to its host, and asks where it is much and nobody has said yes before.

    Raises RemoteError where the answer is no, or nobody can be asked.
    """
    if subject.calls is None:
        return
    subject.calls.journal = Journal(folder=root / "jobs", fresh=fresh)
    lookup = Cache(root=root / "cache", fresh=fresh, compute=False)
    sends = plan_of_run(subject, plan, lookup, lengths)
    facts, tally = host_facts(subject), subject.calls.tally
    allowed = "with gradients" if facts.gradients else "in the sandbox, without gradients"
    tried = f"One smallest job came back after {duration(tally.waited)}, {allowed}."
    for line in (*sends.lines(), tried):
        console.print(Text(plain(line)))
    if yes or not must_be_confirmed(sends, sys.stdin.isatty() and console.is_terminal):
        return
    if not Confirm.ask("Send them?", console=console, default=False):
        raise RemoteError("Nothing was sent.", "--yes sends without asking; `ssn-probe show … --remote` tells more.")


@contextmanager
def watched(subject: Subject, tracker: Tracker) -> Iterator[None]:
    """Shows how the jobs at the host are; after Ctrl-C, says which of them run on."""
    calls = subject.calls
    if calls is None:
        yield
        return
    calls.tell = tracker.beside
    try:
        yield
    except KeyboardInterrupt:
        if calls.tally.left:
            raise KeyboardInterrupt(_left(subject, calls.tally.left)) from None
        raise
    finally:
        calls.tell = lambda _text: None


def _left(subject: Subject, jobs: list[str]) -> str:
    one = len(jobs) == 1
    return (
        f"{counted(len(jobs), 'job')} {'runs' if one else 'run'} on at {subject.place}, since a host cancels none: "
        f"{listing(jobs)}. What {'it gives' if one else 'they give'} is taken up by the same command."
    )


def remote_json(subject: Subject) -> dict[str, Any] | None:
    """Of the manifest: which host ran the model, and how much travelled; None for a model on this machine."""
    if subject.calls is None or subject.host is None or subject.deployment is None:
        return None
    return {
        "host": subject.host.url,
        "deployment": subject.deployment.key,
        "dtype": subject.deployment.dtype,
        "gradients": host_facts(subject).gradients,
    } | subject.calls.tally.to_json()
