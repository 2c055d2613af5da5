"""A host on this machine that answers what a test says, for what the real server never does."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import on_loopback

Answer = tuple[int, Any]
"""A status, and a body: bytes as they are, and anything else as JSON."""
NAME = "owner/model"


@contextmanager
def host_that_says(answers: Mapping[str, Answer]) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Its address, and every path that was asked for with the key that came along."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("ndif-api-key")))
            status, body = answers.get(self.path, (404, {"detail": "Not Found"}))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if 300 <= status < 400:
                self.send_header("Location", str(body))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with on_loopback(Handler) as address:
        yield address, asked


def key(name: str = NAME, **parts: Any) -> str:
    """A model's key, as nnsight makes it."""
    about = {"repo_id": name, "revision": None, "task": "text-generation"} | parts
    wrapper = about.pop("wrapper", "nnsight.modeling.transformers.TransformersModel")
    return f"{wrapper}:{json.dumps(about)}"


def replica(name: str = NAME, *, model_key: str | None = None, **fields: Any) -> dict[str, Any]:
    """An entry of /status, as ndif 0.1.2 makes it for a replica that runs."""
    usual = {
        "application_state": "RUNNING",
        "deployment_level": "HOT",
        "pinned": False,
        "trusted": False,
        "dtype": "bfloat16",
        "execution_timeout_seconds": 3600.0,
        "model_key": model_key or key(name),
        "replica_id": "r1",
        "repo_id": name,
        "task": "text-generation",
        "revision": None,
        "config": None,
        "gpus": 1,
    }
    return usual | fields


def status(*entries: dict[str, Any], others: dict[str, Any] | None = None) -> dict[str, Answer]:
    """The answer to /status with these entries."""
    numbered = {f"{number}:ModelActor:{one.get('model_key')}": one for number, one in enumerate(entries)}
    return {"/status": (200, {"deployments": numbered | (others or {}), "cluster": {"nodes": {}}})}
