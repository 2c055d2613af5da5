"""All runs of a results folder, to look at: one page that needs no server."""

from collections.abc import Callable
from pathlib import Path

from ssn_probe.api.pages import PAGE, write_pages
from ssn_probe.errors import ResultError, SSNProbeError
from ssn_probe.files import write_text
from ssn_probe.report.page.index_page import index_page
from ssn_probe.report.run_index import index_rows
from ssn_probe.runs.history import Past, history

INDEX = "index.html"


def write_index(root: Path, *, pages: bool = True, say: Callable[[str], None] = lambda _text: None) -> Path:
    """Writes the page of all runs into their folder, and returns its path.

    `pages`: runs that have ended without a page get theirs, as far as that can be made; `say` is told of each, or why
    not. Raises ResultError where there is no such folder, or it cannot be written.
    """
    if not root.is_dir():
        raise ResultError(f"{root} is not a folder", "Name the results folder: -o DIR.")
    past = history(root)
    for one in past if pages else ():
        _make_page(one, say)
    write_text(root / INDEX, index_page(index_rows(past), str(root)))
    return root / INDEX


def _make_page(past: Past, say: Callable[[str], None]) -> None:
    if past.status in ("running", "unreadable") or (past.run.path / PAGE).is_file():
        return
    try:
        say(f"Written to {write_pages(past.run)}")
    except SSNProbeError as error:
        say(f"{past.run.name} gets no page: {error.message}")
