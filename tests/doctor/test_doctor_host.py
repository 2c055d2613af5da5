"""`ssn-probe doctor --remote` and `ssn-probe models`: what they find of a host, and that they say what to do."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from light_ndif import LightNDIF
from ndif_stand_in import host_that_says, key, replica, status

from ssn_probe.cli.commands import main

SECRET = "11111111-2222-3333-4444-555555555555"
OURS = {name: version(name) for name in ("nnsight", "torch", "transformers")} | {"einops": "0.8", "ndif": "0.1.2"}
HERE = f"{platform.python_version()} (main)"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnsight import CONFIG

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CONFIG.API, "APIKEY", None)
    monkeypatch.delenv("NDIF_API_KEY", raising=False)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def env(python: str = HERE, **changes: Any) -> tuple[int, Any]:
    packages = {name: one for name, one in (OURS | changes).items() if one is not None}
    return 200, {"python_version": python, "packages": packages}


def answers(**changed: tuple[int, Any]) -> dict[str, tuple[int, Any]]:
    usual = status(replica()) | {"/env": env(), "/whoami": (200, {"email": None, "tags": []})}
    return usual | {f"/{name}": one for name, one in changed.items()}


def line(result: Result, name: str) -> str:
    """What a check said, in one line with its meaning and its remedy."""
    lines = result.stdout.splitlines()
    first = next(at for at, one in enumerate(lines) if one[2:].startswith(f"{name} "))
    return " ".join(one.strip() for one in lines[first : first + (1 if lines[first].startswith("✓") else 3)])


def doctor(said: Mapping[str, tuple[int, Any]], *arguments: str) -> Result:
    with host_that_says(said) as (url, _):
        return command("doctor", "--remote", "--host", url, *arguments)


def test_a_host_that_can_do_the_work() -> None:
    result = doctor(answers())
    assert result.exit_code == 0, result.output
    assert "answers: ndif 0.1.2" in line(result, "host")
    assert "as here: nnsight 0.8" in line(result, "versions")
    assert "1 running, 1 of them can be studied: owner/model (bfloat16)" in line(result, "models")
    assert result.stdout.splitlines()[-1].endswith("ssn-probe doctor --remote --model NAME")


@pytest.mark.parametrize("said", [{}, {"/status": (503, {"detail": "reconnecting"})}, {"/status": (200, [])}])
def test_no_host_is_one_failed_check(said: dict[str, Any]) -> None:
    result = doctor(said)
    assert (result.exit_code, result.stderr) == (1, "")
    assert line(result, "host").startswith("✗ host")
    assert "→" in line(result, "host")
    assert "1 of 1 checks failed" in result.stdout


@pytest.mark.parametrize(
    ("whoami", "said"),
    [
        ({"email": "a@b.example", "tags": ["trusted"]}, "✓ key            accepted, trusted"),
        ({"email": "a@b.example", "tags": []}, "✓ key            accepted"),
        ({"email": "a@b.example", "tags": 5}, "✓ key            accepted"),
        ({"email": None, "tags": []}, "! key            set, and the host knows no account of it"),
    ],
)
def test_a_key_is_never_shown(whoami: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_API_KEY", SECRET)
    with host_that_says(answers(whoami=(200, whoami))) as (url, asked):
        result = command("doctor", "--remote", "--host", url)
    assert line(result, "key").startswith(said)
    assert SECRET not in result.output
    assert "a@b.example" not in result.output
    assert [path for path, sent in asked if sent == SECRET] == ["/whoami"]


VERSIONS = {
    "another nnsight": ({"nnsight": "0.9.0"}, "✗", "nnsight 0.9.0 (here: 0.8"),
    "another patch of nnsight": ({"nnsight": "0.8.99"}, "!", "nnsight==0.8.99"),
    "another transformers": ({"transformers": "5.0.0"}, "!", "pip install transformers==5.0.0"),
    "another build of torch": ({"torch": f"{version('torch').partition('+')[0]}+cu130"}, "✓", "as here"),
    "another torch": ({"torch": "2.1.0"}, "!", "torch 2.1.0"),
    "no einops": ({"einops": None}, "✗", "lacks einops"),
    "another Python": ({"python": "3.9.1 (main)"}, "!", "with Python 3.9"),
    "no Python": ({"python": " "}, "!", "python None"),
}


@pytest.mark.parametrize("what", VERSIONS)
def test_versions_that_differ(what: str) -> None:
    changes, mark, said = VERSIONS[what]
    result = doctor(answers(env=env(**changes)))
    assert line(result, "versions").startswith(mark)
    assert said in line(result, "versions")
    assert result.exit_code == (mark == "✗")


@pytest.mark.parametrize("said", [(200, {}), (504, {"detail": "late"}), (200, {"packages": [1]})])
def test_a_host_that_does_not_tell_its_versions(said: Any) -> None:
    result = doctor(answers(env=said))
    assert "does not tell its own" in line(result, "versions")
    assert result.exit_code == 0


def test_nothing_to_study() -> None:
    result = doctor(answers() | status(replica(dtype="nf4")))
    assert line(result, "models").startswith("! models         1 model run, none that can be studied")
    assert "models --remote" in line(result, "models")


def test_options_of_this_machine_are_refused() -> None:
    assert "one of this machine" in command("doctor", "--remote", "--device", "cpu").stderr
    assert command("doctor", "--host", "http://127.0.0.1:1").exit_code == 2


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_models_of_a_host() -> None:
    entries = [
        replica("a/llama", config='{"model_type": "llama"}'),
        replica("a/llama", config='{"model_type": "llama"}'),
        replica("b/bert", config='{"model_type": "bert"}'),
        replica("c/four-bits", dtype="nf4"),
        replica("d/masked", model_key=key("d/masked", task="fill-mask")),
        replica("e/loading", application_state="DEPLOYING", model_key=key("e/loading", revision="abc")),
        replica("f/\x1b[31mred"),
    ]
    with host_that_says(status(*entries)) as (url, _):
        result = command("models", "--remote", "--host", url)
    assert result.exit_code == 0, result.output
    rows = [" ".join(one.split()) for one in result.stdout.splitlines()]
    assert rows[1:] == [
        "a/llama runs (2 replicas) bfloat16 main yes (llama)",
        "b/bert runs bfloat16 main the family 'bert' is not studied: it is an encoder, which reads a text in both "
        "directions and was not made to continue a chat",
        "c/four-bits runs nf4 main hosted with quantised weights (nf4), whose numbers are not those of the model's "
        "neurons",
        "d/masked runs bfloat16 main hosted for fill-mask, not for text-generation",
        "e/loading is being loaded – abc yes, if its family is supported",
        "f/red runs bfloat16 main yes, if its family is supported",
        f"6 models on {url}; 3 can be studied.",
    ]


def test_a_host_without_models() -> None:
    with host_that_says(status()) as (url, _):
        result = command("models", "--remote", "--host", url)
    assert (result.exit_code, result.stdout) == (0, f"{url} has no model at the moment.\n")


# ── the real server ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.ndif
def test_a_model_on_the_real_server(ndif: LightNDIF) -> None:
    result = command("doctor", "--remote", "--host", ndif.host, "--model", "organism")
    assert result.exit_code == 0, result.output
    assert "answers: ndif 0.1.2" in line(result, "host")
    assert "organism: llama, 4 layers; float32, revision main" in line(result, "model")
    assert "in the model's process: every effect" in line(result, "job")
    listed = command("models", "--remote", "--host", ndif.host)
    assert "yes (llama)" in listed.stdout
    with ndif.untrusted():
        result = command("doctor", "--remote", "--host", ndif.host, "--model", "organism")
    assert result.exit_code == 0, result.output
    assert line(result, "job").startswith("! job")
    assert "-T effect=ablation" in line(result, "job")


@pytest.mark.ndif
def test_a_model_that_the_real_server_does_not_have_is_asked_for_once(ndif: LightNDIF) -> None:
    result = command("doctor", "--remote", "--host", ndif.host, "--model", "organism:planted-qwen3")
    assert result.exit_code == 1
    assert "Could not deploy" in line(result, "model")
    assert "models --remote" in line(result, "model")


@pytest.mark.ndif
def test_a_plan_sends_nothing_to_the_host_but_questions(ndif: LightNDIF, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnsight.schema.request import RequestModel

    monkeypatch.setattr(RequestModel, "serialize", lambda *_args: pytest.fail("a job"))
    result = command("show", "suppress_ss", "-T", "effect=local", "--remote", "--host", ndif.host)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert f"Host: {ndif.host} runs organism in float32, revision main, 1 replica" in text
    assert "It will be sent the token ids of" in text
    assert "not estimated, because that would send prompts to the host; with --yes it does" in text
