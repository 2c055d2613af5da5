"""What a page of a run says, before it is laid out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ssn_probe.report.charts.chart import Figure
from ssn_probe.report.document import Bullets, Section, Table, section
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.page.sample_responses import BEGINNING, Requests, Samples, sample_responses
from ssn_probe.report.report_sections import sections_of
from ssn_probe.report.rerun_command import Rerun, rerun_command
from ssn_probe.spec import Recipe
from ssn_probe.text import counted

LEADS = ("dissociation", "asr", "comparisons", "overlap")
"""The chart beside the answer: the first of these that a run has, else its first chart."""
DRAWN_BYTES = 2_200_000
"""Bytes of all charts in a page: what goes beyond stays a file in plots/."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """A page's content. `lead`: the chart beside the answer. `omitted`: charts that are too large for a page.
    `beside_status`: what a reader must know of a run that is not done.
    `refresh`: seconds after which a browser asks for the page again, 0: never."""

    question: str
    facts: Sequence[str]
    status: str
    key: str
    version: str
    beside_status: str = ""
    answer: Sequence[str] = ()
    claims: Sequence[Mapping[str, Any]] = ()
    sections: Sequence[Section] = ()
    drawn: Mapping[str, Figure] = field(default_factory=dict)
    omitted: frozenset[str] = frozenset()
    samples: Samples | None = None
    rerun: Rerun | None = None
    unredacted: bool = False
    refresh: int = 0

    @property
    def lead(self) -> str | None:
        return next((name for name in (*LEADS, *self.drawn) if name in self.drawn), None)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Whole requests for a page that is not for others, or why it has none. Neither: a page that can be shared."""

    requests: Requests | None = None
    why: str = ""

    @property
    def note(self) -> str:
        """What of the responses is in the page."""
        if self.requests is not None:
            return "Some responses to harmful requests, of the same prompts under every arm."
        begun = (
            f"The first {BEGINNING} characters of some responses to harmful requests, of the same prompts under every "
            "arm. "
        )
        left = f"The rest and the requests are left out: {self.why}." if self.why else "samples.parquet has the rest."
        return begun + left


REDACTED = Texts()


def content_of(run: FinishedRun, charts: Mapping[str, Figure], texts: Texts = REDACTED) -> Content:
    """What the page of a finished run says. `charts`: by name."""
    manifest, samples, drawn = run.manifest, run.findings.samples, _within(charts, DRAWN_BYTES)
    return Content(
        question=run.recipe.question.strip() or run.recipe.name,
        facts=facts_of(manifest),
        status="done",
        key=manifest["key"],
        version=version_of(manifest),
        answer=manifest["answer"],
        claims=manifest.get("claims") or (),
        sections=sections_of(run),
        drawn=drawn,
        omitted=frozenset(charts) - frozenset(drawn),
        samples=None if samples is None else sample_responses(run.recipe, samples, texts.note, texts.requests),
        rerun=rerun_command(run.recipe, manifest),
        unredacted=texts.requests is not None,
    )


def content_of_unfinished(
    recipe: Recipe | None, manifest: Mapping[str, Any], status: str, tables: Mapping[str, pl.DataFrame], texts: Texts
) -> Content:
    """What the page of a run that has not ended well says: how far it came, and what it had measured.

    `recipe` is None where the run ended before it was written.
    """
    samples = None
    if recipe is not None and "samples" in tables:
        samples = sample_responses(recipe, tables["samples"], texts.note, texts.requests)
    return Content(
        question=manifest["question"].strip() or manifest["recipe"],
        facts=facts_of(manifest),
        status=status,
        beside_status=manifest.get("error") or "",
        key=manifest["key"],
        version=version_of(manifest),
        answer=["There is no answer yet. The same command continues where the run was: what it measured is kept."],
        sections=list(_how_far(manifest, tables)),
        samples=samples,
        rerun=None if recipe is None else rerun_command(recipe, manifest),
        unredacted=texts.requests is not None,
    )


def _how_far(manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> Iterator[Section]:
    if manifest.get("warnings"):
        yield section("Notes", Bullets(tuple(manifest["warnings"])))
    rows = tuple((f"{name}.parquet", f"{table.height:,}") for name, table in tables.items())
    there = Table(("table", "rows"), rows) if rows else "No table was written."
    yield section("What is there", there)


def version_of(manifest: Mapping[str, Any]) -> str:
    """The release of ssn-probe that made a run."""
    return manifest["packages"].get("ssn-probe", "of unknown version")


def facts_of(manifest: Mapping[str, Any]) -> list[str]:
    """Recipe, model, data, languages and date, as far as they are known."""
    data = manifest.get("data") or []
    languages = manifest.get("evaluated") or []
    return [
        manifest["recipe"],
        f"model {manifest['model']['name']}",
        *(f"data {name}" for name in dict.fromkeys(one.get("name", "") for one in data)),
        *([counted(len(languages), "language")] if languages else []),
        manifest["started"][:10],
    ]


def _within(charts: Mapping[str, Figure], most: int) -> dict[str, Figure]:
    """The charts in their order, without those that would make more than so many bytes."""
    kept, total = {}, 0
    for name, figure in charts.items():
        if total + len(figure.svg.encode()) <= most:
            kept[name], total = figure, total + len(figure.svg.encode())
    return kept
