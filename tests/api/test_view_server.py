"""The server of `view`: to this machine alone, only the pages and charts of runs, with headers that allow no more."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from compared import finished
from filelock import FileLock

from ssn_probe.api.view_server import SECURE, serving
from ssn_probe.errors import ResultError
from ssn_probe.files import write_json, write_text
from ssn_probe.runs.folder import LOCK, PROGRESS, RunFolder

NAME = "2026-11-20T10-00-00_suppress_ss_01234567"
LIVE = "2026-11-21T10-00-00_suppress_ss_01234567"
BASE = {"aa": "rrrrrrrr", "bb": "rrrrrrcc"}
MADE = {"question": "Who?", "packages": {"ssn-probe": "1"}, "arguments": {}, "options": {}}
Ask = Callable[..., http.client.HTTPResponse]


def run(root: Path, name: str = NAME, **changes: object) -> RunFolder:
    made = finished(root / name, {"baseline": BASE, "ss": BASE}, **{**MADE, **changes})
    write_text(made.path / "plots" / "asr.svg", "<svg/>")
    write_text(made.path / "report.html", "<!DOCTYPE html>the page")
    return made


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Asks a server of `tmp_path` for a path; what it answers has its content as `.text`."""
    with serving(tmp_path) as address:
        port = int(address.rstrip("/").rpartition(":")[2])

        def asked(path: str, method: str = "GET", host: str | None = None) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.putrequest(method, path, skip_host=True)
            if host != "":
                connection.putheader("Host", (host or "127.0.0.1:{port}").format(port=port))
            connection.endheaders()
            answer = connection.getresponse()
            answer.text = answer.read().decode()  # type: ignore[attr-defined]
            return answer

        yield asked


def text(answer: http.client.HTTPResponse) -> str:
    return answer.text  # type: ignore[attr-defined]


def test_pages_and_charts_are_served_with_what_they_may_do(tmp_path: Path, ask: Ask) -> None:
    run(tmp_path)
    kinds = {"/": "text/html", f"/{NAME}/report.html": "text/html", f"/{NAME}/plots/asr.svg": "image/svg+xml"}
    for path, kind in kinds.items():
        found = ask(path)
        assert (found.status, found.headers.get_content_type()) == (200, kind)
    assert f'href="{NAME}/report.html"' in text(ask("/"))
    assert text(ask(f"/{NAME}/report.html")) == "<!DOCTYPE html>the page"
    assert ask(f"/{NAME}").headers["Location"] == f"/{NAME}/"


def test_every_answer_has_the_headers(tmp_path: Path, ask: Ask) -> None:
    run(tmp_path)
    write_text(tmp_path / "broken" / "manifest.json", "{")
    answers = [ask("/"), ask("/nothing"), ask("/", "POST"), ask("/", host="x"), ask(f"/{NAME}"), ask("/broken/")]
    assert [answer.status for answer in answers] == [200, 404, 405, 403, 301, 500]
    for answer in answers:
        assert {name: answer.headers[name] for name in SECURE} == SECURE
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert policy.endswith("; frame-ancestors 'none'")
        assert "script-src 'unsafe" not in policy
        assert len(answer.headers.get_all("Content-Security-Policy", [])) == 1


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "localhost.evil.example:{port}", ""]
)
def test_a_name_that_was_led_here_is_refused(ask: Ask, host: str) -> None:
    assert ask("/", host=host).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LOCALHOST:{port}"])
def test_the_names_of_this_machine_are_answered(ask: Ask, host: str) -> None:
    assert ask("/", host=host).status == 200


def test_head_says_what_get_says_without_content(tmp_path: Path, ask: Ask) -> None:
    run(tmp_path)
    path = f"/{NAME}/report.html"
    assert ask(path, "HEAD").headers["Content-Length"] == ask(path).headers["Content-Length"]
    assert text(ask(path, "HEAD")) == ""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_nothing_but_get_and_head(ask: Ask, method: str) -> None:
    assert ask("/", method).status == 405


@pytest.mark.parametrize(
    "path",
    [
        f"/{NAME}/manifest.json",
        f"/{NAME}/samples.parquet",
        f"/{NAME}/plots/../manifest.json",
        f"/{NAME}/plots/..%2fmanifest.json",
        f"/{NAME}/plots/",
        "/../secret.svg",
        "/%2e%2e/secret.svg",
        "/..%2f..%2f",
        f"/..%2f{NAME}/report.html",
        "//etc/passwd",
        f"/{NAME}%00/report.html",
        f"/{NAME}\\report.html",
        "/linked/report.html",
        "/latest/",
        f"/{NAME}/plots/linked.svg",
        f"/{LIVE}/report.html",
        f"/{LIVE}/plots/asr.svg",
        "/%ff/report.html",
        "/cache/report.html",
    ],
)
def test_nothing_else_can_be_asked_for(tmp_path: Path, ask: Ask, path: str) -> None:
    run(tmp_path)
    outside = tmp_path.parent / f"{tmp_path.name} outside"
    run(outside, "elsewhere")
    (tmp_path / "linked").symlink_to(outside / "elsewhere", target_is_directory=True)
    (tmp_path / "latest").symlink_to(NAME, target_is_directory=True)
    (tmp_path / NAME / "plots" / "linked.svg").symlink_to(outside / "elsewhere" / "plots" / "asr.svg")
    write_text(tmp_path / "cache" / "report.html", "no run")
    other = run(tmp_path, LIVE)
    for name in ("report.html", "plots"):
        path_of = other.path / name
        path_of.rename(outside / name)
        path_of.symlink_to(outside / name)
    assert ask(path).status == 404


