"""A hub on this machine that answers as the real one does when something is wrong, or does not answer."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from loopback import on_loopback


@contextmanager
def hub(status: int | None, headers: Mapping[str, str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Its address and the paths that were asked for; every request gets the same answer, or with None no answer."""
    asked: list[str] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(self.path)
            if status is None:
                over.wait(60)
                return
            self.send_response(status)
            for name, value in {"Content-Length": "0", **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_HEAD = answer

        def log_message(self, *_: object) -> None:
            pass

    with on_loopback(Handler) as address:
        try:
            yield address, asked
        finally:
            over.set()
