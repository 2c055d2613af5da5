"""A browser for the tests of pages: Chromium as the system has it, which asks nothing of the network by itself."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from browsing import Visit, visiting
from pages import STUDIES, written

FLAGS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"),
)


def chromium() -> str:
    """The browser's path, found as `.ci/chromium.sh` finds it."""
    names = (os.environ.get("SSN_PROBE_CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    assert found is not None, "there is no Chromium: `make test-page` installs it, or says how"
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Callable[..., AbstractContextManager[Visit]]:
    """Opens a file in a new context of the browser, see `visiting`."""

    @contextmanager
    def opened(path: Path, **context: Any) -> Iterator[Visit]:
        with visiting(browser, path, **context) as visit:
            yield visit

    return opened


@pytest.fixture(scope="session")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of a made-up study by its name, written once."""

    @cache
    def page(name: str) -> Path:
        folder = tmp_path_factory.mktemp("study")
        return written(folder, STUDIES[name]()).path / "report.html"

    return page


@pytest.fixture(scope="module", params=STUDIES)
def report(request: pytest.FixtureRequest, report_of: Callable[[str], Path]) -> Path:
    """The page of every made-up study in turn."""
    return report_of(request.param)
