"""What a page of a run says, before it is laid out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssn_probe.report.document import Section
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.page.sample_responses import BEGINNING, Requests, Samples, sample_responses
from ssn_probe.report.report_sections import sections_of
from ssn_probe.report.rerun_command import Rerun, rerun_command
from ssn_probe.text import counted

LEADS = ("asr", "comparisons", "overlap")
"""The chart beside the answer: the first of these that a run has, else its first chart."""
REDACTED = (
    f"The first {BEGINNING} characters of some responses to harmful requests, of the same prompts under every arm. "
    "Whole texts are in samples.parquet."
)
DRAWN_BYTES = 2_200_000
"""Bytes of all charts in a page: what goes beyond stays a file in plots/."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """A page's content. `lead`: the chart beside the answer. `omitted`: charts that are too large for a page."""

    question: str
    facts: Sequence[str]
    status: str
    key: str
    version: str
    error: str = ""
    answer: Sequence[str] = ()
    claims: Sequence[Mapping[str, Any]] = ()
    sections: Sequence[Section] = ()
    drawn: Mapping[str, str] = field(default_factory=dict)
    omitted: frozenset[str] = frozenset()
    samples: Samples | None = None
    rerun: Rerun | None = None
    unredacted: bool = False

    @property
    def lead(self) -> str | None:
        return next((name for name in (*LEADS, *self.drawn) if name in self.drawn), None)


def content_of(
    run: FinishedRun, charts: Mapping[str, str], *, requests: Requests | None = None, note: str = REDACTED
) -> Content:
    """What the page of a finished run says. `charts`: SVG by name. `requests`: whole texts are shown; `note`: of what
    responses the page holds."""
    manifest, samples = run.manifest, run.findings.samples
    drawn = _within(charts, DRAWN_BYTES)
    return Content(
        question=run.recipe.question.strip() or run.recipe.name,
        facts=facts_of(manifest),
        status="done",  # the manifest says so only after the page is written
        key=manifest["key"],
        version=manifest["packages"].get("ssn-probe", "of unknown version"),
        answer=manifest["answer"],
        claims=manifest.get("claims") or (),
        sections=sections_of(run),
        drawn=drawn,
        omitted=frozenset(charts) - frozenset(drawn),
        samples=None if samples is None else sample_responses(run.recipe, samples, note, requests),
        rerun=rerun_command(run.recipe, manifest),
        unredacted=requests is not None,
    )


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


def _within(charts: Mapping[str, str], most: int) -> dict[str, str]:
    """The charts in their order, without those that would make more than so many bytes."""
    kept, total = {}, 0
    for name, svg in charts.items():
        if total + len(svg.encode()) <= most:
            kept[name], total = svg, total + len(svg.encode())
    return kept
