"""The page of all runs, as a file and served: what is chosen is shown, a click opens a run, and rows sort."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsing import Visit

from ssn_probe.api.view_server import serving

pytestmark = pytest.mark.page
Opened = Callable[..., AbstractContextManager[Visit]]
SHOWN = "[...document.querySelectorAll('table.runs tbody tr:not([hidden]) .run')].map(one => one.textContent.trim())"


@pytest.fixture(scope="module")
def runs(page_of: Callable[[str], Path]) -> Path:
    return page_of("runs")


def test_runs_are_found_by_words_and_by_what_they_are(runs: Path, visit: Opened) -> None:
    with visit(runs) as seen:
        everything = seen.page.evaluate(SHOWN)
        assert len(everything) == 3
        seen.page.get_by_label("words").fill("MEMORY ran")
        assert len(seen.page.evaluate(SHOWN)) == 1
        assert seen.text("output") == "1 of 3 shown"
        seen.page.get_by_label("words").fill("")
        seen.page.get_by_label("status").select_option("done")
        assert len(seen.page.evaluate(SHOWN)) == 2
        seen.page.get_by_label("recipe").select_option("smallest")
        assert ["smallest" in name for name in seen.page.evaluate(SHOWN)] == [True]
        seen.page.get_by_label("status").select_option("failed")
        assert seen.page.evaluate(SHOWN) == []
        assert seen.said == []


def test_runs_sort_and_open(runs: Path, visit: Opened) -> None:
    with visit(runs) as seen:
        before = seen.page.evaluate(SHOWN)
        seen.page.locator("table.runs thead button").first.click()
        assert seen.page.evaluate(SHOWN) == sorted(before)
        seen.page.get_by_role("link", name="smallest").click()
        assert seen.page.url.endswith("/report.html")
        assert "What does silencing them change?" in seen.text("h1")
        assert len(seen.requests) == 2
        assert seen.said == []


def test_served_runs_ask_this_machine_alone(runs: Path, visit: Opened) -> None:
    with serving(runs.parent) as address, visit(address) as seen:
        assert len(seen.page.evaluate(SHOWN)) == 3
        for name in ("hostile", "failing"):
            seen.page.locator(f"table.runs .run a[href*={name}]").click()
            assert seen.page.locator("h1").count() == 1
            assert seen.page.evaluate("window.planted === undefined")
            seen.page.go_back()
        assert {urlsplit(one).netloc for one in seen.requests} == {urlsplit(address).netloc}
        assert (seen.said, seen.opened) == ([], [])
