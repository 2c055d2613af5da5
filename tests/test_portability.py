"""Nothing depends on the machine: the order of a folder, the encoding of a terminal, the width of a window."""

import ast
import io
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ssn_probe
from ssn_probe import Prompts, SafetyNeurons
from ssn_probe.cli.commands import main

ROOT = Path(__file__).parents[1]
PRODUCT = sorted(Path(ssn_probe.__file__).parent.rglob("*.py")) + sorted((ROOT / "recipes").glob("*.py"))
CODE = [*PRODUCT, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
LISTINGS = ("glob", "rglob", "iglob", "iterdir", "listdir", "scandir")
TEXT = {"read_text": 0, "write_text": 1}
"""Methods that read or write text, and how many arguments they have before the encoding."""


def name_of(node: ast.AST) -> str:
    """The function or method that a call names; empty for what is no call."""
    function = getattr(node, "func", None)
    return getattr(function, "attr", getattr(function, "id", ""))


def calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_every_listing_of_a_folder_is_sorted_at_once() -> None:
    """Or only asked whether it is empty."""
    for path in PRODUCT:
        found = calls(path)
        settled = {id(node) for call in found if name_of(call) in ("sorted", "any") for node in ast.walk(call)}
        for call in found:
            loose = name_of(call) in LISTINGS and id(call) not in settled
            assert not loose, f"{path}, line {call.lineno}: {ast.unparse(call)}"


def test_every_text_file_names_its_encoding() -> None:
    for path in CODE:
        for call in calls(path):
            named = any(one.arg == "encoding" for one in call.keywords)
            bare = len(call.args) == TEXT.get(name_of(call), -1) and not named
            assert not bare, f"{path}, line {call.lineno}: {ast.unparse(call)}"


def in_ascii(*arguments: str, columns: str = "80") -> Result:
    """A command whose standard output and error are ASCII, and its outcome; a bug of ours exits with 70."""
    result = CliRunner(charset="ascii").invoke(main, list(arguments), env={"COLUMNS": columns})
    assert result.output_bytes.isascii()
    assert result.exit_code in (0, 1, 2), result.output
    return result


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with one small run in it, made in ASCII."""
    out = str(tmp_path_factory.mktemp("a b@[x]"))
    arguments = ("identify_ms", "--limit", "8", "-T", "effect=local", "-o", out)
    assert in_ascii("run", *arguments).exit_code == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list",), "identify_ms"),
        (("show", "suppress_ss", "--no-time"), "<= 28,000"),
        (("results",), "identify_ms"),
        (("results", "latest"), "+- Answer -"),
        (("verify", "latest"), "+ neurons.parquet"),
        (("doctor", "--model", "organism"), "+ imports"),
        (("doctor", "--model", "./\u9ad8"), "-> Give a folder"),
        (("organism", "info"), "qaa"),
        (("delta", "train", "--help"), "delta train ..."),
        (("delta", "info", os.fsdecode("\u9ad8".encode())), "Cannot read"),
        (("run", "\u9ad8", "--limit", "8"), "\\u9ad8"),
        (("\u9ad8",), "Usage"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_prints_to_a_terminal_without_unicode(
    arguments: tuple[str, ...], said: str, results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(results).parent)
    out = ("-o", results) if arguments[0] in ("results", "verify", "show") else ()
    assert said in in_ascii(*arguments, *out).output


def test_a_run_in_python_does_not_break_off_at_a_name_that_the_terminal_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    neurons = SafetyNeurons(Prompts("organism"), effect="local")
    ssn_probe.run(ssn_probe.Recipe(sets={"\u9ad8": neurons}), out=tmp_path, limit=8)
    terminal.flush()
    assert b"prompts" in terminal.buffer.getvalue()  # type: ignore[attr-defined]
