"""The command line, as far as it needs no model: what it says, what it refuses, and what it never imports."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ssn_probe.recipes
from click.testing import CliRunner, Result
from ssn_probe.recipes import suppress_ss

from ssn_probe import __version__
from ssn_probe.cli.commands import BARE, main
from ssn_probe.spec.node import to_json

SHIPPED = [getattr(ssn_probe.recipes, name) for name in ssn_probe.recipes.__all__]
COMMANDS = ["", *main.commands, "organism info", "organism train", "delta train"]
HEAVY = ("pydantic", "torch", "nnsight", "polars", "transformers", "numpy", "scipy")


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ssn_probe", *arguments], capture_output=True, text=True, check=False
    )


def refused(result: Result, *words: str, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command writes by default lands in the test's own folder."""
    monkeypatch.chdir(tmp_path)


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bare_says_what_can_be_done_in_a_screen() -> None:
    result = command()
    assert (result.exit_code, result.stdout) == (0, BARE)
    lines = BARE.splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 100
    for first in ("ssn-probe run suppress_ss", "ssn-probe list", "ssn-probe organism info"):
        assert first in BARE


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(words: str, flag: str) -> None:
    result = command(*words.split(), flag)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert len(result.stdout.splitlines()) > 4


def test_the_version() -> None:
    assert command("--version").stdout == f"ssn-probe, version {__version__}\n"


def test_list_shows_every_question_with_its_parameters() -> None:
    result = command("list")
    assert result.exit_code == 0
    for function in SHIPPED:
        assert f"{function.name}\n    {function.question}\n" in result.stdout
        for name, parameter in function.parameters.items():
            assert f"      -T {name}={parameter.default!r}" in result.stdout


def test_list_of_a_file_executes_nothing_and_shows_hostile_text_as_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    docstring = r"\x1b[31mIs it [bold]red[/bold]?\x1b[0m \u202e\x07"
    path.write_text(
        f'raise SystemExit("executed")\n\n@recipe\ndef mine(top: float = 0.5):\n    "{docstring}"\n', encoding="utf-8"
    )
    result = command("list", str(path))
    assert result.exit_code == 0
    assert result.stdout == "mine\n    Is it [bold]red[/bold]? \n      -T top=0.5    (float)\n"


# ── what it never imports ────────────────────────────────────────────────────────────────────────────────────────────

QUICK = [
    [],
    ["--help"],
    ["--version"],
    ["list"],
    ["run", "--help"],
    ["show", "--help"],
    ["results", "--help"],
    ["organism", "train", "--help"],
    ["rnu"],
    ["run", "supress_ss"],
    ["run", "suppress_ss", "-T", "tpo=1"],
]
PROBE = (
    "import sys\n"
    "from ssn_probe.cli.commands import main\n"
    "try:\n    main(sys.argv[1:], prog_name='ssn-probe')\n"
    "except SystemExit:\n    pass\n"
    "import json\nprint('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
)


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_quick_commands_import_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
    imported = json.loads(done.stdout.splitlines()[-1])
    assert "ssn_probe" in imported
    assert not set(HEAVY) & set(imported)


def test_the_package_itself_imports_nothing_heavy() -> None:
    probe = "import sys, ssn_probe, ssn_probe.recipes; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in done.stdout.split()} & {*HEAVY, "rich", "click"}


