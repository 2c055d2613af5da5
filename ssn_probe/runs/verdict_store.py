"""Verdicts that cost something, kept by content: `cache/verdicts/<digest of the judge's identity>.jsonl`.

A line is one verdict under the digest of language, request and response, so runs share verdicts and no text is kept.
Lines are appended and synced batch by batch: a kill loses the batch in flight, and its torn line is passed over. What
one process has kept, all others take: no response has two verdicts of one judge, though a service may answer otherwise
tomorrow. `--fresh` keeps them, too; to ask a judge again, remove its file.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ssn_probe.data.judges import VERDICTS, Judge, JudgedRow, Judgement
from ssn_probe.data.judges.verdicts import HalfJudged
from ssn_probe.errors import JudgeError
from ssn_probe.files import disk_errors
from ssn_probe.runs.cache import NotCached
from ssn_probe.spec.node import digest

FOLDER = "verdicts"
BATCH = 32
"""Responses that are judged before their verdicts are written."""


def stored(judge: Judge, cache: Path, *, compute: bool = True) -> Judge:
    """The judge, asked only for what the store of this cache lacks; as it is where its verdicts cost nothing.

    With `compute=False` it is never asked: what the store lacks raises NotCached.
    """
    if not judge.stored:
        return judge
    kept = _Kept(cache / FOLDER / f"{digest(dict(judge.identity))}.jsonl")

    def look_up(rows: Sequence[JudgedRow]) -> list[Judgement]:
        keys = [digest([row.language, row.request, row.response]) for row in rows]
        kept.refresh()
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in kept.found}
        if missing and not compute:
            raise NotCached({"method": f"verdicts of {judge.name}"})
        waiting = list(missing.items())
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            try:
                found = judge.judge([row for _, row in batch])
            except HalfJudged as error:
                kept.append({batch[number][0]: one for number, one in error.finished.items()})
                raise
            if len(found) != len(batch):
                raise JudgeError(
                    f"the judge {judge.name} gave {len(found)} verdicts for {len(batch)} responses",
                    "A judge gives one verdict for each response, in their order.",
                )
            kept.append({key: one for (key, _), one in zip(batch, found, strict=True)})
        return [kept.found[key] for key in keys]

    return replace(judge, judge=look_up)


@dataclass
class _Kept:
    """The verdicts of one file, and how far it was read."""

    path: Path
    found: dict[str, Judgement] = field(default_factory=dict)
    read: int = 0

    def refresh(self) -> None:
        """Reads the whole lines that were added since."""
        if not self.path.exists():
            return
        with disk_errors(self.path), self.path.open("rb") as file:
            file.seek(self.read)
            whole = file.read().rpartition(b"\n")
        self.read += len(whole[0]) + len(whole[1])
        for line in whole[0].splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            key, verdict, reason = json.loads(line)
        except (TypeError, ValueError, RecursionError):  # torn by a kill, or anything else
            return
        if isinstance(key, str) and verdict in VERDICTS and isinstance(reason, str):
            self.found.setdefault(key, Judgement(verdict, reason))

    def append(self, verdicts: Mapping[str, Judgement]) -> None:
        """Adds what nobody else has added meanwhile, on disk when this returns."""
        from filelock import FileLock

        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")), self.path.open("ab+") as file:
                self.refresh()
                torn = file.seek(0, os.SEEK_END) > self.read
                lines = [_line(key, one) for key, one in verdicts.items() if key not in self.found]
                file.write(b"\n" * torn + b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
            self.refresh()


def _line(key: str, judgement: Judgement) -> bytes:
    return json.dumps([key, judgement.verdict, judgement.reason]).encode() + b"\n"
