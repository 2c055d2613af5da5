"""Names of columns and fields: a known one in another spelling is a mistake, and not something to leave aside."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ssn_probe.errors import DataError
from ssn_probe.text import plain

LIKENESS = 0.8
"""How similar a name must be to one that is missing: `spilt` to `split`."""
MOST_NAMES = 10_000
INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Columns of row numbers, as pandas writes them."""
SHOWN = 60
"""So many characters of a name are shown."""


def check_names(path: Path, names: Sequence[str], known: Sequence[str], what: str = "column") -> None:
    """Raises DataError for a name that stands twice, or that is nearly a known one."""
    if len(names) > MOST_NAMES:
        raise DataError(f"{path} has {len(names):,} {what}s", f"Give at most {MOST_NAMES:,}: only some are read.")
    for name in names:
        if name in known and names.count(name) > 1:
            raise DataError(f"{path} has the {what} {name!r} {names.count(name)} times", f"Keep one {what} {name!r}.")
    absent = [name for name in known if name not in names]
    for name in names:
        if name in known:
            continue
        meant = [one for one in known if _bare(name) == _bare(one)] or _similar(name, absent)
        if meant:
            hint = f"Did you mean {meant[0]!r}? Rename or remove the {what}."
            raise DataError(f"{path} has the unknown {what} {shortened(name)}", hint)


def unused_names(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Names that nothing reads, as a note can show them."""
    unused = {name for name in names if name not in known and not INDEX.fullmatch(name)}
    return sorted(plain(name)[:SHOWN] or shortened(name) for name in unused)


def shortened(name: str) -> str:
    """A name, quoted."""
    return repr(name if len(name) <= SHOWN else f"{name[:SHOWN]}…")


def _bare(name: str) -> str:
    return name.strip().strip("\"'`").strip().casefold().replace(" ", "_").replace("-", "_")


def _similar(name: str, known: Sequence[str]) -> list[str]:
    """A known name that was misspelled: not another word (`preference`), nor the first of its words (`prompt`)."""
    bare = _bare(name)
    meant = [one for one in known if one[:1] == bare[:1] and not one.startswith(f"{bare}_")]
    return difflib.get_close_matches(bare, meant, n=1, cutoff=LIKENESS) if len(name) <= SHOWN else []
