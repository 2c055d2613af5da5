"""Against the whole NDIF: its API, queue, object store, and the controller that has models placed by Ray."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from light_ndif import SERVER, LightNDIF, listening_elsewhere
from remote_bodies import failing
from test_hosted_recipes import assert_same, small, study

from ssn_probe.cli.commands import main
from ssn_probe.errors import RemoteError
from ssn_probe.model.loading import locate
from ssn_probe.model.subject import load_subject
from ssn_probe.tracing.generate import greedy_tokens
from ssn_probe.tracing.host_facts import host_facts

pytestmark = pytest.mark.ndif_stack

STACK = SERVER.with_name("stack_server.py")
FAILURE = r"RuntimeError: shape '\[7, 11, 13\]' is invalid"
PROMPTS = [[1, 5, 6, 7], [1, 8]]


@pytest.fixture(scope="module")
def whole() -> Iterator[LightNDIF]:
    """Hosts the organism in single precision. When it is closed, all that it started must end."""
    server = LightNDIF(STACK, locate("organism"))
    try:
        yield server
    finally:
        server.close()


@contextmanager
def untrusted(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs ask for the sandbox, which a host without accounts lets them choose."""
    from nnsight.schema.request import RequestModel

    metadata = RequestModel.metadata

    def asking(request: Any) -> str:
        return json.dumps(json.loads(metadata(request)) | {"trusted": False})

    with patch.context() as inner:
        inner.setattr(RequestModel, "metadata", asking)
        yield


def say(whole: LightNDIF, *arguments: str) -> str:
    result = CliRunner().invoke(main, [*arguments, "--remote", "--host", whole.host])
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def test_it_is_the_whole_and_on_loopback(whole: LightNDIF) -> None:
    family = whole.family()
    assert {"redis-server", "gcs_server", "raylet", "ray::ControllerOnCPU", "ray::ModelOnCPU"} <= {
        one.name() for one in family
    }
    assert listening_elsewhere(family) == []


def test_a_recipe(whole: LightNDIF, tmp_path: Path) -> None:
    recipe = small("identify_ms", "refusal")
    assert_same(study(recipe, tmp_path / "host", whole.host), study(recipe, tmp_path / "here"))


def test_the_sandbox(whole: LightNDIF, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = load_subject("organism"), load_subject("organism", remote=whole.host)
    assert host_facts(there).gradients
    with untrusted(monkeypatch):
        assert not host_facts(load_subject("organism", remote=whole.host)).gradients
        assert greedy_tokens(there, PROMPTS, max_new_tokens=8) == greedy_tokens(here, PROMPTS, max_new_tokens=8)


def test_a_job_that_fails(whole: LightNDIF, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one runs."""
    subject = load_subject("organism", remote=whole.host)
    assert subject.calls is not None
    with pytest.raises(RemoteError, match=FAILURE):
        subject.calls.run(failing)
    with untrusted(monkeypatch), pytest.raises(RemoteError, match=FAILURE):
        subject.calls.run(failing)
    assert len(greedy_tokens(subject, PROMPTS, max_new_tokens=2)) == 2


def test_a_model_that_is_not_hosted_is_loaded_when_doctor_asks_for_it(whole: LightNDIF) -> None:
    name = "organism:planted-qwen3"
    with pytest.raises(RemoteError, match="does not") as caught:
        load_subject(name, remote=whole.host)
    assert "doctor --remote --model" in str(caught.value.hint)
    assert say(whole, "models").count("yes (") == 1
    assert "loaded" in say(whole, "doctor", "--model", name)
    listed = say(whole, "models")
    assert "yes (llama)" in listed
    assert "yes (qwen3)" in listed


def test_nothing_stays_when_the_server_is_killed_as_it_starts() -> None:
    home = tempfile.mkdtemp(prefix="ndif-")  # a short path: Ray has sockets in it
    with subprocess.Popen(
        [sys.executable, str(STACK), home, locate("organism")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        family = [psutil.Process(server.pid)]
        while "raylet" not in {one.name() for one in family if one.is_running()}:
            assert server.poll() is None
            family = [family[0], *family[0].children(recursive=True)]
            time.sleep(0.05)
        server.kill()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert not [one for one in psutil.process_iter(["cmdline"]) if home in " ".join(one.info["cmdline"] or [])]
    shutil.rmtree(home)
