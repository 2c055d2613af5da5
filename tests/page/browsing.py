"""A visit to a page: what it asked for, what the browser said of it, and what can be asked of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Visit:
    """`requests`: addresses. `said`: the console's warnings and errors. `opened`: dialogs, windows and downloads."""

    page: Any
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def text(self, selector: str = "main") -> str:
        return self.page.locator(selector).inner_text()


@contextmanager
def visiting(browser: Any, page_at: Path | str, **context: Any) -> Iterator[Visit]:
    """Opens a file, or what is served at an address of this machine.

    `context`: of playwright's new_context, such as color_scheme, viewport, java_script_enabled.
    """
    served = isinstance(page_at, str)
    opened = browser.new_context(offline=not served, **context)
    page = opened.new_page()
    visit = Visit(page)
    opened.on("request", lambda request: visit.requests.append(request.url))
    page.on("console", lambda line: visit.said.append(line.text) if line.type in ("warning", "error") else None)
    page.on("pageerror", lambda error: visit.said.append(str(error)))
    page.on("dialog", lambda dialog: (visit.opened.append(dialog.message), dialog.dismiss()))
    page.on("popup", lambda popup: visit.opened.append(popup.url))
    page.on("download", lambda download: visit.opened.append(download.url))
    page.goto(page_at if served else page_at.as_uri(), wait_until="load")
    yield visit
    opened.close()
