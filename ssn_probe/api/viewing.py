"""All runs of a results folder, to look at: one page that needs no server."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ssn_probe.errors import ResultError
from ssn_probe.files import write_text
from ssn_probe.report.page.index_page import index_page
from ssn_probe.report.run_index import PAGES, index_rows
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.history import history

INDEX = "index.html"


def write_index(root: Path) -> Path:
    """Writes the page of all runs into their folder, and returns its path. Raises ResultError where there is none."""
    check_folder(root)
    write_text(root / INDEX, index_page(index_rows(history(root)), str(root)))
    return root / INDEX


def check_folder(root: Path) -> None:
    """Raises ResultError where there is no results folder."""
    if not root.is_dir():
        raise ResultError(f"{root} is not a folder", "Name the results folder: -o DIR.")
