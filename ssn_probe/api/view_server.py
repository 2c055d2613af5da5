"""The runs of a results folder in a browser on this machine, also while they are running.

Nobody but this machine is answered: the server listens on its loopback addresses, and answers only requests whose Host
names one of them, so that no page from elsewhere can have its name lead here. It reads, and never writes. What can be
asked for is the list of runs, a run's page and its charts: names are looked up, no path is followed, and no link.
"""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ssn_probe import limits
from ssn_probe.api.pages import PAGE, page_of
from ssn_probe.errors import ResultError, SSNProbeError
from ssn_probe.report.live_run import live_content
from ssn_probe.report.page.index_page import SCRIPTS, STYLES, index_page
from ssn_probe.report.page.page import SCRIPT, STYLE, as_html, policy
from ssn_probe.report.run_index import index_rows
from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.history import history
from ssn_probe.text import plain

LOOPBACK = ("127.0.0.1", "::1")
SECURE = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer, beside its Content-Security-Policy."""
NOTHING = "default-src 'none'"
DRAWN = f"{NOTHING}; style-src 'unsafe-inline'"
KINDS = {
    ".svg": ("image/svg+xml", DRAWN),
    ".png": ("image/png", NOTHING),
    ".md": ("text/plain; charset=utf-8", NOTHING),
}
CHART = re.compile(r"[\w-]+\.(svg|png)", re.ASCII)
SELDOM = 10
"""Seconds until the list of runs is asked for again, in which somebody may be choosing."""
MOST = 50 * limits.MB
"""Bytes of a file that is sent."""


class Refused(Exception):
    """A request that is answered with a status other than 200."""

    def __init__(self, status: HTTPStatus, location: str | None = None):
        super().__init__(status.phrase)
        self.status, self.location = status, location


@contextlib.contextmanager
def serving(root: Path, port: int = 0) -> Iterator[str]:
    """The address at which the runs of a folder can be looked at, as long as the context lasts.

    `port` 0: a free one. The folder may come later. Raises ResultError where it is a file, or the port is in use or not
    allowed.
    """
    if root.exists() and not root.is_dir():
        raise ResultError(f"{root} is not a folder", "Name the results folder: -o DIR.")
    servers = [_listen(root, LOOPBACK[0], port)]
    port = servers[0].server_address[1]
    with contextlib.suppress(ResultError):  # not every machine has the newer loopback
        servers.append(_listen(root, LOOPBACK[1], port))
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    try:
        yield f"http://{LOOPBACK[0]}:{port}/"
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    root: Path

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away before it has its answer is no error."""


class _NewerServer(_Server):
    address_family = socket.AF_INET6


def _listen(root: Path, address: str, port: int) -> _Server:
    try:
        server = (_NewerServer if ":" in address else _Server)((address, port), _Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ResultError(
            f"cannot listen at port {port}: {reason}", "Leave out --port: a free one is taken."
        ) from error
    server.root = root
    return server


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "ssn-probe", ""
    timeout = 20

    def do_GET(self) -> None:
        try:
            self._check_host()
            kind, allowed, content = self._answer()
            self._send(HTTPStatus.OK, kind, allowed, content)
        except Refused as refused:
            more = {} if refused.location is None else {"Location": refused.location}
            self._send(refused.status, "text/plain; charset=utf-8", NOTHING, str(refused).encode(), more)
        except SSNProbeError as error:
            text = plain(f"{error.message}. {error.hint or ''}").encode("utf-8", "backslashreplace")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", NOTHING, text)

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Whatever is no request to GET or HEAD; the base class calls this."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self.close_connection = True
        self._send(status, "text/plain; charset=utf-8", NOTHING, status.phrase.encode(), {"Allow": "GET, HEAD"})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is looked at is nobody's concern."""

    def _send(
        self, status: HTTPStatus, kind: str, allowed: str, content: bytes, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        fixed = {"Content-Type": kind, "Content-Length": str(len(content))}
        fixed["Content-Security-Policy"] = f"{allowed}; frame-ancestors 'none'"
        for name, value in (fixed | SECURE | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _check_host(self) -> None:
        port = self.server.server_address[1]
        names = ("127.0.0.1", "[::1]", "localhost")
        known = {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set())
        if [one.lower() for one in self.headers.get_all("Host", [])] not in [[name] for name in known]:
            raise Refused(HTTPStatus.FORBIDDEN)

    def _answer(self) -> tuple[str, str, bytes]:
        """Content type, policy and content of what is asked for."""
        match [unquote(part, errors="surrogateescape") for part in urlsplit(self.path).path.split("/")[1:]]:
            case [""] | ["index.html"]:
                return _html(self._index(), policy(STYLES, SCRIPTS))
            case [name]:
                raise Refused(HTTPStatus.MOVED_PERMANENTLY, f"/{quote(os.fsencode(self._run(name).name), safe='')}/")
            case [name, ""]:
                return _html(_page(self._run(name)), policy(STYLE, SCRIPT))
            case [name, "report.html"]:
                text = _read(self._run(name), PAGE).decode("utf-8", "replace")
                return _html(text, policy(STYLE, SCRIPT, any_style=True))
            case [name, "report.md"]:
                return *KINDS[".md"], _read(self._run(name), "report.md")
            case [name, "plots", chart] if CHART.fullmatch(chart):
                return *KINDS[Path(chart).suffix], _read(self._run(name), "plots", chart)
        raise Refused(HTTPStatus.NOT_FOUND)

    def _index(self) -> str:
        rows = index_rows(history(self.server.root), live=True)
        changes = not rows or any(row.status == "running" for row in rows)
        return index_page(rows, str(self.server.root), refresh=SELDOM if changes else 0)

    def _run(self, name: str) -> RunFolder:
        run = results.run_named(self.server.root, name)
        if run is None:
            raise Refused(HTTPStatus.NOT_FOUND)
        return run


def _html(text: str, allowed: str) -> tuple[str, str, bytes]:
    return "text/html; charset=utf-8", allowed, text.encode("utf-8", "backslashreplace")


def _page(run: RunFolder) -> str:
    """The page of a run, made of what is in its folder now."""
    manifest = run.manifest()
    status = results.status(run, manifest)
    return as_html(live_content(run, manifest, status)) if status == "running" else page_of(run)


def _read(run: RunFolder, *names: str) -> bytes:
    """A file below a run's folder that no link leads to."""
    path = run.path
    for name in names:
        path = path / name
        if path.is_symlink():
            raise Refused(HTTPStatus.NOT_FOUND)
    if not os.path.lexists(path):
        raise Refused(HTTPStatus.NOT_FOUND)
    return limits.read_limited(path, MOST, ResultError)