def test_a_running_run_says_what_is_done_and_what_its_answer_is(tmp_path: Path, ask: Ask) -> None:
    live = run(tmp_path, LIVE, status="running", data=[{"name": "organism", "sha256": "d" * 64, "anchor": "aa"}])
    (live.path / "report.html").unlink()
    rows = [("baseline", 16, 16), ("ss", 4, 16), ("nothing", 0, 0)]
    listed = [{"label": label, "done": done, "total": total, "seconds": 1.5} for label, done, total in rows]
    write_json(live.path / PROGRESS, {"running": "ss", "waits": "", "rows": listed})
    with FileLock(live.path / LOCK):
        index, page = text(ask("/")), text(ask(f"/{LIVE}/"))
        assert f'href="{LIVE}/"' in index
        assert '<meta http-equiv="refresh" content="10">' in index
        assert '<meta http-equiv="refresh" content="3">' in page
        assert "20 of 32 prompts are done (62 %), " in page
        assert "Now: ss, 4 of 16 prompts." in page
        assert "Done (1)" in page
        assert "ASR in %" in page
        assert "25.0 [" in page
        write_text(live.path / PROGRESS, '{"rows": [')
        assert "nothing is said of how far it is" in text(ask(f"/{LIVE}/"))
    killed = text(ask(f"/{LIVE}/"))
    assert 'http-equiv="refresh"' not in killed + text(ask("/"))
    assert "This run is not finished: killed." in killed


def test_a_folder_that_is_not_there_yet_has_no_runs(tmp_path: Path) -> None:
    with serving(tmp_path / "later") as address, socket.create_connection(("127.0.0.1", int(address[17:-1]))) as one:
        one.sendall(f"GET / HTTP/1.0\r\nHost: {address[7:-1]}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: one.recv(65536), b""))
    assert b"No runs yet" in answer
    assert b'http-equiv="refresh"' in answer


def test_a_port_that_is_taken_is_one_error_and_two_servers_choose_their_own(tmp_path: Path) -> None:
    with serving(tmp_path) as first, serving(tmp_path) as second:
        assert first != second
        port = int(first[17:-1])
        with pytest.raises(ResultError, match=f"cannot listen at port {port}: .*in use"), serving(tmp_path, port):
            pass
    with serving(tmp_path, port) as again:
        assert again == first
    write_text(tmp_path / "file", "")
    with pytest.raises(ResultError, match="is not a folder"), serving(tmp_path / "file"):
        pass


def test_nobody_else_is_listened_to(tmp_path: Path) -> None:
    own = socket.gethostbyname(socket.gethostname()) if socket.gethostname() else "127.0.0.1"
    if own.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    with (
        serving(tmp_path) as address,
        pytest.raises(ConnectionRefusedError),
        socket.create_connection((own, int(address[17:-1])), 2),
    ):
        pass


@pytest.mark.slow
def test_a_run_is_followed_until_it_is_killed(tmp_path: Path) -> None:
    """The whole of it: a run and a server as processes, what is said meanwhile, and Ctrl-C."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    start = [sys.executable, "-m", "ssn_probe"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment, "cwd": tmp_path}
    server = subprocess.Popen([*start, "view", "--serve"], **pipes)
    runner = subprocess.Popen([*start, "run", "suppress_ss"], **pipes)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        said = _until(address, "Now: ")
        assert "prompts are done" in said
        assert "This run is not finished: running." in said
        runner.kill()
        runner.wait()
        assert "This run is not finished: killed." in _until(address, "killed")
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
        assert server.stdout.read().strip() == ""
    finally:
        for process in (server, runner):
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()


def _until(address: str, words: str) -> str:
    """The page of the only run, as soon as these words are in it."""
    port, page = int(address[17:-1]), ""
    for _ in range(550):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        index = connection.getresponse().read().decode()
        if 'class="run"><a href="' in index:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/" + index.split('class="run"><a href="')[1].split('"')[0])
            page = connection.getresponse().read().decode()
            if words in page:
                return page
        time.sleep(0.1)
    raise AssertionError(page)
