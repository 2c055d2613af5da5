"""Data sets on the hub: one commit is resolved, its tables are downloaded, and read like those of a local folder.

Whatever goes wrong is one error at once, which says what was tried and what to do without the hub.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ssn_probe import limits
from ssn_probe.data.sources.adapters import BY_HUB
from ssn_probe.data.sources.foreign_sets import Opened
from ssn_probe.data.sources.table_files import READ, read_folder
from ssn_probe.errors import DataError, first_line, is_library_failure
from ssn_probe.text import size

HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(:(?P<config>[^@]+))?(@(?P<revision>.+))?")
PATIENCE = 10.0
"""Seconds to wait for the hub's first answer."""


class Snapshot(NamedTuple):
    """The files of one commit, and the licence of its card."""

    folder: Path
    commit: str
    license: str | None


def hub_tables(source: str) -> Opened:
    """The tables that `owner/name`, with a configuration and a revision if you like, has on the hub."""
    asked = HUB_ID.fullmatch(source)
    assert asked is not None
    name, config = asked["id"], asked["config"]
    adapter = None if config else BY_HUB.get(name.casefold())
    patterns, header = (adapter.files, adapter.header) if adapter else ((), ())
    snapshot = _snapshot(name, asked["revision"], patterns)
    tables = read_folder(snapshot.folder, patterns, header, config)
    return Opened(adapter, name, tables, snapshot.license, snapshot.commit)


@lru_cache(maxsize=100)
def _snapshot(name: str, revision: str | None, patterns: Sequence[str]) -> Snapshot:
    from huggingface_hub import constants, snapshot_download

    patterns = patterns or tuple(f"*{suffix}" for suffix in READ)
    wanted = ["README.md", *patterns]
    try:
        if constants.HF_HUB_OFFLINE:
            found = snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=wanted, local_files_only=True
            )
        else:
            _check_size(name, revision, patterns)
            found = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=wanted)
        folder = Path(found)
        return Snapshot(folder, folder.name, _license(folder))
    except DataError:
        raise
    except BaseException as error:
        if not is_library_failure(error):
            raise
        raise _explained(name, revision, error) from error


def _check_size(name: str, revision: str | None, patterns: Sequence[str]) -> None:
    """The hub answers soon, has the revision, and its tables are of a size that can be read."""
    from fnmatch import fnmatch

    from huggingface_hub import HfApi

    info = HfApi().dataset_info(name, revision=revision, timeout=PATIENCE, files_metadata=True)
    files = [one for one in info.siblings or [] if any(fnmatch(one.rfilename, pattern) for pattern in patterns)]
    total = sum(one.size or 0 for one in files)
    if total > limits.PROMPTS:
        raise DataError(
            f"the tables of {name} have {size(total)}, more than the limit of {size(limits.PROMPTS)}",
            "Download what you need with `hf download`, and give the path of that file.",
        )


def _license(folder: Path) -> str | None:
    from huggingface_hub import DatasetCard

    readme = folder / "README.md"
    if not readme.exists():
        return None
    try:
        found = DatasetCard(readme.read_text(encoding="utf-8-sig")).data.get("license")
    except Exception as error:
        raise DataError(f"cannot read {readme}: {first_line(error)}", "Give the path of its tables.") from error
    return ", ".join(found) if isinstance(found, list) else found


def _explained(name: str, revision: str | None, error: BaseException) -> DataError:
    """What happened on the way to a data set, and the way round it."""
    from huggingface_hub import constants

    kinds = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
    adapter = BY_HUB.get(name.casefold())
    page = f"{constants.ENDPOINT}/datasets/{name}"
    short = f"{adapter.name}:PATH" if adapter else "its path"
    local = f"With the files on this machine, give {short} instead (`hf download {name} --repo-type dataset`)."
    if "GatedRepoError" in kinds:
        other = f" Or use {adapter.instead}, which is open." if adapter and adapter.instead else ""
        return DataError(
            f"{name} is gated: its owner asks you to accept conditions",
            f"Accept them on {page}, then log in with `hf auth login`.{other} {local}",
        )
    if "RevisionNotFoundError" in kinds:
        return DataError(f"{name} has no revision {revision!r}", f"{page}/commits/main lists its commits.")
    if "RepositoryNotFoundError" in kinds:
        return DataError(
            f"no data set {name!r} on the hub, or it is private",
            f"Look at {page}, check the spelling, or log in with `hf auth login`. {local}",
        )
    if constants.HF_HUB_OFFLINE or "OfflineModeIsEnabled" in kinds:
        return DataError(
            f"{name} is not in the hub's cache, and HF_HUB_OFFLINE is set",
            f"Unset it to download the set. {local}",
        )
    if kinds & {"ConnectError", "TimeoutException", "NetworkError", "ConnectionError", "ProxyError", "TransportError"}:
        return DataError(
            f"cannot reach the hub: {constants.ENDPOINT} was asked for {name} ({first_line(error)})",
            f"Check the network, or HF_ENDPOINT; HF_HUB_OFFLINE=1 takes what its cache has. {local}",
        )
    return DataError(f"the hub did not give {name}: {first_line(error)}", f"Try again later. {local}")


def _chain(error: BaseException | None):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
