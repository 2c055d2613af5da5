"""From what a study found to what a reader gets: notes, the answer in words, the charts, `report.md` and the page."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.files import write_text
from ssn_probe.model.kept import NOTHING_KEPT, Kept
from ssn_probe.report import cautions_on_data
from ssn_probe.report.cautions import cautions
from ssn_probe.report.charts.catalogue import charts_of
from ssn_probe.report.charts.chart import figures_of, save_charts
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.markdown import report
from ssn_probe.report.page.content import content_of
from ssn_probe.report.page.page import as_html
from ssn_probe.spec import Prompts, Recipe
from ssn_probe.study.findings import Findings
from ssn_probe.text import listing


def notes_on_data(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> Iterator[str]:
    """What a reader must know of the prompts, before anything is measured."""
    for prompts in data.values():
        for check in cautions_on_data.OF_PROMPTS:
            yield from check(prompts)
    yield from cautions_on_data.learned_and_measured(recipe, data)


def notes_on_findings(recipe: Recipe, findings: Findings) -> Iterator[str]:
    """What a reader must know before trusting a figure."""
    if findings.summary is not None and findings.samples is not None:
        asked = recipe.arms if recipe.primary is None else [recipe.primary]
        falls = bool(asked) and all(recipe.arms[name].lowers for name in asked)
        yield from cautions(findings.summary, findings.samples, findings.anchor, falls=falls)
    if findings.curves_left_out:
        curves = listing(list(findings.curves_left_out))
        yield f"{curves}: averaged over other languages than the rest, so not among the curves"


def write_report(folder: Path, run: FinishedRun, pictures: Kept = NOTHING_KEPT) -> None:
    """Writes `plots/`, `report.md` and `report.html` of a run whose manifest holds the answer.

    `pictures`: where those that were drawn before are found again.
    """
    charts = {name: replace(one, kept=pictures) for name, one in charts_of(run).items()}
    save_charts(charts, folder / "plots")
    write_text(folder / "report.md", report(run, charts))
    write_text(folder / "report.html", as_html(content_of(run, figures_of(charts))))