# ── as a module ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_module_is_the_command_line() -> None:
    done = module()
    assert (done.returncode, done.stdout, done.stderr) == (0, BARE, "")
    done = module("run", "supress_ss")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: unknown recipe 'supress_ss'\n  Did you mean 'suppress_ss'?")


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], ["no command 'rnu'", "Did you mean 'run'?"]),
        (["reslts"], ["Did you mean 'results'?"]),
        (["zzz"], ["list", "organism", "results", "run", "show"]),
        (["organism", "trian"], ["trian"]),
        (["run"], ["RECIPE"]),
        (["run", "suppress_ss", "--limit", "0"], ["--limit"]),
        (["run", "suppress_ss", "--batch-size", "0"], ["--batch-size"]),
        (["run", "suppress_ss", "--wrong"], ["--wrong"]),
        (["run", "suppress_ss", "top=1"], ["top=1"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_usage_is_exit_2(arguments: list[str], words: list[str]) -> None:
    refused(command(*arguments), *words, code=2)


@pytest.mark.parametrize("verb", ["run", "show"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["supress_ss"], ["unknown recipe 'supress_ss'", "Did you mean 'suppress_ss'?"]),
        (["./missing.py"], ["no recipe file './missing.py'", "ssn-probe list"]),
        (["missing.json"], ["Cannot read missing.json"]),
        (["suppress_ss", "-T", "contrls=3"], ["no parameter 'contrls'", "Did you mean 'controls'?"]),
        (["suppress_ss", "-T", "top"], ["-T 'top' has no '='", "-T top=VALUE"]),
        (["suppress_ss", "-T", "top=.1", "-T", "top=.2"], ["-T top is given twice"]),
        (["suppress_ss", "-T", "controls=3.5"], ["-T controls='3.5' is not int"]),
        (["suppress_ss", "-T", "top=nan"], ["SafetyNeurons.top is nan"]),
        (["suppress_ss", "-T", "effect=locl"], ["unknown effect 'locl'", "Did you mean 'local'?"]),
        (["suppress_ss", "-T", "seed=-1", "-T", "data=missing"], ["seed is -1"]),
        (["suppress_ss@overlap", "-T", "data=missing"], ["no recipe 'overlap'"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_recipe_or_parameter_is_exit_1(verb: str, arguments: list[str], words: list[str]) -> None:
    refused(command(verb, *arguments), *words)
    assert not list(Path().iterdir()), "nothing is written"


STORED = to_json(suppress_ss())


@pytest.mark.parametrize(
    ("name", "content", "arguments", "words"),
    [
        ("mine.py", "@recipe\ndef a(): ...\n\n@recipe\ndef b(): ...\n", ["run"], ["declares 2 recipes", "mine.py@a"]),
        ("mine.py", "x = (\n", ["list"], ["mine.py, line 1"]),
        ("recipe.json", json.dumps(STORED | {"version": 99}), ["run"], ["version 99"]),
        ("recipe.json", json.dumps(STORED), ["run", "-T", "top=.5"], ["-T does not apply"]),
    ],
    ids=["two recipes", "syntax", "newer", "settled"],
)
def test_a_file_that_cannot_be_used(name: str, content: str, arguments: list[str], words: list[str]) -> None:
    Path(name).write_text(content, encoding="utf-8")
    refused(command(*arguments, name), *words)
    assert not Path("results").exists()


def test_hostile_text_in_a_mistake_does_not_reach_the_terminal() -> None:
    for arguments in (["run", "\x1b[31mred"], ["run", "suppress_ss", "-T", "\x1b[31mred=1"], ["\x1b[31mred"]):
        result = command(*arguments)
        assert result.exit_code in (1, 2)
        assert "\x1b" not in result.output
        assert len(result.stderr.splitlines()) <= 5


def test_debug_shows_where_a_mistake_was_found() -> None:
    result = command("--debug", "run", "supress_ss")
    assert type(result.exception).__name__ == "RecipeError"


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_results_yet() -> None:
    Path("empty").mkdir()
    refused(command("results", "latest"), "no run 'latest' in results")
    for arguments in (["results"], ["results", "-o", "empty"]):
        result = command(*arguments)
        assert result.exit_code == 0
        assert "No runs yet" in result.stdout
        assert "ssn-probe run suppress_ss" in result.stdout


def make_run(name: str, **manifest: Any) -> None:
    folder = Path("results") / name
    folder.mkdir(parents=True)
    common = {"schema_version": 1, "seconds": {"load": 1.4, "identify": 2.3}, "model": {"name": "organism"}}
    (folder / "manifest.json").write_text(json.dumps(common | manifest), encoding="utf-8")


def test_past_runs_newest_first_with_the_failed_ones() -> None:
    make_run("2026-01-02T03-04-05_overlap_01234567", status="done", answer=["It is so."])
    make_run("2026-01-02T03-04-06_overlap_01234567", status="failed", error="no neuron of de\x1b[31m")
    make_run("2026-01-02T03-04-07_overlap_01234567", status="interrupted", model={"name": "[red]\x1b[31mmine"})
    result = command("results")
    assert result.exit_code == 0
    lines = [line for line in result.stdout.splitlines() if "_overlap_" in line]
    assert [line.split()[:2] for line in lines] == [
        ["2026-01-02T03-04-07_overlap_01234567", "interrupted"],
        ["2026-01-02T03-04-06_overlap_01234567", "failed"],
        ["2026-01-02T03-04-05_overlap_01234567", "done"],
    ]
    assert "[red]mine" in lines[0]
    assert "\x1b" not in result.stdout
    card = command("results", "04-06").stdout
    assert "failed" in card
    assert "no neuron of de" in card
    assert "\x1b" not in card
    assert "It is so." in command("results", "04-05").stdout


def test_the_name_of_a_run_is_never_cut() -> None:
    """It is what one types to see the run; whatever else stands in the row must give way."""
    name = "2026-01-02T03-04-05_suppress_ss_01234567"
    make_run(name, status="done", model={"name": "/a/folder/with/a/long/name/" * 3})
    for columns in ("30", "80"):
        shown = CliRunner().invoke(main, ["results"], env={"COLUMNS": columns}).stdout
        assert re.search(rf"^{name} +done", shown, re.MULTILINE)


def test_a_current_folder_that_was_removed_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("ssn_probe.cli.commands.os.getcwd", gone)
    result = command("show", "identify_ms", "--no-time")
    assert result.exit_code == 1
    assert result.stderr == "Error: The current folder no longer exists.\n  Go to another one: cd DIR.\n"


@pytest.mark.parametrize(
    ("arguments", "way"),
    [
        (("suppress_ss", "top=0.1"), "-T top=0.1"),
        (("suppress_ss", "data=a b", "model=c=d"), "-T 'data=a b' -T model=c=d"),
        (("top=0.1", "suppress_ss"), "-T top=0.1"),
        (("suppress_ss", "-T", "top", "0.1"), "-T top=0.1"),
        (("suppress_ss", "--top", "0.1"), "-T top=0.1"),
        (("suppress_ss", "--max-new-tokens=8", "-o", "a=b"), "-T max_new_tokens=8"),
        (("suppress_ss", "--yes", "top=0.1"), "-T top=0.1"),
        (("suppress_ss", "--top"), "-T top=VALUE"),
    ],
)
@pytest.mark.parametrize("name", ["run", "show"])
def test_a_parameter_without_its_option_is_told_how_it_is_given(
    name: str, arguments: tuple[str, ...], way: str
) -> None:
    result = command(name, *arguments)
    assert result.exit_code == 2
    assert result.stderr.rstrip().endswith(f"Parameters of a recipe follow -T: {way}")


@pytest.mark.parametrize(
    "arguments", [("suppress_ss", "more"), ("suppress_ss", "--frsh"), ("suppress_ss", "more", "-o", "a=b")]
)
def test_what_is_no_parameter_is_not_told_so(arguments: tuple[str, ...]) -> None:
    result = command("run", *arguments)
    assert result.exit_code == 2
    assert "Parameters of a recipe" not in result.stderr
