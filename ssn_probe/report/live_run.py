"""A run that has not ended: what is done, what is running, and the answer so far, from what is in its folder."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe import limits
from ssn_probe.errors import ResultError, SSNProbeError
from ssn_probe.report.cells import share_cell
from ssn_probe.report.conditions import by_condition, last_steps
from ssn_probe.report.document import Folded, Part, Section, Table, section
from ssn_probe.report.page.content import Content, facts_of, version_of
from ssn_probe.runs.folder import PROGRESS, RunFolder
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.spec.node import read_json
from ssn_probe.study.arms import BASELINE, TESTED
from ssn_probe.study.pipeline import summary_of
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import duration, percent

REFRESH = 3
"""Seconds until the page is asked for again."""
SHOWN = {"asr": "ASR in %", "over_refusal": "over-refusal in %", "utility": "utility in %"}
SO_FAR = (
    "In brackets: 95 % intervals. Averages leave out the anchor, and what is still to come. Nothing is tested before "
    "the run has ended."
)
MOST = 1_000_000
"""Bytes of a file of progress."""


def live_content(run: RunFolder, manifest: Mapping[str, Any], status: str) -> Content:
    """What a page says of a run that is running."""
    progress = progress_of(run)
    return Content(
        question=manifest["question"].strip() or manifest["recipe"],
        facts=facts_of(manifest),
        status=status,
        beside_status=f"This page is made anew every {REFRESH} seconds.",
        key=manifest["key"],
        version=version_of(manifest),
        answer=list(_in_words(progress, _elapsed(manifest))),
        sections=[*_so_far(run, manifest), *_rows(progress)],
        refresh=REFRESH,
    )


def progress_of(run: RunFolder) -> Mapping[str, Any] | None:
    """What the run last said of how far it is; None where it says nothing, or nothing that can be read."""
    try:
        found = read_json(limits.read_limited(run.path / PROGRESS, MOST, ResultError).decode())
        rows = [{name: row[name] for name in ("label", "done", "total", "seconds")} for row in found["rows"]]
        return {"running": found["running"], "waits": found["waits"], "rows": rows}
    except (ResultError, ValueError, KeyError, TypeError):
        return None


def _elapsed(manifest: Mapping[str, Any]) -> str:
    """How long ago the run began; nothing where that cannot be told."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(manifest["started"])).total_seconds()
    except (ValueError, TypeError, ResultError):
        return ""
    return f", {duration(max(0.0, seconds))} after it began"


def _in_words(progress: Mapping[str, Any] | None, elapsed: str) -> Iterator[str]:
    if progress is None:
        yield "It is at its beginning or end: nothing is said of how far it is."
        return
    done, total = (sum(row[name] for row in progress["rows"]) for name in ("done", "total"))
    share = f" ({percent(done / total, 0)})" if total else ""
    yield f"{done:,} of {total:,} prompts are done{share}{elapsed}."
    if progress["running"]:
        row = next((one for one in progress["rows"] if one["label"] == progress["running"]), None)
        far = f", {row['done']:,} of {row['total']:,} prompts" if row else ""
        if row is None or row["done"] < row["total"]:
            yield f"Now: {progress['running']}{far}."
        else:
            yield f"Last: {progress['running']}{far}. Now: first responses, statistics, nulls or files."
    if progress["waits"]:
        yield progress["waits"]


def _rows(progress: Mapping[str, Any] | None) -> Iterator[Section]:
    if progress is None:
        return
    rows = {True: [], False: []}
    for row in progress["rows"]:
        if row["total"]:
            cells = (
                row["label"],
                f"{row['done']:,}",
                f"{row['total']:,}",
                duration(row["seconds"]) if row["done"] else "",
            )
            rows[row["done"] >= row["total"]].append(cells)
    tables = {done: Table(("work", "done", "of", "took"), tuple(cells)) for done, cells in rows.items() if cells}
    done = Folded(f"Done ({len(rows[True])})", (tables[True],)) if True in tables else None
    yield section("How far it is", tables.get(False), done)


def _so_far(run: RunFolder, manifest: Mapping[str, Any]) -> Iterator[Section]:
    """The figures of the responses that there are, and the neurons; why, where something cannot be read."""
    parts: list[Part] = []
    for read in (_measures, _sets):
        try:
            parts += read(run, manifest)
        except (SSNProbeError, OSError) as error:
            parts.append(f"Something cannot be read as yet: {error}")
    yield section("The answer so far", *parts, SO_FAR)


def _measures(run: RunFolder, manifest: Mapping[str, Any]) -> Iterator[Part]:
    path = next((path for name in ("summary", "samples") if (path := run.path / f"{name}.parquet").is_file()), None)
    if path is None:
        yield "There are no responses yet."
        return
    anchor = next((one.get("anchor") for one in manifest["data"] if one.get("anchor")), None)
    summary = _summary(path, path.stat().st_mtime_ns, anchor)
    rows = summary.filter(pl.col("measure").is_in(list(SHOWN)), pl.col("role").is_in([BASELINE, TESTED]))
    yield from (_table(one, measure) for (measure,), one in rows.group_by("measure", maintain_order=True))


def _sets(run: RunFolder, _manifest: Mapping[str, Any]) -> Iterator[Part]:
    if (run.path / "neurons.parquet").is_file():
        counts = run.table("neurons").group_by("set", "language", maintain_order=True).len()
        languages = list(counts["language"].unique(maintain_order=True))
        rows = {(name, language): f"{count:,}" for name, language, count in counts.iter_rows()}
        sets = counts["set"].unique(maintain_order=True)
        body = tuple((name, *(rows.get((name, one), "0") for one in languages)) for name in sets)
        yield Table(("neurons of the set", *languages), body)


@lru_cache(maxsize=8)
def _summary(path: Path, _changed: int, anchor: str | None) -> pl.DataFrame:
    run = RunFolder(path.parent)
    if path.stem == "summary":
        return run.table("summary")
    return summary_of(find_recipe(str(run.path / "recipe.json"), {}), run.table("samples"), None, None, anchor)


def _table(rows: pl.DataFrame, measure: Any) -> Table:
    columns = by_condition(last_steps(rows))
    languages = [one for one in rows["language"].unique(maintain_order=True) if one != AVERAGE]
    body = [
        (language, *(share_cell(cells[language]) if language in cells else "" for cells in columns.values()))
        for language in (*languages, AVERAGE)
    ]
    return Table((SHOWN[measure], *(condition.title for condition in columns)), tuple(body))
