"""All runs of a results folder as one page, with a filter and each run's page a click away."""

from collections.abc import Sequence

from ssn_probe import __version__
from ssn_probe.report.page.page import rendered
from ssn_probe.report.run_index import IndexRow, counted_runs

STYLES, SCRIPTS = ("page.css", "runs.css"), ("sort.js", "filter.js")
FACETS = ("status", "recipe", "model")


def index_page(rows: Sequence[IndexRow], folder: str, *, refresh: int = 0) -> str:
    """The page. `folder`: what the results folder is called; `refresh`: seconds until it is asked for again."""
    facets = {name: sorted({getattr(row, name) for row in rows} - {""}) for name in FACETS}
    counts = counted_runs(rows) if rows else ""
    known = {"rows": rows, "folder": folder, "facets": facets, "counts": counts, "version": __version__}
    return rendered("runs.html", STYLES, SCRIPTS, refresh=refresh, **known)
