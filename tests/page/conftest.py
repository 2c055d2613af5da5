"""A browser for the tests of pages: Chromium as the system has it, which asks nothing of the network by itself."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from browsing import Visit, visiting
from pages import STUDIES, failed, failing, hostile, smallest, without_report, written
from sketches import as_drawn

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress, Utility
from ssn_probe.api.comparing import compare
from ssn_probe.api.pages import write_pages
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.viewing import write_index
from ssn_probe.report.terminal.command_output import console

FLAGS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
)


def chromium() -> str:
    """The browser's path, found as `.ci/chromium.sh` finds it."""
    names = (os.environ.get("SSN_PROBE_CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    assert found is not None, "there is no Chromium: `make test-page` installs it, or says how"
    return found


ORGANISM = Prompts("organism", languages=("qaa", "qab"), limit=40)
REAL = Recipe(
    name="real",
    question="What does a run of the organism look like?",
    arms={"ss": Suppress(Shared(SafetyNeurons(ORGANISM)))},
    measures=(ASR(ORGANISM), Utility(ORGANISM)),
    comparisons=("random",),
    controls=1,
    log_odds_label_sets=0,
    permutations=99,
    half_samples=2,
)
"""A run of a model, as small as can be."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Callable[..., AbstractContextManager[Visit]]:
    """Opens a page in a new context of the browser, see `visiting`."""

    @contextmanager
    def opened(page: Path | str, **context: Any) -> Iterator[Visit]:
        with visiting(browser, page, **context) as visit:
            yield visit

    return opened


def real(folder: Path) -> Path:
    terminal = console()
    terminal.quiet = True
    return run_recipe(REAL, Options(out=folder, device="cpu"), terminal).path / "report.html"


def broken_off(folder: Path) -> Path:
    return write_pages(failed(folder, failing()))


def compared(folder: Path) -> Path:
    """Two hostile runs beside each other."""
    for draw in (1, 2):
        without_report(folder / f"run-{draw}", replace(hostile(), draw=draw))
    return compare(folder / "run-1", folder / "run-2", arms=["ss"]).export(folder / "comparison.html")


def runs(folder: Path) -> Path:
    """The page of a folder of runs, one of them failed, one full of attacks."""
    for make in (hostile, smallest):
        written(folder / f"2026-01-01T10-00-00_{make.__name__}_01234567", make())
    failed(folder / "2026-01-02T10-00-00_failing_01234567", failing())
    return write_index(folder)


PAGES: dict[str, Callable[[Path], Path]] = {
    **{
        name: partial(lambda make, folder: written(folder, make()).path / "report.html", make)
        for name, make in STUDIES.items()
    },
    "real": real,
    "failed": broken_off,
    "compared": compared,
    "runs": runs,
}
"""Every page that is looked at, as what makes it in a folder."""


@pytest.fixture(scope="session")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A page by its name, made once."""

    @cache
    def made(name: str) -> Path:
        with as_drawn():
            return PAGES[name](tmp_path_factory.mktemp("page"))

    return made


@pytest.fixture(scope="module", params=PAGES)
def report(request: pytest.FixtureRequest, page_of: Callable[[str], Path]) -> Path:
    """Every page in turn."""
    return page_of(request.param)
