"""Where prompt sets come from: the form of the source text decides who finds it.

`organism` and other shipped sets; a path, in this project's format or any that is recognised; a short name, for the hub
or with a path (`multijail:PATH`); a name on the hub (`owner/name`, `owner/name:CONFIG@REVISION`).
"""

import os.path
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from ssn_probe.data.sources.adapters import ADAPTERS, BY_NAME, Adapter
from ssn_probe.data.sources.foreign_sets import ForeignSet, Opened, converted
from ssn_probe.data.sources.local_files import SetFiles, is_own_format, local_files
from ssn_probe.data.sources.recognition import recognised
from ssn_probe.data.sources.table_files import READ, Table, read_file, read_folder
from ssn_probe.errors import DataError, nearest
from ssn_probe.spec.node import brief

SHIPPED = {
    "organism": ("ssn_probe.organism", "data"),
    "lighthouses": ("ssn_probe.data.lighthouses", ""),
    "everyday": ("ssn_probe.data.everyday", ""),
}
"""The name of a set that comes with ssn-probe → its package, and the folder in it."""


def find_set(source: str, role: str) -> SetFiles | ForeignSet:
    """The prompt set that a recipe names. `role`: what its prompts are where the set does not say, such as harmful.

    Raises DataError where there is none, or it cannot be read in one way.
    """
    source = os.path.expanduser(source)
    if source in SHIPPED:
        package, folder = SHIPPED[source]
        return local_files(str(files(package) / folder))
    if os.path.exists(source) and is_own_format(source):
        return local_files(source)
    opened = open_tables(source)
    found = converted(opened.adapter or recognised(opened.name, opened.tables), opened.tables, role)
    return replace(found, revision=opened.revision, license=opened.license or found.license)


def open_tables(source: str) -> Opened:
    """The tables of others that a source text leads to: a path, `NAME:PATH`, a short name, or a name on the hub."""
    if os.path.exists(source):
        return _local(None, Path(source))
    name, colon, place = source.partition(":")
    if colon and name in BY_NAME:
        return _local(BY_NAME[name], Path(os.path.expanduser(place)))
    if source.endswith(READ) or source.startswith((".", "/")):
        return _local(None, Path(source))
    return _on_the_hub(source)


def _local(adapter: Adapter | None, path: Path) -> Opened:
    if not os.path.exists(path):
        raise DataError(f"no prompts in {brief(str(path))}: there is no file or folder of that name", "Check the path.")
    patterns, header = (adapter.files, adapter.header) if adapter else ((), ())
    if os.path.isdir(path):
        return Opened(adapter, path.stem, read_folder(path, patterns, header))
    return Opened(adapter, path.stem, [Table(path, path.stem, read_file(path, header))])


def _on_the_hub(source: str) -> Opened:
    from ssn_probe.data.sources.hub_sets import HUB_ID, hub_tables

    adapter = BY_NAME.get(source)
    if adapter is not None and not adapter.hub:
        raise DataError(f"{source} cannot be downloaded: {adapter.note}", f"Give {source}:PATH.")
    if adapter is None and not HUB_ID.fullmatch(source):
        raise DataError(
            f"no prompt set {brief(source)}",
            f"{nearest(source[:80], [*SHIPPED, *BY_NAME])} With ssn-probe come {', '.join(SHIPPED)}. "
            "Or give a folder with prompts.parquet (or .jsonl, .csv) and dataset.json, a table, or a name on the hub, "
            "owner/name. docs/data.md lists every format.",
        )
    return hub_tables(source if adapter is None else adapter.hub[0])


__all__ = ["ADAPTERS", "ForeignSet", "SetFiles", "find_set", "open_tables"]
