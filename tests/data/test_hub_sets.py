"""Data sets on the hub, played by a server on this machine: one commit, its licence, and one error for what fails."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import foreign_files as made
import pytest
from huggingface_hub import constants
from prompt_rows import load

from ssn_probe.data.sources import hub_sets
from ssn_probe.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Answers = dict[str, tuple[int, dict[str, str], bytes]]


class Hub:
    """What a hub answers to paths, and the paths that it was asked for."""

    def __init__(self, endpoint: str):
        self.endpoint = endpoint
        self.answers: Answers = {}
        self.asked: list[str] = []

    def publish(self, name: str, files: dict[str, bytes], commit: str = COMMIT) -> None:
        """A data set with these files."""
        about = {"id": name, "sha": commit, "private": False, "downloads": 0, "tags": []}
        about["siblings"] = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
        tree = [
            {"type": "file", "path": file, "size": len(content), "oid": f"{place:040}"}
            for place, (file, content) in enumerate(files.items())
        ]
        page = json.dumps(about).encode()
        for place in ("", "/revision/main", f"/revision/{commit}"):
            self.answers[f"/api/datasets/{name}{place}"] = (200, {}, page)
        self.answers[f"/api/datasets/{name}/tree/{commit}"] = (200, {}, json.dumps(tree).encode())
        for place, (file, content) in enumerate(files.items()):
            head = {"X-Repo-Commit": commit, "ETag": f'"{place:040}"'}
            self.answers[f"/datasets/{name}/resolve/{commit}/{file}"] = (200, head, content)

    def refuse(self, name: str, status: int, code: str = "") -> None:
        self.answers[f"/api/datasets/{name}"] = (status, {"X-Error-Code": code} if code else {}, b"{}")


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            served.asked.append(path)
            status, headers, content = served.answers.get(path, (404, {"X-Error-Code": "RepoNotFound"}, b"{}"))
            self.send_response(status)
            for name, value in (
                {"Content-Length": str(len(content)), "Content-Type": "application/json"} | headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    use(monkeypatch, served.endpoint, tmp_path / "hub")
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """The hub at this address, and an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hub_sets._snapshot.cache_clear()


CARD = b"---\nlicense: cc0-1.0\n---\n# A set\n"


def test_a_short_name_is_read_at_a_commit_with_its_licence(fake_hub: Hub, tmp_path: Path) -> None:
    file = made.multijail(tmp_path)
    fake_hub.publish(
        "DAMO-NLP-SG/MultiJail", {"README.md": CARD, "MultiJail.csv": file.read_bytes(), "notes.bin": b"x"}
    )
    found = load("multijail")
    assert (found.license, found.revision, found.name) == ("cc0-1.0", COMMIT, "multijail")
    assert found.digest == load(file).digest
    assert not [path for path in fake_hub.asked if path.endswith("notes.bin")], "only tables are downloaded"
    asked = len(fake_hub.asked)
    assert load(f"DAMO-NLP-SG/MultiJail@{COMMIT}").digest == found.digest
    assert load("multijail").digest == found.digest
    assert not [path for path in fake_hub.asked[asked:] if path.endswith(".csv")], "the file is in the cache"


def test_offline_the_cache_serves(fake_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no commit is named, and other files of the set were never downloaded."""
    file = made.multijail(tmp_path)
    files = {"README.md": CARD, "MultiJail.csv": file.read_bytes(), "notes.bin": b"x"}
    fake_hub.publish("DAMO-NLP-SG/MultiJail", files)
    before = load("multijail")
    hub_sets._snapshot.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    after = load("multijail")
    assert (after.digest, after.revision, after.license) == (before.digest, COMMIT, "cc0-1.0")


CONFIGS = b"""---
license:
- mit
- cc0-1.0
configs:
- config_name: en
  data_files: en/*.jsonl
- config_name: de
  data_files:
  - split: test
    path: de/a.jsonl
---
"""


def test_any_name_on_the_hub_is_recognised_by_its_columns(fake_hub: Hub, tmp_path: Path) -> None:
    files = {"README.md": CONFIGS, "stray.csv": b"prompt\nnobody asked\n"}
    for language in ("en", "de"):
        rows = [{"prompt": made.text(language, number)} for number in range(8)]
        files[f"{language}/a.jsonl"] = made.json_file(tmp_path / "a.jsonl", rows).read_bytes()
    fake_hub.publish("somebody/boats", files)
    found = load("somebody/boats")
    assert (found.languages, found.frame.height, found.license) == (("en", "de"), 16, "mit, cc0-1.0")
    assert load("somebody/boats:de").languages == ("de",)
    with pytest.raises(DataError, match="no configuration 'xx'"):
        load("somebody/boats:xx")


ERRORS = {
    "missing": (404, "RepoNotFound", "no data set 'walledai/AyaRedTeaming'", "aya-red-teaming:PATH"),
    "private": (401, "RepoNotFound", "no data set", "hf auth login"),
    "gated": (403, "GatedRepo", "is gated", "CohereLabs/aya_redteaming, which is open"),
    "down": (503, "", "the hub did not give", "aya-red-teaming:PATH"),
}


@pytest.mark.parametrize(("status", "code", "message", "hint"), ERRORS.values(), ids=ERRORS)
def test_what_the_hub_refuses_is_one_error(status: int, code: str, message: str, hint: str, fake_hub: Hub) -> None:
    fake_hub.refuse("walledai/AyaRedTeaming", status, code)
    started = time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        load("aya-red-teaming")
    assert hint in str(caught.value.hint)
    assert time.monotonic() - started < 5


def test_an_unknown_revision(fake_hub: Hub) -> None:
    fake_hub.answers["/api/datasets/a/b/revision/v9"] = (404, {"X-Error-Code": "RevisionNotFound"}, b"{}")
    with pytest.raises(DataError, match="a/b has no revision 'v9'"):
        load("a/b@v9")


def test_no_network_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(monkeypatch, "http://127.0.0.1:9", tmp_path)
    started = time.monotonic()
    with pytest.raises(
        DataError, match=r"cannot reach the hub: http://127.0.0.1:9 was asked for DAMO-NLP-SG/MultiJail"
    ) as caught:
        load("multijail")
    assert "multijail:PATH" in str(caught.value.hint)
    assert time.monotonic() - started < 5


def test_offline_without_a_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(monkeypatch, "http://127.0.0.1:9", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="is not in the hub's cache, and HF_HUB_OFFLINE is set") as caught:
        load("multijail")
    assert "multijail:PATH" in str(caught.value.hint)


def test_a_set_that_is_on_no_hub() -> None:
    with pytest.raises(DataError, match="advbench-x cannot be downloaded") as caught:
        load("advbench-x")
    assert "advbench-x:PATH" in str(caught.value.hint)
