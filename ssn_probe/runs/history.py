"""The history of runs: how each ended, filtered and sorted."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssn_probe.errors import ResultError
from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.manifest import is_intact

STATUSES = ("done", "superseded", "failed", "interrupted", "killed", "running", "unreadable")


@dataclass(frozen=True, kw_only=True)
class Past:
    """A past run.

    `status` is that of its manifest, `superseded` if a later run with the same key is done, or `unreadable`, with the
    reason in `why`, if its manifest cannot be read. `is_changed`: its manifest does not match the digest of itself.
    `manifest`: all of it, empty where it cannot be read.
    """

    run: RunFolder
    status: str
    recipe: str = ""
    model: str = ""
    seconds: float = 0.0
    why: str = ""
    is_changed: bool = False
    manifest: Mapping[str, Any] = field(default_factory=dict)


ORDERS: Mapping[str, tuple[Callable[[Past], Any], bool]] = {
    "time": (lambda _past: 0, False),
    "recipe": (lambda past: past.recipe, False),
    "model": (lambda past: past.model, False),
    "status": (lambda past: STATUSES.index(past.status), False),
    "seconds": (lambda past: past.seconds, True),
}
"""Order → the value to sort by, and whether the largest comes first; equal values stay newest first."""


def history(
    root: Path, *, order: str = "time", status: str | None = None, recipe: str = "", model: str = ""
) -> list[Past]:
    """The runs in `root` with this status, whose names of recipe and model contain these texts."""
    found = [
        past
        for past in _every(results.runs(root))
        if status in (None, past.status) and recipe in past.recipe and model in past.model
    ]
    key, largest_first = ORDERS[order]
    return sorted(found, key=key, reverse=largest_first)


def _every(runs: Sequence[RunFolder]) -> list[Past]:
    """All runs, newest first. A run that is done is superseded by a newer one that is done with the same key."""
    found, repeated = [], set()
    for run in runs:
        try:
            manifest = run.manifest()
        except ResultError as error:
            why = error.message.replace(f"{run.path}{os.sep}", "")
            found.append(Past(run=run, status="unreadable", why=why))
            continue
        status, key = results.status(run, manifest), manifest.get("key")
        if status == "done":
            status = "superseded" if key in repeated else "done"
            repeated.add(key)
        found.append(_past(run, manifest, status))
    return found


def _past(run: RunFolder, manifest: Mapping[str, Any], status: str) -> Past:
    known = status in STATUSES
    return Past(
        run=run,
        status=status if known else "unreadable",
        recipe=manifest.get("recipe", ""),
        model=manifest.get("model", {}).get("name", ""),
        seconds=sum(manifest.get("seconds", {}).values()),
        why="" if known else f"the manifest has the unknown status {status[:40]!r}",
        is_changed=is_intact(run.as_written()) is False,
        manifest=manifest,
    )
