"""The report of a run on disk, written again: of a run that is done, or that ended before. No model is loaded."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssn_probe.data.redistribution import why_redacted
from ssn_probe.errors import SSNProbeError
from ssn_probe.files import disk_errors, write_text
from ssn_probe.report.charts.catalogue import charts_of
from ssn_probe.report.charts.chart import figures_of, kept_pictures
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.page.content import REDACTED, Content, Texts, content_of, content_of_unfinished
from ssn_probe.report.page.page import as_html
from ssn_probe.report.past_run import past_run
from ssn_probe.report.run_report import write_report
from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.integrity import showing
from ssn_probe.runs.manifest import is_intact, write_manifest
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.past_plan import past_plan
from ssn_probe.study.resolve import measured

PAGE, UNREDACTED = "report.html", "report-unredacted.html"
WRITTEN = ("plots/", "report.", "report-")
"""How the names of a report's files begin."""


def write_pages(run: RunFolder, *, unredacted: bool = False) -> Path:
    """Writes the report of a run anew, and returns the path of its page.

    Of a run that is done: `plots/`, report.md and report.html, with their digests. Of another one: a page of what is
    there. `unredacted`: only a page of its own, with whole requests and responses where their licence allows it.

    Raises ResultError where the run cannot be read, or its folder not be written.
    """
    manifest = run.manifest()
    status = results.status(run, manifest)
    path = run.path / (UNREDACTED if unredacted else PAGE)
    with showing(run):
        if status == "done" and not unredacted:
            write_finished(run, past_run(run))
            return path
        texts = _texts(run, manifest) if unredacted else REDACTED
        html = as_html(_content(run, manifest, status, texts))
    if status == "done":
        _write(run, lambda: write_text(path, html))
    else:
        write_text(path, html)
    return path


def page_of(run: RunFolder) -> str:
    """The page that `write_pages` would write. Raises ResultError where the run cannot be read."""
    manifest = run.manifest()
    with showing(run):
        return as_html(_content(run, manifest, results.status(run, manifest), REDACTED))


def write_finished(run: RunFolder, found: FinishedRun) -> None:
    """Writes `plots/`, report.md and report.html of a run that is done, and their digests into its manifest."""
    _write(run, lambda: write_report(run.path, found, kept_pictures(run.path.parent / "cache")))


def _content(run: RunFolder, manifest: Mapping[str, Any], status: str, texts: Texts) -> Content:
    if status == "done":
        found = past_run(run)
        return content_of(found, figures_of(charts_of(found)), texts)
    recipe = find_recipe(str(run.path / "recipe.json"), {}) if (run.path / "recipe.json").is_file() else None
    tables = {path.stem: run.table(path.stem) for path in sorted(run.path.glob("*.parquet"))}
    return content_of_unfinished(recipe, manifest, status, tables, texts)


def _texts(run: RunFolder, manifest: Mapping[str, Any]) -> Texts:
    """The requests of a run, and that its responses may be shown; or why neither may."""
    try:
        plan = past_plan(run, manifest, "The page needs the requests")
    except SSNProbeError as error:
        return Texts(why=f"their prompts cannot be read ({error.message})")
    prompts = measured(plan.recipe, plan.data).get("harmful")
    if prompts is None:
        return Texts(why="none were asked")
    why = [why_redacted(node.source, each.license) for node, each in plan.data.items() if each is prompts]
    if why[0] is not None:
        return Texts(why=why[0])
    rows = prompts.select("evaluate", "harmful").select("prompt_id", "language", "text")
    return Texts(requests={(prompt, language): text for prompt, language, text in rows.iter_rows()})


def _write(run: RunFolder, write: Callable[[], object]) -> None:
    """Writes files of a report; the manifest then names their digests.

    A manifest that somebody changed stays as it is: with a new digest it would pass for what the run wrote.
    """
    with disk_errors(run.path), results.alone(run):
        write()
        kept = run.as_written()
        if "files" in kept and is_intact(kept) is not False:
            digests = {name: found for name, found in results.digests(run).items() if name.startswith(WRITTEN)}
            write_manifest(
                run.path / "manifest.json", kept | {"files": dict(sorted((kept["files"] | digests).items()))}
            )
