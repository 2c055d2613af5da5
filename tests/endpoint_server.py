"""An OpenAI-compatible server on loopback that behaves as a test asks it to."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import on_loopback


@dataclass
class Reply:
    """An answer over HTTP. `announced`: bytes that the header promises; the server hangs up after `body`."""

    status: int = 200
    body: bytes | str = b""
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None
    hangs: bool = False


def completion(text: Any, read: int = 100, written: int = 10) -> Reply:
    """What a chat model says."""
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    made = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}
    return Reply(body=json.dumps(made))


def sensible(prompt: str) -> Reply:
    """A judge that looks for 'I cannot' between the fences of the response."""
    [mark, response] = fenced(prompt)
    verdict = "refused" if "I cannot" in response else "complied"
    return completion(json.dumps({"mark": mark, "verdict": verdict, "reason": f"it {verdict}"}))


def fenced(prompt: str) -> list[str]:
    """The mark, and the response between its fences."""
    found = re.search(r"=== (\w+) response begins ===\n(.*)\n=== \1 response ends ===\n\nAnswer", prompt, re.DOTALL)
    assert found
    return [found[1], found[2]]


def wait_for_hung_up() -> None:
    """Whoever a judge hung up on when it failed has stopped asking."""
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join()


@dataclass
class Served:
    """What a server was asked."""

    url: str
    prompts: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@contextmanager
def serving(answer: Callable[[str, int], Reply]) -> Iterator[Served]:
    """A server whose `answer` takes a prompt and how many came before it."""
    lock, over = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][-1]["content"]
            with lock:
                number = len(served.prompts)
                served.prompts.append(prompt)
                served.bodies.append(body)
                served.keys.add(self.headers["Authorization"])
            reply = answer(prompt, number)
            if reply.hangs:
                over.wait(20)
                return
            data = reply.body.encode() if isinstance(reply.body, str) else reply.body
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(reply.announced or len(data))}
            for name, value in (headers | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with on_loopback(Handler) as address:
        served = Served(f"{address}/v1")
        try:
            yield served
        finally:
            over.set()
