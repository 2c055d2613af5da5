"""`--remote` and its companions: what they refuse, and that they reach the run."""

from typing import Any

import pytest
from click.testing import CliRunner, Result

from ssn_probe import RemoteError, preview, run
from ssn_probe.cli.commands import main


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("word", ["show", "run"])
def test_companions_of_remote_need_it(word: str) -> None:
    for option, asked in {"--host=http://127.0.0.1:1": "--host says where", "--yes": "--yes answers"}.items():
        result = command(word, "suppress_ss", option)
        assert (result.exit_code, asked in result.stderr) == (2, True), result.output


@pytest.mark.parametrize(
    ("option", "said"), [("--device=cpu", "The device 'cpu'"), ("--gradient-checkpointing", "Gradient checkpointing")]
)
def test_settings_of_this_machine_are_refused(option: str, said: str) -> None:
    result = command("run", "suppress_ss", "--remote", option)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert "Leave" in result.stderr


@pytest.mark.parametrize("ask", [run, preview])
def test_settings_of_this_machine_are_refused_in_python(ask: Any) -> None:
    with pytest.raises(RemoteError, match="one of this machine"):
        ask("suppress_ss", remote=True, device="cpu")


@pytest.mark.parametrize("address", ["127.0.0.1:5001", "ftp://host", "http://"])
def test_an_address_of_no_host(address: str) -> None:
    result = command("show", "suppress_ss", "--remote", f"--host={address}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is not the address of a host" in result.stderr


def test_an_empty_address_is_not_this_machine() -> None:
    assert "The address of the host is empty" in command("run", "suppress_ss", "--remote", "--host=").stderr
    with pytest.raises(RemoteError, match="is empty"):
        preview("suppress_ss", remote="")
