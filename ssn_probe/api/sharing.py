"""A finished run as a data set: a folder that `datasets` loads, or a repository on the hub made of it."""

import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.data.redistribution import why_redacted
from ssn_probe.errors import RemoteError, ResultError, first_line
from ssn_probe.files import disk_errors, sha256, write_json, write_table, write_text
from ssn_probe.report.charts.catalogue import charts_of
from ssn_probe.report.charts.chart import figures_of, save_charts
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.page.content import content_of
from ssn_probe.report.page.page import as_html
from ssn_probe.report.past_run import past_run
from ssn_probe.report.rerun_command import shared_rerun
from ssn_probe.report.sharing.croissant import croissant
from ssn_probe.report.sharing.dataset_card import PAPER, dataset_card, licence, title
from ssn_probe.report.sharing.private import paths_in, shared_manifest, without_paths
from ssn_probe.report.sharing.redacted import redacted_findings, redacted_tables
from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.integrity import showing
from ssn_probe.spec.node import from_json, to_json

RUN, TABLES, PLOTS = "run.json", "tables", "plots"
HUB = "hub:"


@dataclass(frozen=True, kw_only=True)
class Shared:
    """`what`: a line per file, or group of files, that was written."""

    where: str
    what: tuple[str, ...]


def share(run: RunFolder, to: str, *, with_text: bool = False, yes: bool = False, public: bool = False) -> Shared:
    """Writes a run into a folder, or uploads it to `hub:owner/name`: private unless `public`, and only with `yes`.

    Raises ResultError for a run that is not done, a folder that holds something else, or texts that must not be passed
    on; RemoteError where the hub refuses.
    """
    if not to.startswith(HUB):
        return _write(run, Path(to), with_text)
    with tempfile.TemporaryDirectory() as folder:
        made = _write(run, Path(folder), with_text)
        visible = "for everybody to see" if public else "private"
        if not yes:
            listed = "\n".join(f"  {line}" for line in made.what)
            raise RemoteError(
                f"Nothing was uploaded. This would go to {to}, {visible}:\n{listed}", "Add --yes to upload it."
            )
        return replace(made, where=_upload(Path(folder), to.removeprefix(HUB), private=not public))


def _write(run: RunFolder, folder: Path, with_text: bool) -> Shared:
    manifest = run.manifest()
    if results.status(run, manifest) != "done":
        raise ResultError(f"{run.name} is not done", "Share a run that has ended well.")
    why = _why_redacted(manifest)
    if with_text and why is not None:
        raise ResultError(f"Texts of {run.name} cannot be shared: {why}", "Leave out --with-text.")
    whole = {"why": why, "whole": with_text}
    with showing(run):
        found = past_run(run)
        tables = {path.stem: run.table(path.stem) for path in sorted(run.path.glob("*.parquet"))}
    known = paths_in([manifest, to_json(found.recipe)])
    # `datasets` loads no table without rows.
    tables = redacted_tables({name: _clean(table, known) for name, table in tables.items() if table.height}, **whole)
    recipe = from_json(without_paths(to_json(found.recipe), known))
    found = FinishedRun(
        recipe=recipe,  # type: ignore[arg-type]
        manifest=shared_manifest(manifest, known),
        findings=redacted_findings(found.findings, **whole),
    )
    _make_room(folder, manifest)
    with _or_nothing(folder), disk_errors(folder), showing(run):
        _write_files(folder, found, tables, _texts_in_words(**whole))
    sizes = {name: (folder / TABLES / f"{name}.parquet").stat().st_size for name in tables}
    rows = tuple(
        f"{TABLES}/{name}.parquet: {table.height:,} rows, {sizes[name]:,} bytes" for name, table in tables.items()
    )
    others = tuple(path.name for path in sorted(folder.iterdir()) if path.name != TABLES)
    return Shared(where=str(folder), what=(*rows, ", ".join(others), _texts_in_words(**whole)))


@contextmanager
def _or_nothing(folder: Path) -> Iterator[None]:
    """Half of a data set would look like a whole one: where its making fails, nothing of it stays."""
    try:
        yield
    except BaseException:
        for path in sorted(folder.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _write_files(folder: Path, run: FinishedRun, tables: Mapping[str, pl.DataFrame], texts: str) -> None:
    (folder / TABLES).mkdir(parents=True)
    for name, table in tables.items():
        write_table(folder / TABLES / f"{name}.parquet", table)
    charts = charts_of(run)
    save_charts(charts, folder / PLOTS)
    content = replace(content_of(run, figures_of(charts)), rerun=shared_rerun(run.recipe, run.manifest))
    write_text(folder / "report.html", as_html(content))
    write_json(folder / "recipe.json", to_json(run.recipe))
    write_json(folder / RUN, dict(run.manifest))
    write_text(folder / "README.md", dataset_card(run, tables, texts))
    digests = {name: sha256(folder / TABLES / f"{name}.parquet") for name in tables}
    write_json(folder / "croissant.json", croissant(_about(run), tables, digests))


def _about(run: FinishedRun) -> dict[str, Any]:
    return {
        "name": title(run),
        "description": f"{run.recipe.question} {' '.join(run.manifest['answer'])}",
        "license": licence(run.manifest),
        "inLanguage": list(run.manifest["evaluated"]),
        "datePublished": str(run.manifest["started"])[:10],
        "version": "1.0.0",
        "citeAs": PAPER,
    }


def _why_redacted(manifest: Mapping[str, Any]) -> str | None:
    reasons = (why_redacted(str(one["source"]), one.get("license")) for one in manifest["data"])
    return next((reason for reason in reasons if reason is not None), None)


def _texts_in_words(*, why: str | None, whole: bool) -> str:
    if why is not None:
        return f"The tables hold no response: {why}."
    if whole:
        return "The tables hold whole responses, also to harmful requests: they may be harmful."
    return "The tables hold no response to a harmful request, and the beginning of others."


def _clean(table: pl.DataFrame, known: Collection[str]) -> pl.DataFrame:
    """Without paths where messages are kept; responses are the model's own words, and are left as they are."""
    columns = [name for name in ("reason", "error") if name in table.columns]
    return table.with_columns(
        pl.col(name).map_elements(partial(without_paths, known=known), pl.String) for name in columns
    )


def _make_room(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raises ResultError for a folder with something else in it; removes what an earlier share of this run left."""
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise ResultError(f"{folder} is a file.", "Name a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            return
        if not _same_run(folder / RUN, manifest):
            hint = "Name a folder that is empty, or one to which this run was shared."
            raise ResultError(f"{folder} holds something else.", hint)
        for name in (TABLES, PLOTS):
            shutil.rmtree(folder / name, ignore_errors=True)


def _same_run(path: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        return all(before[name] == manifest[name] for name in ("key", "started"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _upload(folder: Path, name: str, *, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api: Any = HfApi()
    try:
        made = api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        if api.repo_info(name, repo_type="dataset").private != private:
            hint = "Choose another name, or change who may see it on the hub; --public is for everybody."
            raise RemoteError(f"{name} exists on the hub, and is {'public' if private else 'private'}", hint)
        api.upload_folder(repo_id=name, folder_path=folder, repo_type="dataset", commit_message="A run of ssn-probe")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        hint = "Is the name owner/name, and does `hf auth whoami` know you? Then try again."
        raise RemoteError(f"The hub did not take {name}: {first_line(error)}", hint) from error
    return str(made)
