"""The runs of a results folder as rows: what each asked, what came out, and where its page is. Manifests are enough."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from urllib.parse import quote

from ssn_probe.report.claim import Verdict, kept_claims
from ssn_probe.runs.history import Past
from ssn_probe.text import counted

PAGES = ("report.html", "report.md")
MOST = 300
"""Characters of an answer."""
OPEN = ("running", "killed")
"""Statuses of runs that have not said how they ended."""
VERDICTS = get_args(Verdict)


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """A run. `took`: hours, minutes and seconds. `claims`: what is claimed, and its verdict. `page`: its address
    relative to the results folder, None where there is none, and then `why` says so."""

    name: str
    status: str
    recipe: str = ""
    question: str = ""
    model: str = ""
    took: str = ""
    answer: str = ""
    claims: tuple[tuple[str, str], ...] = ()
    page: str | None = None
    why: str = ""

    @property
    def verdicts(self) -> str:
        """How many claims have which verdict: `2 shown, 1 not testable`."""
        counts = Counter(verdict for _, verdict in self.claims)
        return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def index_rows(past: Sequence[Past], *, live: bool = False) -> list[IndexRow]:
    """A row per run, in their order. `live`: served, so that a run without a page has one of how far it is."""
    return [_row(one, live) for one in past]


def _row(past: Past, live: bool) -> IndexRow:
    manifest = past.manifest
    page = next((name for name in PAGES if _is_file(past.run.path / name)), None)
    page = "" if live and manifest and page != PAGES[0] else page
    answer = manifest.get("answer") or [manifest.get("error") or ""]
    return IndexRow(
        name=past.run.name,
        status=past.status,
        recipe=past.recipe,
        question=str(manifest.get("question", "")),
        model=past.model,
        took=_clock(past.seconds) if past.seconds and past.status not in OPEN else "",
        answer="" if past.status in (*OPEN, "interrupted") else shortened(answer[0]),
        claims=tuple((shortened(one.claim), one.verdict) for one in kept_claims(manifest)),
        page=None if page is None else quote(os.fsencode(f"{past.run.name}/{page}")),
        why=" ".join(_why(past, page)),
    )


def shortened(text: str) -> str:
    """A text of at most `MOST` characters, which ends with a word."""
    return text if len(text) <= MOST else f"{text[:MOST].rpartition(' ')[0] or text[:MOST]} …"


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _why(past: Past, page: str | None) -> Iterator[str]:
    if past.why:
        yield f"{past.why}."
    elif page is None:
        yield "It has no page yet." if past.status == "running" else "It has no page: ssn-probe report makes one."
    if past.status in ("killed", "interrupted"):
        yield "The same command continues it."
    if past.is_changed:
        yield "Its manifest changed after the run: see ssn-probe verify."


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest:02}"


def counted_runs(rows: Sequence[IndexRow]) -> str:
    """How many runs there are, and how they ended: `12 runs: 10 done, 2 failed`."""
    statuses = Counter(row.status for row in rows)
    return f"{counted(len(rows), 'run')}: {', '.join(f'{count} {status}' for status, count in statuses.most_common())}"
