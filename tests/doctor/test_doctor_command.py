"""`ssn-probe doctor` as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from ssn_probe.cli.commands import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_the_machine(tmp_path: Path) -> None:
    result = doctor()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("✓ ssn-probe ")
    assert f"torch {torch.__version__.partition('+')[0]}" in result.stdout
    assert "ssn-probe doctor --model organism" in lines[-1]
    assert list(tmp_path.iterdir()) == []


def test_every_check_passes_on_the_organism() -> None:
    result = doctor("--model", "organism", "--dtype", "float32", "--device", "cpu")
    assert result.exit_code == 0, result.output
    for name in (
        "model",
        "chat template",
        "control tokens",
        "BOS",
        "numbers",
        "tracing",
        "site ffn",
        "padding",
        "neighbours",
        "row",
        "proved",
        "rounding",
    ):
        assert f"\n✓ {name} " in result.stdout
    assert all(line.startswith("✓") for line in result.stdout.splitlines()[-13:-1])
    assert "checks, none failed" in result.stdout.splitlines()[-1]


def test_a_failed_check_exits_with_1() -> None:
    result = doctor("--model", "\x1b[31morgansm")
    assert (result.exit_code, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[-4].startswith("✗ model          There is no model folder")
    assert lines[-3].startswith("    ")
    assert lines[-2].startswith("    → Give a folder")
    assert "1 of 11 checks failed" in lines[-1]
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("option", [("--device", "quantum"), ("--model", "organism", "--dtype", "float23")])
def test_an_option_that_cannot_be_is_a_failed_check(option: tuple[str, ...]) -> None:
    result = doctor(*option)
    assert result.exit_code == 1
    assert option[-1] in result.stdout
    assert "Traceback" not in result.output


def test_a_dtype_without_a_model_is_not_dropped_silently() -> None:
    result = doctor("--dtype", "float32")
    assert result.exit_code == 2
    assert "give --model" in result.stderr


HEAVY = {"torch", "nnsight", "polars", "transformers", "numpy", "psutil"}


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "utf8", "-c", code]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def test_help_imports_nothing_heavy() -> None:
    done = python(
        "import sys, ssn_probe.doctor\nfrom ssn_probe.cli.commands import main\n"
        "try:\n    main(['doctor', '--help'])\n"
        f"finally:\n    print({HEAVY} & set(sys.modules), file=sys.stderr)\n"
    )
    assert "--model" in done.stdout
    assert done.stderr == "set()\n"


def test_where_nothing_heavy_can_be_imported_the_machine_is_still_examined() -> None:
    done = python(
        f"import sys\nsys.modules.update(dict.fromkeys({HEAVY - {'psutil'}}))\n"
        "from ssn_probe.cli.commands import main\nmain(['doctor', '--model', 'organism'])\n"
    )
    assert (done.returncode, done.stderr) == (1, "")
    for name in ("torch", "transformers", "nnsight", "polars"):
        assert f"\n✗ import {name:8}" in done.stdout
    for name in ("python", "packages", "processor", "memory", "hub", "results"):
        assert f" {name} " in done.stdout
        assert f"✗ {name} " not in done.stdout
    assert "✗ device         unknown: torch cannot be imported" in done.stdout
    assert "✗ model          ModuleNotFoundError: import of " in done.stdout
